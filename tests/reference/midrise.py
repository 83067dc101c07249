"""``u1`` and ``u2`` of an average of the gradient: a few levels around zero and none at it.

Code k of L = 2^bits stands for k - (L - 1) / 2 steps. The step is a bf16 number, to nearest, from
the block's root mean square. Values beyond the outer levels are clamped to them; rounding between
levels is stochastic and unbiased.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .codec import Array
from .random_bits import uniform
from .storage import narrow, widen
from .sums import across_lanes, lane_sums

#: Step over RMS of the least mean square error for a normal distribution (Max, IRE Trans. Inf.
#: Theory 6(1), 1960).
STEP_OF_RMS = {1: np.float32(1.596), 2: np.float32(0.996)}
LEAST_RMS = np.float32(2.0**-60)  # a block with less is stored with step 0
LARGEST = np.float32(2.0**60)  # mended values are clamped to it, so that squares stay finite


def _sum_of_squares(values: Array) -> Array:
    squares = values * values
    return across_lanes(lane_sums(squares.reshape(-1, 8, 16)))


@dataclass(frozen=True)
class Midrise:
    bits: int
    update_units: bool = True
    word: str = "uint16"

    @property
    def middle(self) -> np.float32:
        return np.float32(((1 << self.bits) - 1) / 2)

    def decode(self, codes: Array, words: Array, decay: Array) -> Array:
        steps = widen(words, "bfloat16") * decay
        return np.asarray((codes.astype(np.float32) - self.middle) * steps)

    def ordinary(self, values: Array) -> Array:
        return np.isfinite(_sum_of_squares(values))

    def mended(self, values: Array, before: Array) -> Array:
        return np.clip(np.where(np.isfinite(values), values, before), -LARGEST, LARGEST)

    def padding(self, values: Array) -> Array:
        return np.zeros_like(values)

    def encode(self, values: Array, counts: Array, keys: NDArray[np.uint64]) -> tuple[Array, Array]:
        rms = np.sqrt(_sum_of_squares(values) / counts.astype(np.float32))
        words = narrow(STEP_OF_RMS[self.bits] * rms, "bfloat16")
        words = np.where(rms < LEAST_RMS, 0, words).astype(np.uint16)
        steps = widen(words, "bfloat16")
        inverse = np.where(words > 0, np.float32(1) / steps, np.float32(0))

        levels = 1 << self.bits
        places = np.clip(values * inverse[:, None] + self.middle, 0, np.float32(levels - 1))
        raised = np.float32(levels) + uniform(keys, 23 - self.bits)
        return np.floor(places + raised).astype(np.int64) - levels, words
