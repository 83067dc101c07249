"""Autograd nodes of exact operations: differentiable once."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor

__all__ = ["Gradients", "applied", "first_order"]

#: What a node's backward gives: a gradient an input, None where there is none.
Gradients: TypeAlias = tuple[Tensor | None, ...]


def first_order(backward: Callable[..., Gradients]) -> Callable[..., Gradients]:
    """Let a node's backward refuse ``create_graph=True``, under which its gradients would pass for
    constants."""

    @functools.wraps(backward)
    def checked(ctx: Any, *grads: Tensor) -> Gradients:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "backward(create_graph=True) through cosmic.exact, whose gradients have no "
                "derivative; leave it out, or take torch's own operations for second derivatives"
            )
        return backward(ctx, *grads)

    return checked


def applied(node: Any, *inputs: Any) -> Tensor:
    """The output of a node of one output."""
    out: Tensor = node.apply(*inputs)
    return out
