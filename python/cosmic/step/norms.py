"""The norm of one gradient."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["norm_of"]


def norm_of(gradient: Tensor) -> float:
    """The norm in the gradient's own dtype, as torch's clip_grad_norm_ takes it; in double where
    that overflows."""
    norm = float(torch.linalg.vector_norm(gradient))
    if math.isinf(norm):
        wide = torch.complex128 if gradient.is_complex() else torch.float64
        norm = float(torch.linalg.vector_norm(gradient, dtype=wide))
    return norm
