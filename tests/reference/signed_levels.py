"""``u4`` and ``q8`` of an average of the gradient: signed integers under one scale a block.

Codes 1 to 2^bits - 1 stand for -L to L scales, L = 2^(bits - 1) - 1; the code of 0 is L + 1. The
scale is a bf16 number, rounded up from the block's largest magnitude over L. Rounding to a code is
stochastic and unbiased.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .codec import Array
from .random_bits import uniform
from .storage import widen

LEAST = np.float32(2.0**-100)  # a block whose largest magnitude is smaller is stored as zeros
HEADROOM = np.float32(1.000001)  # so that no quotient lies above L


@dataclass(frozen=True)
class SignedLevels:
    bits: int
    update_units: bool
    word: str = "uint16"

    @property
    def zero(self) -> int:
        """The code of 0."""
        return 1 << (self.bits - 1)

    def decode(self, codes: Array, words: Array, decay: Array) -> Array:
        scales = widen(words, "bfloat16") * decay
        return np.asarray((codes - self.zero).astype(np.float32) * scales)

    def ordinary(self, values: Array) -> Array:
        return np.asarray(np.isfinite(values).all(axis=1))

    def mended(self, values: Array, before: Array) -> Array:
        return np.where(np.isfinite(values), values, before)

    def padding(self, values: Array) -> Array:
        return np.zeros_like(values)

    def encode(self, values: Array, counts: Array, keys: NDArray[np.uint64]) -> tuple[Array, Array]:
        top = np.abs(values).max(axis=1, keepdims=True)
        wanted = top * (HEADROOM / np.float32(self.zero - 1))
        words = (wanted.view(np.uint32) + np.uint32(0xFFFF)) >> 16  # up
        words = np.where(top < LEAST, 0, words).astype(np.uint16)
        inverse = np.where(words > 0, np.float32(1) / widen(words, "bfloat16"), np.float32(0))

        # r is added above 3 2^(bits - 1), where all places have the same exponent
        raised = np.float32(3 * self.zero) + uniform(keys, 23 - self.bits)
        places = values * inverse + raised
        codes = np.floor(places).astype(np.int64) - 2 * self.zero
        return codes, words.reshape(-1)
