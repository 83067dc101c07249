"""Products of matrices, summed as the core does."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float32]
Floats = npt.NDArray[Any]  # float32 or float64


def product(a: Matrix, b: Matrix) -> Matrix:
    """In float32, over k in order, from zero."""
    out = np.zeros((a.shape[0], b.shape[1]), np.float32)
    for k in range(a.shape[1]):
        out = out + a[:, k : k + 1] * b[k : k + 1]
    return out


def mirrored(matrix: Matrix) -> Matrix:
    """What lies below the diagonal, above it too."""
    lower = np.tril(matrix)
    return lower + np.tril(matrix, -1).T


def batched_product(a: Floats, b: Floats, add: Floats | None, accumulate: str) -> Floats:
    """Of [batch, m, k] and [batch, k, n]: over k in order from zero, in float32 or float64, then
    ``add``; what was summed in float64 is rounded to the operands' dtype at the end."""
    sums = np.float32 if accumulate == "fp32" else np.float64
    wide_a: Floats = a.astype(sums)
    wide_b: Floats = b.astype(sums)
    out: Floats = np.zeros((a.shape[0], a.shape[1], b.shape[2]), sums)
    for k in range(a.shape[2]):
        out = out + wide_a[:, :, k : k + 1] * wide_b[:, k : k + 1]
    if add is not None:
        out = out + add.astype(sums)
    rounded: Floats = out.astype(a.dtype)
    return rounded


def exact_dot(a: list[float], b: list[float], add: float = 0.0) -> Fraction:
    """The sum without any rounding."""
    return sum((Fraction(x) * Fraction(y) for x, y in zip(a, b, strict=True)), Fraction(add))


def nearest_float32(x: Fraction) -> np.float32:
    """To nearest, ties to even, by comparing with both neighbours of a first guess."""
    limit = Fraction(2) ** 128 - Fraction(2) ** 103  # half a step beyond the largest float
    if abs(x) >= limit:
        return np.float32(np.inf if x > 0 else -np.inf)
    guess = np.float32(float(x))
    if not np.isfinite(guess):
        guess = np.copysign(np.finfo(np.float32).max, guess)
    nearby = [np.nextafter(guess, np.float32(side)) for side in (-np.inf, np.inf)]
    candidates = [c for c in (guess, *nearby) if np.isfinite(c)]

    def distance(c: np.float32) -> tuple[Fraction, int]:
        return abs(Fraction(float(c)) - x), int(c.view(np.uint32)) & 1

    return min(candidates, key=distance)
