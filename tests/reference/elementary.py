"""Exponentials and logarithms from IEEE operations in a written order, as the core has them.

All in float32; polynomials are summed in pairs.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .codec import Array

#: (2^f - 1) / f for |f| <= 1/2, to a relative 7e-9.
EXP2 = np.array(
    [0.693147182, 0.240226507, 0.0555035696, 0.00961803086, 0.00133908669, 0.000154697351],
    np.float32,
)
#: (ln(1 + f) - f + f^2 / 2) / f^3 between the roots of 1/2 and 2, less 1.
LOG = np.array(
    [
        0.333333164, -0.250008106, 0.200022861, -0.166245535,
        0.141811907, -0.131287545, 0.128816515, -0.0785961896,
    ],
    np.float32,
)  # fmt: skip
LN_2, LN_2_REST = np.float32(0.693359375), np.float32(-2.12194440e-4)
ROOT_OF_HALF = 0x3F3504F3  # its float bits
HALF, ONE, GRID = np.float32(0.5), np.float32(1), np.float32(1.5 * 2**11)


class Octaves(NamedTuple):
    """A number as a multiple of 2^-12 and the rest."""

    coarse: Array
    fine: Array

    @classmethod
    def of(cls, x: Array, factor: np.float32, rest: np.float32) -> Octaves:
        """``x`` times the sum of two factors, the first of 12 bits."""
        product = x * factor
        coarse = (product + GRID) - GRID
        return cls(coarse, (product - coarse) + x * rest)


def split_factor(exact: float, unit: float) -> tuple[np.float32, np.float32]:
    """A multiple of ``unit``, and the rest."""
    first = np.float32(int(exact / unit) * unit)
    return first, np.float32(exact - float(first))


def _exp2_less_1_over(f: Array) -> Array:
    pairs = EXP2[1::2] * f[..., None] + EXP2[::2]
    f2 = f * f
    return np.asarray((pairs[..., 2] * f2 + pairs[..., 1]) * f2 + pairs[..., 0])


def exp2_less_1(x: Octaves) -> Array:
    """2^x - 1 for x >= 0, to a few units of the last place however small it is."""
    n = np.rint(x.coarse)
    f = (x.coarse - n) + x.fine
    power = _power_of_2(n.astype(np.int64))
    return np.asarray(power * (f * _exp2_less_1_over(f)) + (power - ONE))


def exp2_of_progression(first: Octaves, step: Octaves, k: Array) -> Array:
    """2^(first + k step); the coarse parts add up without an error."""
    k = k.astype(np.float32)
    coarse = k * step.coarse + first.coarse
    fine = k * step.fine + first.fine
    n = np.rint(coarse)
    f = (coarse - n) + fine
    mantissa = f * _exp2_less_1_over(f) + ONE
    whole = n.astype(np.int64)
    half = (whole + 254) // 2 - 127
    return np.asarray(mantissa * _power_of_2(half) * _power_of_2(whole - half))


def _power_of_2(n: Array) -> Array:
    return np.ldexp(ONE, n).astype(np.float32)


def natural_log(x: Array) -> Array:
    """ln of positive normal numbers."""
    bits = x.view(np.uint32).astype(np.int64)
    octaves = (bits - ROOT_OF_HALF) >> 23  # numbers between the roots of 1/2 and of 2 have 0
    m = (bits - (octaves << 23)).astype(np.uint32).view(np.float32)
    n, f = octaves.astype(np.float32), m - ONE
    f2 = f * f
    pairs = LOG[1::2] * f[..., None] + LOG[::2]
    low, high = (pairs[..., k] + pairs[..., k + 1] * f2 for k in (0, 2))
    rest = (f2 * f) * (low + high * (f2 * f2))
    return np.asarray(((rest + n * LN_2_REST) - HALF * f2 + f) + n * LN_2)
