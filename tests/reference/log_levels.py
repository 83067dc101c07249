"""``vlog2`` to ``vlog8`` of a second moment: levels that are equally far apart in the logarithm.

A block's word holds the logarithms of its outer levels as two halves, the lower one below. Of a
geometric series, a level over its distance to the next one is the same for every level.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .blockwise import Blockwise
from .codec import Array, Planes
from .elementary import Octaves, exp2_less_1, exp2_of_progression, natural_log, split_factor
from .random_bits import uniform

LEAST = np.float32(2.0**-126)
LARGEST_LOG = np.float32(88.6875)  # a half whose exponential is a float
FRESH = 0xD451D451  # what a word of 0 means: both halves ln 1e-30

#: log2(m) - (m - 1) for 1 <= m < 2, within 6.4e-4.
CUBIC = (-1.1536208391189575, 2.047884225845337, -1.051875114440918, 0.15824872255325317)
MARGIN = 7.5e-4  # of a binade: guesses at a logarithm are never below it
BITS_MARGIN = 0.0862  # likewise without the cubic, log2(m) being up to 0.08608 above m - 1

LOG2_E = 1.4426950408889634
ONE, ZERO = np.float32(1), np.float32(0)


def to_half(x: Array, direction: float) -> Array:
    """Halves from float32: to nearest where ``direction`` is 0, else the next one towards it."""
    nearest = x.astype(np.float16)
    if direction == 0:
        return nearest
    widened = nearest.astype(np.float32)
    short = widened < x if direction > 0 else widened > x
    return np.where(short, np.nextafter(nearest, np.float16(direction)), nearest)


@dataclass(frozen=True)
class LogLevels:
    bits: int
    update_units: bool = False
    word: str = "uint32"

    @property
    def top(self) -> int:
        return (1 << self.bits) - 1

    def _ends(self, words: Array) -> tuple[Octaves, Octaves, Array]:
        """First level and step in binades, and the upper end's logarithm. (blocks, 1) each."""
        halves = np.where(words == 0, FRESH, words).astype(np.uint32).view(np.float16)
        low, high = halves.reshape(-1, 2).astype(np.float32).T[:, :, None]
        levels = self.top + 1
        first = Octaves.of(low, *split_factor(LOG2_E, 2.0**-11))
        step = Octaves.of(high - low, *split_factor(LOG2_E / self.top, 2.0**-11 / levels))
        return first, step, high

    def _factors(self, codes: Array, first: Octaves, step: Octaves) -> tuple[Array, Array]:
        """2^(first + code step) as a product: by a code's upper bits, and by its last four where it
        has more."""
        if self.bits <= 4:
            return exp2_of_progression(first, step, codes), np.ones(codes.shape, np.float32)
        upper = exp2_of_progression(first, step, codes & ~15)
        return upper, exp2_of_progression(
            Octaves(np.zeros_like(step.coarse), np.zeros_like(step.fine)), step, codes & 15
        )

    def decode(self, codes: Array, words: Array, decay: Array) -> Array:
        first, step, _ = self._ends(words)
        upper, lower = self._factors(codes, first, step)
        return np.asarray((upper * decay.astype(np.float32)) * lower)

    def ordinary(self, values: Array) -> Array:
        return np.asarray(np.isfinite(values).all(axis=1))

    def mended(self, values: Array, before: Array) -> Array:
        return np.where(np.isfinite(values), values, before)

    def padding(self, values: Array) -> Array:
        return np.broadcast_to(values[:, :1], values.shape)

    def encode(self, values: Array, counts: Array, keys: NDArray[np.uint64]) -> tuple[Array, Array]:
        words = self._words(values)
        first, step, high = self._ends(words.reshape(-1, 1))
        with np.errstate(all="ignore"):  # a block of one level divides by zero
            places = self._places(values, first, step, high)
        raised = np.float32(self.top + 1) + uniform(keys, 23 - self.bits)
        return np.floor(places + raised).astype(np.int64) - (self.top + 1), words

    def _words(self, values: Array) -> Array:
        ends = [values.min(axis=1), values.max(axis=1)]
        low, high = (np.minimum(natural_log(np.maximum(x, LEAST)), LARGEST_LOG) for x in ends)
        one = low == high
        lower = np.where(one, to_half(low, 0), to_half(low, -np.inf)).view(np.uint16)
        upper = np.where(one, to_half(high, 0), to_half(high, np.inf)).view(np.uint16)
        words = lower.astype(np.uint32) | upper.astype(np.uint32) << 16
        return np.where(words == 0, 0x8000, words).astype(np.uint32)

    def _places(self, values: Array, first: Octaves, step: Octaves, high: Array) -> Array:
        """Numbers as places among the levels, which rounding is between."""
        less_1 = exp2_less_1(step)
        c = np.where(less_1 > 0, ONE / less_1, ZERO)
        plain = self._plain(first, step, high)
        # scaled, so that slopes are floats
        binades = np.where(plain | (high >= 32), ZERO, np.float32(48))
        x = values * np.ldexp(ONE, binades.astype(np.int64))
        below = self._levels_below(x, first, step, binades, plain)
        raised = Octaves(first.coarse + binades, first.fine)
        upper, lower = self._factors(below.astype(np.int64), raised, step)
        y = x * ((c / upper) * (ONE / lower))
        places = np.minimum(y, y * (less_1 + ONE) - ONE) - c + below  # it is concave
        return np.asarray(np.minimum(np.maximum(places, ZERO), np.float32(self.top)))

    def _plain(self, first: Octaves, step: Octaves, high: Array) -> Array:
        """Whether float bits alone are guess enough; no number of such a block must be scaled."""
        low = (first.coarse + first.fine) * np.float32(math.log(2))  # exact enough for halves
        return (step.coarse >= np.float32(0.1)) & (low > -80.001) & (high <= 20)

    def _levels_below(
        self, x: Array, first: Octaves, step: Octaves, binades: Array, plain: Array
    ) -> Array:
        """By a guess at a logarithm: float bits, with a cubic where levels are near each other."""
        whole_step = step.coarse + step.fine
        a_step = np.where(whole_step > 0, ONE / whole_step, ZERO)
        start = first.coarse + first.fine
        bits = np.ascontiguousarray(x).view(np.uint32)
        exponents = bits.astype(np.float32) * (np.float32(2.0**-23) * a_step)
        m = ((bits & 0x7FFFFF) | 0x3F800000).view(np.float32)
        offset = np.float32(CUBIC[0] + MARGIN - 127.0)
        c0 = ((offset - binades) - start) * a_step - np.float32(0.5)
        c1, c2, c3 = (np.float32(c) * a_step for c in CUBIC[1:])
        near = exponents + (((c3 * m + c2) * m + c1) * m + c0)
        far = exponents + ((np.float32(BITS_MARGIN - 127.0) - start) * a_step - np.float32(0.5))
        guess = np.where(plain, far, near)
        last = np.where(plain, np.float32(self.top), np.float32(self.top - 1))
        return np.asarray(np.rint(np.minimum(np.maximum(guess, ZERO), last)))


@dataclass(frozen=True)
class LogBlocks(Blockwise):
    """Whose words are kept as pairs of halves."""

    def empty(self) -> Planes:
        return _with_words(super().empty(), "float16")

    def encode(
        self, old: Planes, decayed: Array, values: Array, keys: NDArray[np.uint64]
    ) -> Planes:
        return _with_words(super().encode(old, decayed, values, keys), "float16")

    def _decode_blocks(self, planes: Planes, decay: Array) -> Array:
        return super()._decode_blocks(_with_words(planes, self.format.word), decay)


def _with_words(planes: Planes, dtype: str) -> Planes:
    return {**planes, "_scale": planes["_scale"].view(dtype)}
