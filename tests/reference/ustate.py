"""``ustate`` of a first moment: 2 bits in units of the update, turboadam 0.2.0's coding.

Of 64 elements the mean is kept, in bf16; of each element the place among four levels that are one
step of the whole tensor apart. The step is a multiple of the root mean square that the elements had
about their means one step ago. Rounding is stochastic, and antithetic: neighbours of a pair use
``x`` and ``1 - x``, but for half a unit of the last place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .codec import Array, Frame, Planes
from .packed import pack, unpack
from .random_bits import BLOCK, WEYL, spread
from .storage import narrow, widen
from .sums import ITEM, LANES, across_lanes, lane_sums

HALF = 64  # elements that share a mean
LARGEST = np.float32(2.0**10)  # no update is as large: what is, is not encoded
LEAST_STEP = np.float32(2.0**-100)
RANDOM_BITS = 21
MIDDLE, LAST = np.float32(1.5), np.float32(3)


def antithetic(keys: NDArray[np.uint64]) -> NDArray[np.float32]:
    """Numbers in [0, 1), (blocks, 128): along 16 lanes a Weyl sequence of pairs, whose second is
    the complement of the first."""
    step = np.uint64(WEYL >> (32 - RANDOM_BITS) | 1)
    lanes = np.arange(LANES, dtype=np.uint64)
    values = keys + lanes // np.uint64(2) * step
    values = np.where(lanes % np.uint64(2) == 1, ~values, values)
    return (spread(values, RANDOM_BITS) / 2.0**RANDOM_BITS).astype(np.float32)


def next_step(square_sum: float, numel: int, factor: float, last: np.float32) -> np.float32:
    """The step between codes by what the elements were about their means."""
    step = math.sqrt(square_sum / numel) * factor if numel and square_sum >= 0 else math.nan
    return np.float32(step) if math.isfinite(step) else last


@dataclass(frozen=True)
class UState:
    """Planes: codes; means; the steps that codes were made with and are to be made with next."""

    numel: int
    factor: float
    frame: Frame | None = None
    update_units: bool = True
    persisted_units: bool = True

    def within(self, frame: Frame) -> UState:
        return replace(self, frame=frame)

    @property
    def blocks(self) -> int:
        return -(-self.numel // BLOCK)

    @property
    def counts(self) -> Array:
        """Elements of every half, (blocks, 2, 1)."""
        firsts = np.arange(2 * self.blocks).reshape(-1, 2, 1) * HALF
        return np.clip(self.numel - firsts, 0, HALF).astype(np.float32)

    @property
    def inside(self) -> Array:
        return np.arange(self.blocks * BLOCK).reshape(-1, 2, HALF) < self.numel

    def empty(self) -> Planes:
        return {
            "": np.zeros(self.blocks * BLOCK // 4, np.uint8),
            "_mean": np.zeros(self.blocks * 2, np.uint16),
            "_steps": np.zeros(2, np.float32),
        }

    def unit(self, planes: Planes, denominators: Array) -> Array:
        raise NotImplementedError("of first moments alone")

    def roots(self, planes: Planes) -> Array:
        raise NotImplementedError("of first moments alone")

    def decode(self, planes: Planes, decay: Array) -> Array:
        assert self.frame is not None
        before = np.float32(self.frame.correction_before)
        return (self._units(planes) * (decay * before)).reshape(-1)[: self.numel]

    def _units(self, planes: Planes) -> Array:
        """(blocks, 2, 64)"""
        codes = unpack(planes[""], 2).reshape(-1, 2, HALF).astype(np.float32)
        sums = codes.sum(axis=2, keepdims=True)  # padding has the code 0
        middles = np.divide(sums, self.counts, out=np.zeros_like(sums), where=self.counts > 0)
        means = widen(planes["_mean"], "bfloat16").reshape(-1, 2, 1)
        return np.asarray((codes - middles) * planes["_steps"][0] + means)

    def unit_roots(self, planes: Planes, decay: Array) -> tuple[Array, np.float32]:
        return self.roots(planes), np.float32(1)

    def levels(self, planes: Planes, decay: Array) -> tuple[Array, Array] | None:
        return None

    def encode(
        self, old: Planes, decayed: Array, values: Array, keys: NDArray[np.uint64]
    ) -> Planes:
        """``values`` are bias-corrected, over the persisted second moment's denominator."""
        step = self._step_of(old)
        planes, squares = self._encode_with(step, old, values, keys)
        following = next_step(_item_sum(squares), self.numel, self.factor, step)
        return {**planes, "_steps": np.array([step, following], np.float32)}

    def encode_anew(self, old: Planes, values: Array, keys: NDArray[np.uint64]) -> Planes:
        """Outside a step, where none has said how far apart the codes are to be: by two rounds."""
        planes, squares = self._encode_with(self._step_of(old), old, values, keys)
        total = sum((float(across_lanes(lanes)) for lanes in squares), 0.0)
        step = next_step(total, self.numel, self.factor, np.float32(0))
        again, _ = self._encode_with(step, {**planes, "_steps": old["_steps"]}, values, keys)
        return {**again, "_steps": np.array([step, step], np.float32)}

    def _step_of(self, old: Planes) -> np.float32:
        assert self.frame is not None
        return np.float32(self.factor if self.frame.first else old["_steps"][1])

    def _encode_with(
        self, step: np.float32, old: Planes, values: Array, keys: NDArray[np.uint64]
    ) -> tuple[Planes, Array]:
        """Codes and means with this step; and lanes of each block's sum of squares about the
        means."""
        padded = np.zeros((self.blocks, 2, HALF), np.float32)
        padded.reshape(-1)[: self.numel] = values
        means, rest = self._about_means(padded)
        squares = _lane_squares(rest)
        bad = ~(across_lanes(squares) < LARGEST * LARGEST)
        if bad.any():
            good = np.abs(padded) < LARGEST
            mended = np.where(good, padded, self._units(old))
            padded = np.where(bad[:, None, None] & self.inside, mended, padded)
            means, rest = self._about_means(padded)
            squares = _lane_squares(rest)
        inverse = np.float32(1) / step if step > LEAST_STEP else np.float32(0)
        places = np.clip(rest * inverse + MIDDLE, np.float32(0), LAST)
        places = np.where(self.inside, places, np.float32(0)).reshape(-1, BLOCK)
        codes = np.floor(places + (np.float32(4) + antithetic(keys))).astype(np.int64) - 4
        return {"": pack(codes, 2), "_mean": means.reshape(-1)}, squares

    def _about_means(self, padded: Array) -> tuple[Array, Array]:
        """Means of the halves, as stored, and what is left of the elements without them."""
        lanes = lane_sums(padded.reshape(-1, 2, HALF // LANES, LANES))
        sums = across_lanes(lanes + np.float32(0))[..., None]  # of -0 alone: 0
        means = np.divide(sums, self.counts, out=np.zeros_like(sums), where=self.counts > 0)
        stored = narrow(means, "bfloat16")
        rest = padded - widen(stored, "bfloat16")
        return stored, np.where(self.inside, rest, np.float32(0))


def _lane_squares(rest: Array) -> Array:
    squares = rest * rest
    return lane_sums(squares.reshape(-1, BLOCK // LANES, LANES))


def _item_sum(squares: Array) -> float:
    """Of blocks' lanes: within an item one block after the other in float32, then in float64."""
    total = 0.0
    for first in range(0, len(squares), ITEM // BLOCK):
        item = 0.0
        for lane in lane_sums(squares[first : first + ITEM // BLOCK]):
            item += float(lane)
        total += item
    return total
