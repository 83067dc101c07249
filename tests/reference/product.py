"""A product of matrices in float32, summed as the core does: over k in order, from zero."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float32]


def product(a: Matrix, b: Matrix) -> Matrix:
    out = np.zeros((a.shape[0], b.shape[1]), np.float32)
    for k in range(a.shape[1]):
        out = out + a[:, k : k + 1] * b[k : k + 1]
    return out


def mirrored(matrix: Matrix) -> Matrix:
    """What lies below the diagonal, above it too."""
    lower = np.tril(matrix)
    return lower + np.tril(matrix, -1).T
