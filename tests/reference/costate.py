"""``costate`` of a first moment: turboadam 0.1.0's coding.

A step ends by taking from the new average ``m`` its share along the gradient ``g``: ``alpha g``,
``alpha = (m, g) / (g, g)`` over the tensor. Of the rest the signs are kept and one scale a block;
the next step puts ``alpha`` times its own gradient in the place of the share. Blocks whose rest is
the least part of them keep none of it; of those where it is the largest, the scale is a half.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .codec import Array, Frame, Planes
from .packed import pack, unpack
from .random_bits import BLOCK
from .sums import LANES, across_lanes, lane_sums, ordered_sum

LARGEST = np.float32(2.0**60)  # what is not smaller is in no sum, nor what is left of it
ROOT_OF_BLOCK = np.float32(11.313708)


def _counted(values: Array) -> Array:
    return np.where(np.abs(values) < LARGEST, values, np.float32(0))


def share_along(m: Array, g: Array) -> np.float32:
    """alpha; 0 where it would not be a number."""
    g = _counted(g)
    along, square = ordered_sum(_counted(m) * g), ordered_sum(g * g)
    alpha = np.float32(along / square if square > 0 else 0.0)
    return alpha if np.isfinite(alpha) else np.float32(0)


@dataclass(frozen=True)
class CoState:
    """Planes: signs, 1 is negative; a scale a block; alpha of the whole tensor."""

    numel: int
    null_pct: float
    amp_pct: float
    frame: Frame | None = None
    update_units: bool = False
    persisted_units: bool = False

    def within(self, frame: Frame) -> CoState:
        return replace(self, frame=frame)

    @property
    def blocks(self) -> int:
        return -(-self.numel // BLOCK)

    def empty(self) -> Planes:
        return {
            "": np.zeros(self.blocks * BLOCK // 8, np.uint8),
            "_scale": np.zeros(self.blocks, np.float32),
            "_alpha": np.zeros(1, np.float32),
        }

    def unit(self, planes: Planes, denominators: Array) -> Array:
        raise NotImplementedError("of first moments alone")

    def roots(self, planes: Planes) -> Array:
        raise NotImplementedError("of first moments alone")

    def decode(self, planes: Planes, decay: Array) -> Array:
        assert self.frame is not None
        signs = np.float32(1) - 2 * unpack(planes[""], 1).astype(np.float32)
        rest = (signs * planes["_scale"].reshape(-1, 1)).reshape(-1)[: self.numel]
        return np.asarray(decay * (planes["_alpha"][0] * self.frame.gradient + rest))

    def unit_roots(self, planes: Planes, decay: Array) -> tuple[Array, np.float32]:
        return self.roots(planes), np.float32(1)

    def levels(self, planes: Planes, decay: Array) -> tuple[Array, Array] | None:
        return None

    def encode(
        self, old: Planes, decayed: Array, values: Array, keys: NDArray[np.uint64]
    ) -> Planes:
        assert self.frame is not None
        alpha = share_along(values, self.frame.gradient)
        signs, scales, ratios = self._rest(values, alpha)
        if self.numel:
            scales = self._classified(scales, ratios)
        return {"": signs, "_scale": scales, "_alpha": np.array([alpha])}

    def encode_anew(self, old: Planes, values: Array, keys: NDArray[np.uint64]) -> Planes:
        """Outside a step there is no gradient: the rest is all, and blocks are all alike."""
        signs, scales, _ = self._rest(values, np.float32(0))
        return {"": signs, "_scale": scales, "_alpha": old["_alpha"]}

    def _rest(self, values: Array, alpha: np.float32) -> tuple[Array, Array, Array]:
        """Signs of the rest, its scale a block, and its norm over the block's."""
        assert self.frame is not None
        m, d = np.zeros((2, self.blocks, BLOCK), np.float32)
        m.reshape(-1)[: self.numel] = values
        d.reshape(-1)[: self.numel] = values - alpha * self.frame.gradient
        signs = pack((d < 0).astype(np.int64), 1)
        d = np.where(np.abs(m) < LARGEST, d, np.float32(0))
        norms, wholes = np.sqrt(_block_squares(d)), np.sqrt(_block_squares(m))
        ratios = np.divide(norms, wholes, out=np.zeros_like(norms), where=wholes > 0)
        return signs, norms / ROOT_OF_BLOCK, ratios

    def _classified(self, scales: Array, ratios: Array) -> Array:
        count, ordered = ratios.size, np.sort(ratios)
        null_below = ordered[max(0, int(self.null_pct * count) - 1)]
        half_from = ordered[min(count - 1, int(self.amp_pct * count))]
        halves = scales.astype(np.float16).astype(np.float32)
        halves = np.where(np.isfinite(halves), halves, scales)
        kept = np.where(ratios < null_below, np.float32(0), scales)
        return np.where(ratios >= half_from, halves, kept)


def _block_squares(values: Array) -> Array:
    counted = _counted(values)
    squares = counted * counted
    return across_lanes(lane_sums(squares.reshape(-1, BLOCK // LANES, LANES)))
