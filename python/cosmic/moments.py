"""The moments of a parameter, as users get them."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

__all__ = ["Moments"]


class Moments(NamedTuple):
    """The moments of one parameter, in AdamW's meaning.

    Attributes:
        exp_avg: average of the gradient, of the parameter's shape; None where its rung keeps none.
        exp_avg_sq: average of its square, about zero; None where its rung keeps none.
        exp_avg_slow: the slow average; None without ``beta_slow``.
        step: the parameter's own count, by which AdamW corrects the bias of the first two.
    """

    exp_avg: Tensor | None
    exp_avg_sq: Tensor | None
    exp_avg_slow: Tensor | None
    step: int
