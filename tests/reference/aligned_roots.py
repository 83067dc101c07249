"""``q8`` of a second moment: steps between the bits of its square root, read as integers.

As in ``aligned_bits``, but code 0 is zero's own, so that zeros do not stretch a block's levels, and
the widest step is an eighth of a binade. Stochastic rounding between two levels is unbiased in the
root, and too large on average in its square. At one step of n, by lot, a block rounds up less
often, by n times of what is too much: n is 16 where levels are an eighth of a binade apart, twice
that at half the distance, and 128 at most.

Word: ``low + shift``, ``low`` being the level that code 0 would have. A word of 0 is a block of
zeros.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .aligned_bits import CEILING
from .blockwise import Blockwise
from .codec import Array, Planes
from .packed import unpack
from .random_bits import spread_bits_of, tensor_keys, uniform

BITS = 8
TOP = (1 << BITS) - 1
LEAST_SHIFT, MOST_SHIFT = 5, 20


@dataclass(frozen=True)
class AlignedRoots:
    bits: int = BITS
    update_units: bool = False
    word: str = "int32"

    def decode(self, codes: Array, words: Array, decay: Array) -> Array:
        roots = self.roots(codes, words)
        return np.asarray(roots * roots * decay)

    def roots(self, codes: Array, words: Array) -> Array:
        words = words.astype(np.int64) & 0xFFFFFFFF
        levels = (words & ~31) + (codes << (words & 31))
        return np.where(codes > 0, levels, 0).astype(np.uint32).view(np.float32)

    def ordinary(self, values: Array) -> Array:
        return np.asarray((values <= CEILING).all(axis=1) & ~np.signbit(values).any(axis=1))

    def mended(self, values: Array, before: Array) -> Array:
        kept = np.where(np.isfinite(values), values, before)
        return np.where(kept > 0, np.minimum(kept, CEILING), np.float32(0))

    def padding(self, values: Array) -> Array:
        return np.broadcast_to(values[:, :1], values.shape)

    def _steps_for(self, bits: Array) -> tuple[int, int]:
        """(low, shift) for a block of roots; (0, 0) for one of zeros."""
        others = bits[bits > 0]
        if others.size == 0:
            return 0, 0
        least, largest = int(others.min()), int(others.max())
        shift = max(((largest - least) // (TOP - 2)).bit_length(), LEAST_SHIFT)
        if shift <= MOST_SHIFT:
            return ((least >> shift) - 1) << shift, shift
        top = -(-largest >> MOST_SHIFT)  # rounded up
        return (top - TOP) << MOST_SHIFT, MOST_SHIFT

    def encode(self, values: Array, counts: Array, keys: NDArray[np.uint64]) -> tuple[Array, Array]:
        roots = np.sqrt(values)
        bits = np.ascontiguousarray(roots, np.float32).view(np.uint32).astype(np.int64)
        steps = [self._steps_for(block) for block in bits]
        low, shift = np.array(steps, np.int64).reshape(-1, 2, 1).transpose(1, 0, 2)
        held = np.where(bits > 0, np.maximum(bits, low + (1 << shift)), low)
        lots = MOST_SHIFT + 4 - np.maximum(shift, MOST_SHIFT - 3)
        corrects = tensor_keys(keys).astype(np.int64) >> (32 - lots) == 0
        random = spread_bits_of(keys).astype(np.int64) >> (32 - shift)  # uniform in [0, 2^shift)
        plain = (held - low + random) >> shift
        corrected = (held - low >> shift) + self._rises(held, shift, lots, keys)
        codes = np.where(shift > 0, np.where(corrects, corrected, plain), 0)
        return codes, (low + shift).reshape(-1).astype(np.uint32).astype(self.word)

    @staticmethod
    def _rises(held: Array, shift: Array, lots: Array, keys: NDArray[np.uint64]) -> Array:
        """Whether a number is rounded up at a step that corrects; in floats of [1, 2)."""
        place = (held & 0x7FFFFF) | 0x3F800000
        x, a = (p.astype(np.uint32).view(np.float32) for p in (place, place >> shift << shift))
        gap = np.exp2(shift - 23.0).astype(np.float32)
        b = a + gap
        drawn = (gap + gap * uniform(keys, 23)) - gap
        chance = (x - a) * ((a + b) - (1 << lots).astype(np.float32) * (b - x))
        return np.asarray(chance > drawn * (a + b))


class RootBlocks(Blockwise):
    """Blocks of which the roots are kept."""

    format: AlignedRoots

    def roots(self, planes: Planes) -> Array:
        codes = unpack(planes[""], BITS)
        return self.format.roots(codes, planes["_scale"].reshape(-1, 1)).reshape(-1)[: self.numel]
