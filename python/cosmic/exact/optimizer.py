"""The optimizer of an exact training, and the clipping of its gradients."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from ..optimizer import Cosmic, Params
from .sums import total
from .tensors import check_tensors

__all__ = ["VerityAdam", "clip_grad_norm_"]


class VerityAdam(Cosmic):
    """``Cosmic(state_dtype="fp32")``, by a name: AdamW, with the same bits everywhere.

    Every state of Cosmic has the same bits everywhere; this one has 32 of them a number.

    Args:
        params: as in ``Cosmic``.
        lr: learning rate.
        **options: of ``Cosmic``; ``state_dtype`` may be ``"fp32"``.

    Raises:
        ValueError: for another ``state_dtype``.
        ValueError, TypeError: as ``Cosmic`` does.
    """

    def __init__(self, params: Params, lr: float | Tensor = 1e-3, **options: Any) -> None:
        state_dtype = options.pop("state_dtype", "fp32")
        if state_dtype not in ("fp32", torch.float32):
            raise ValueError(
                f"VerityAdam(): state_dtype is {state_dtype!r}; expected 'fp32': take "
                "cosmic.Cosmic for compressed state, whose bits are the same everywhere, too"
            )
        super().__init__(params, lr, state_dtype="fp32", **options)


def clip_grad_norm_(parameters: Tensor | Iterable[Tensor], max_norm: float) -> float:
    """Scale gradients so that their norm, of all of them together, is ``max_norm`` at most.

    Squares and sums are in double, in order; all gradients are multiplied by
    ``min(1, max_norm / (norm + 1e-6))``.

    Args:
        parameters: whose ``.grad`` are scaled in place; those without one are left out.
        max_norm: above 0.

    Returns:
        The norm before, infinite or NaN where a gradient is; then gradients are scaled by 0 or NaN,
        as torch does.

    Raises:
        ValueError: for another ``max_norm``.
        UnsupportedTensorError: for gradients of another device, layout or dtype.

    Source: ``torch.nn.utils.clip_grad_norm_``.
    """
    if not max_norm > 0:
        raise ValueError(f"exact.clip_grad_norm_(): max_norm is {max_norm}; expected above 0")
    given = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    gradients = [parameter.grad for parameter in given if parameter.grad is not None]
    squares = 0.0
    with torch.no_grad():
        for gradient in gradients:
            check_tensors("clip_grad_norm_", grad=gradient)
            wide = gradient.double()
            squares += float(total(wide * wide))
        norm = math.sqrt(squares)
        factor = max_norm / (norm + 1e-6)
        if not factor >= 1:
            for gradient in gradients:
                gradient.mul_(factor)
    return norm
