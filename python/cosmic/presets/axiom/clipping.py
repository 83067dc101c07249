"""Clipping by the norm of the whole gradient, exactly as ``torch.nn.utils.clip_grad_norm_``."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

__all__ = ["clip_gradients"]


@torch.no_grad()
def clip_gradients(params: Iterable[Tensor], max_norm: float) -> float | None:
    """Scale all gradients down so that their norm together is at most ``max_norm``.

    A norm that is not finite scales nothing: what is wrong with a gradient is told by the step,
    which finds the tensor. Where the sum of squares alone overflows, it is taken in float64.

    Returns:
        The norm that the gradients had; None where they have none that is finite, or where one is
        sparse, which the step refuses.
    """
    held = [p for p in params if p.grad is not None]
    gradients = [p.grad for p in held if p.grad is not None]
    if not gradients or any(g.layout != torch.strided for g in gradients):
        return None
    norm = torch.nn.utils.get_total_norm(gradients)
    if not math.isfinite(float(norm)):
        norm = torch.stack([_wide_norm(g) for g in gradients]).square().sum().sqrt()
        if not math.isfinite(float(norm)):
            return None
    torch.nn.utils.clip_grads_with_norm_(held, max_norm, norm)
    return float(norm)


def _wide_norm(gradient: Tensor) -> Tensor:
    wide = torch.complex128 if gradient.is_complex() else torch.float64
    norm: Tensor = torch.linalg.vector_norm(gradient, dtype=wide)
    return norm
