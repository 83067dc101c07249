"""``u4`` and ``q8`` of an average of the gradient: signed integers under one scale a block.

They stand for -L to L scales, L = 2^(bits - 1) - 1. The code of an integer is L + 1 more; of 8 bits
in update units it is the integer in two's complement. The scale is a bf16 number, rounded up from
the block's largest magnitude over L. Rounding to an integer is stochastic and unbiased.
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
    def half(self) -> int:
        """L + 1."""
        return 1 << (self.bits - 1)

    @property
    def signed(self) -> bool:
        """Whether codes are in two's complement."""
        return self.bits == 8 and self.update_units

    def decode(self, codes: Array, words: Array, decay: Array) -> Array:
        whole, levels = self.levels(codes, words, decay)
        return np.asarray(whole * levels)

    def levels(self, codes: Array, words: Array, decay: Array) -> tuple[Array, Array]:
        integers = (codes ^ self.half) - self.half if self.signed else codes - self.half
        return integers.astype(np.float32), widen(words, "bfloat16") * decay

    def ordinary(self, values: Array) -> Array:
        return np.asarray(np.isfinite(values).all(axis=1))

    def mended(self, values: Array, before: Array) -> Array:
        return np.where(np.isfinite(values), values, before)

    def padding(self, values: Array) -> Array:
        return np.zeros_like(values)

    def encode(
        self,
        values: Array,
        counts: Array,
        keys: NDArray[np.uint64],
        to_nearest: bool = False,  # as gradients are on a wire
    ) -> tuple[Array, Array]:
        top = np.abs(values).max(axis=1, keepdims=True)
        wanted = top * (HEADROOM / np.float32(self.half - 1))
        words = (wanted.view(np.uint32) + np.uint32(0xFFFF)) >> 16  # up
        words = np.where(top < LEAST, 0, words).astype(np.uint16)
        inverse = np.where(words > 0, np.float32(1) / widen(words, "bfloat16"), np.float32(0))

        # r is added above 2^k, where all places have the same exponent
        if self.bits == 4:
            k, base = 7, 192 + self.half
        else:
            k = self.bits + 1 if self.signed else self.bits
            base = 3 << (k - 1)
        r = np.float32(0.5) if to_nearest else uniform(keys, 23 - k)
        places = values * inverse + (np.float32(base) + r)
        codes = np.floor(places).astype(np.int64) & (1 << self.bits) - 1
        return codes, words.reshape(-1)
