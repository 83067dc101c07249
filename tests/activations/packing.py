"""What the tests of `compress_activations` share: tensors and a model to pack."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from helpers import normal

__all__ = ["BLOCK", "Watching", "activation", "gradients", "network"]

#: Bytes a block of 128 elements takes: codes and a scale of 16 bits.
BLOCK = {"q8": 130, "u4": 66, "u2": 34, "u1": 18}


def activation(*shape: int, seed: int = 0) -> Tensor:
    """With a history, so that it is not taken for a parameter."""
    return normal(seed, *shape).requires_grad_() * 1.0


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(64, 128), nn.GELU(), nn.LayerNorm(128), nn.Linear(128, 64), nn.Tanh()
    )


def gradients(model: nn.Module, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(model.parameters())))


class Watching(torch.autograd.Function):
    """The identity; shows what it has saved."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, seen: list[Tensor]) -> Tensor:
        ctx.save_for_backward(x)
        ctx.seen = seen
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        ctx.seen.append(ctx.saved_tensors[0])
        return gradient, None
