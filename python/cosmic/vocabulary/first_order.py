"""Autograd nodes that can be differentiated once."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor

__all__ = ["first_order"]

_Backward: TypeAlias = Callable[..., tuple[Tensor | None, ...]]


def first_order(backward: _Backward) -> _Backward:
    """Let a node's backward refuse ``create_graph=True``, under which its gradients would pass for
    constants."""

    @functools.wraps(backward)
    def checked(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "backward(create_graph=True) cannot hold within chunk_vocabulary(), whose "
                "gradients have no derivative; leave it for second derivatives"
            )
        return backward(ctx, *grads)

    return checked
