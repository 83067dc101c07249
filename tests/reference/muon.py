"""Muon (torch.optim.Muon) in float64, as its definition has it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
JORDAN = (3.4445, -4.7750, 2.0315)


def orthogonalized(
    matrix: Matrix,
    coefficients: Sequence[tuple[float, float, float]],
    eps: float,
    by_gram: bool = False,
) -> Matrix:
    """``by_gram``: over the root of the Gram matrix's norm, in the place of the matrix's."""
    if len(matrix) > len(matrix.T):
        return orthogonalized(matrix.T, coefficients, eps, by_gram).T
    norm = np.linalg.norm(matrix @ matrix.T) ** 0.5 if by_gram else np.linalg.norm(matrix)
    x = matrix / max(float(norm), eps)
    for a, b, c in coefficients:
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


def scale(rows: int, columns: int, adjust_lr_fn: str | None) -> float:
    if adjust_lr_fn == "match_rms_adamw":
        return 0.2 * math.sqrt(max(rows, columns))
    return math.sqrt(max(1.0, rows / columns))


@dataclass
class MuonReference:
    """One matrix and its momentum.

    Attributes:
        factor: on the scale.
        parts: sizes along the first dimension of matrices that are orthogonalized on their own.
    """

    param: Matrix
    weight_decay: float = 0.1
    momentum: float = 0.95
    nesterov: bool = True
    coefficients: Sequence[tuple[float, float, float]] = (JORDAN,) * 5
    eps: float = 1e-7
    adjust_lr_fn: str | None = None
    by_gram: bool = False
    factor: float = 1.0
    parts: Sequence[int] = ()
    average: Matrix = field(init=False)

    def __post_init__(self) -> None:
        self.average = np.zeros_like(self.param)

    def step(self, gradient: Matrix, lr: float) -> None:
        beta = self.momentum
        self.average = beta * self.average + (1 - beta) * gradient
        ahead = beta * self.average + (1 - beta) * gradient
        direction = ahead if self.nesterov else self.average
        borders = np.cumsum(self.parts)[:-1]
        update = np.concatenate([self._update(part) for part in np.split(direction, borders)])
        self.param = (1 - lr * self.weight_decay) * self.param - lr * update

    def _update(self, part: Matrix) -> Matrix:
        u = orthogonalized(part, self.coefficients, self.eps, self.by_gram)
        return self.factor * scale(len(part), len(part.T), self.adjust_lr_fn) * u
