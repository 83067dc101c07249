"""Newton-Schulz orthogonalization in float64, as its definition has it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def orthogonalized(
    matrix: Tensor,
    steps: Sequence[tuple[float, float, float]],
    eps: float = 1e-7,
    *,
    by_gram: bool = False,
) -> Tensor:
    """`by_gram`: divided by the fourth root of the sum of its singular values' fourth powers."""
    x = matrix.double()
    size = float((x @ x.T).norm()) ** 0.5 if by_gram else float(x.norm())
    x = x / max(size, eps)
    tall = x.shape[0] > x.shape[1]
    if tall:
        x = x.T
    for a, b, c in steps:
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x
