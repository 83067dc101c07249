"""``v4`` and ``q8`` of a second moment: steps between the bits of floats, read as integers.

The bits of a number >= 0 grow as it does, and are linear in it within a binade. A block's levels
are ``low + (code << shift)`` in such bits: ``shift`` is the least whose steps reach from the
smallest number to the largest. Neighbouring levels lie in one binade, so that stochastic rounding
between bits is unbiased in the number.

Word: ``low`` ends in ``shift`` zeros. 4 bits: the upper half of ``low``, with bit ``shift - 17``
set beneath its own. 8 bits: ``low + shift``. A word of 0, as in fresh state, is a block of zeros.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .codec import Array
from .random_bits import bits_of

CEILING = np.float32(2.0**126)  # larger numbers are clamped to it
BINADE = 23  # bits of a mantissa


def _bits(values: Array) -> Array:
    return np.ascontiguousarray(values, np.float32).view(np.uint32).astype(np.int64)


@dataclass(frozen=True)
class AlignedBits:
    bits: int
    update_units: bool = False

    @property
    def word(self) -> str:
        return "int16" if self.bits == 4 else "int32"

    @property
    def least_shift(self) -> int:
        return 17 if self.bits == 4 else 5

    @property
    def top(self) -> int:
        return (1 << self.bits) - 1

    def decode(self, codes: Array, words: Array, decay: Array) -> Array:
        steps = np.array([self._steps_of(int(word)) for word in words.reshape(-1)], np.int64)
        low, shift = steps.reshape(-1, 2, 1).transpose(1, 0, 2)
        return decay * (low + (codes << shift)).astype(np.uint32).view(np.float32)

    def _steps_of(self, word: int) -> tuple[int, int]:
        """(low, shift) of a block's word."""
        if word == 0:
            return 0, self.least_shift
        if self.bits == 8:
            word &= 0xFFFFFFFF
            return word & ~31, word & 31
        word &= 0xFFFF
        mark = word & -word  # its lowest set bit
        return (word - mark) << 16, mark.bit_length() - 1 + 17

    def ordinary(self, values: Array) -> Array:
        return np.asarray((values <= CEILING).all(axis=1))  # no infinity, no NaN

    def mended(self, values: Array, before: Array) -> Array:
        return np.minimum(np.where(np.isfinite(values), values, before), CEILING)

    def padding(self, values: Array) -> Array:
        return np.broadcast_to(values[:, :1], values.shape)

    def _fitting(self, least: int, largest: int) -> tuple[int, int]:
        """(low, shift) for numbers between these bits."""
        shift = max(((largest - least) // (self.top - 1)).bit_length(), self.least_shift)
        if shift <= BINADE:
            return least >> shift << shift, shift
        binades = -(-largest >> BINADE)  # rounded up: -(-x >> n) is the ceiling of x / 2^n
        return max(binades - self.top, 0) << BINADE, BINADE

    def encode(self, values: Array, counts: Array, keys: NDArray[np.uint64]) -> tuple[Array, Array]:
        bits = _bits(values)
        ranges = zip(bits.min(axis=1), bits.max(axis=1), strict=True)
        steps = [self._fitting(int(least), int(largest)) for least, largest in ranges]
        low, shift = np.array(steps, np.int64).reshape(-1, 2, 1).transpose(1, 0, 2)
        random = bits_of(keys).astype(np.int64) >> (32 - shift)  # uniform in [0, 2^shift)
        codes = (np.maximum(bits, low) - low + random) >> shift
        words = low + shift if self.bits == 8 else (low >> 16) + (1 << (shift - 17))
        return codes, words.reshape(-1).astype(np.uint32).astype(self.word)
