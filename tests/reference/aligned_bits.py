"""``v4`` of a second moment, ``v8`` of a plain tensor: steps between the bits of floats, read as
integers.

The bits of a number >= 0 grow as it does, and are linear in it within a binade. A block's levels
are ``low + (code << shift)`` in such bits: ``shift`` is the least whose steps reach from the
smallest number to the largest. Neighbouring levels lie in one binade, so that stochastic rounding
between bits is unbiased in the number.

A block of 4 bits that holds zeros beside other numbers keeps code 0 for zero, and its levels are
for the others. An element without a second moment has no first one: its update unit is next to
nothing.

Word: ``low`` ends in ``shift`` zeros. 4 bits: the upper half of ``low``, with bit ``shift - 17``
set beneath its own, and the sign in a block with zeros. 8 bits: ``low + shift``. A word of 0, as in
fresh state, is a block of zeros.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .blockwise import Blockwise
from .codec import Array, Planes
from .packed import unpack
from .random_bits import spread_bits_of

CEILING = np.float32(2.0**126)  # larger numbers are clamped to it
BINADE = 23  # bits of a mantissa
ZEROS = 0x8000  # in a word of 4 bits: code 0 is zero
NO_UNIT = np.float32(2.0**-100)


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
        levels = (low + (codes << shift)).astype(np.uint32).view(np.float32)
        return np.asarray(decay * np.where(self.absent(codes, words), np.float32(0), levels))

    def absent(self, codes: Array, words: Array) -> Array:
        """Whether an element's code is the one that is kept for zero."""
        flagged = (words.astype(np.int64) & ZEROS) != 0
        return np.asarray((codes == 0) & flagged & (self.bits == 4))

    def _steps_of(self, word: int) -> tuple[int, int]:
        """(low, shift) of a block's word."""
        if self.bits == 8:
            word &= 0xFFFFFFFF
            return (word & ~31, word & 31) if word else (0, self.least_shift)
        word &= 0xFFFF & ~ZEROS
        if word == 0:
            return 0, self.least_shift
        mark = word & -word  # its lowest set bit
        return (word - mark) << 16, mark.bit_length() - 1 + 17

    def ordinary(self, values: Array) -> Array:
        return np.asarray((values <= CEILING).all(axis=1) & ~np.signbit(values).any(axis=1))

    def mended(self, values: Array, before: Array) -> Array:
        kept = np.where(np.isfinite(values), values, before)
        return np.where(kept > 0, np.minimum(kept, CEILING), np.float32(0))

    def padding(self, values: Array) -> Array:
        return np.broadcast_to(values[:, :1], values.shape)

    def _fitting(self, least: int, largest: int) -> tuple[int, int]:
        """(low, shift) for numbers between these bits."""
        shift = max(((largest - least) // (self.top - 1)).bit_length(), self.least_shift)
        if shift <= BINADE:
            return least >> shift << shift, shift
        binades = -(-largest >> BINADE)  # rounded up: -(-x >> n) is the ceiling of x / 2^n
        return max(binades - self.top, 0) << BINADE, BINADE

    def _above_zero(self, least: int, largest: int) -> tuple[int, int]:
        """The same for the numbers of a block beside its zeros; ``low`` is the level of code 0,
        were it not zero's own."""
        shift = max(((largest - least) // (self.top - 2)).bit_length(), self.least_shift)
        if shift > BINADE:
            return self._fitting(0, largest)
        return max((least >> shift) - 1, 0) << shift, shift

    def _steps_for(self, bits: Array) -> tuple[int, int, int]:
        """(low, shift, least level of a number that is not zero) for a block."""
        others = bits[bits > 0]
        if self.bits == 4 and 0 < others.size < bits.size:
            low, shift = self._above_zero(int(others.min()), int(others.max()))
            return low, shift, low + (1 << shift) if low else 0
        low, shift = self._fitting(int(bits.min()), int(bits.max()))
        return low, shift, low

    def encode(self, values: Array, counts: Array, keys: NDArray[np.uint64]) -> tuple[Array, Array]:
        bits = _bits(values)
        steps = [self._steps_for(block) for block in bits]
        low, shift, least = np.array(steps, np.int64).reshape(-1, 3, 1).transpose(1, 0, 2)
        random = spread_bits_of(keys).astype(np.int64) >> (32 - shift)  # uniform in [0, 2^shift)
        held = np.maximum(np.where(bits > 0, np.maximum(bits, least), bits), low)
        codes = (held - low + random) >> shift
        words = low + shift if self.bits == 8 else (low >> 16) + (1 << (shift - 17))
        if self.bits == 4:
            zeros = (bits == 0).any(axis=1) & (bits > 0).any(axis=1)
            words = words + np.where(zeros, ZEROS, 0)[:, None]
        return codes, words.reshape(-1).astype(np.uint32).astype(self.word)


class AlignedBlocks(Blockwise):
    """Blocks of 4 bits."""

    format: AlignedBits

    def unit(self, planes: Planes, denominators: Array) -> Array:
        codes, words = unpack(planes[""], 4), planes["_scale"].reshape(-1, 1)
        absent = self.format.absent(codes, words).reshape(-1)[: self.numel]
        return np.where(absent, NO_UNIT, denominators)
