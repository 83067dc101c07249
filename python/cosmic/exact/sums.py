"""Sums in a fixed order, and what is summed in backward: tensors that were broadcast."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import _core
from ..threads import thread_count
from .nodes import Gradients, applied, first_order
from .tensors import check_tensors

__all__ = ["broadcast_to", "column_sums", "mean", "sum", "summed_to", "total"]


def column_sums(rows: Tensor) -> Tensor:
    """The sum of a matrix's rows, ``(columns,)``, without autograd."""
    out = rows.new_empty(rows.shape[1])
    _core.exact_column_sums(rows.contiguous(), out, thread_count())
    return out


def total(x: Tensor) -> Tensor:
    """The sum of all elements, a scalar, without autograd."""
    out = x.new_empty(())
    _core.exact_sum(x.contiguous(), out, thread_count())
    return out


def sum(input: Tensor) -> Tensor:
    """The sum of all elements, in double, in an order that only their number decides.

    Args:
        input: float32 or float64, of any shape.

    Returns:
        A scalar of the same dtype.

    Raises:
        UnsupportedTensorError: for another device, layout or dtype.

    Source: ``torch.sum``.
    """
    check_tensors("sum", input=input)
    return applied(_Sum, input)


def mean(input: Tensor) -> Tensor:
    """``sum(x) / n`` of all elements.

    Args:
        input: float32 or float64, of any shape.

    Returns:
        A scalar of the same dtype; NaN for a tensor without elements.

    Raises:
        UnsupportedTensorError: for another device, layout or dtype.

    Source: ``torch.mean``.
    """
    check_tensors("mean", input=input)
    return applied(_Sum, input) / input.numel()


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.shape = x.shape
        return total(x)

    @staticmethod
    @first_order
    def backward(ctx: Any, grad: Tensor) -> Gradients:
        return (grad.expand(ctx.shape),)


def broadcast_to(input: Tensor, shape: Sequence[int]) -> Tensor:
    """A tensor repeated to a shape, without a copy, as ``torch.broadcast_to``.

    Its gradient is the sum over what was repeated, in double and in order. Addition and
    multiplication of torch broadcast by themselves, but sum in an order of torch's: repeat a
    parameter by this before.

    Args:
        input: float32 or float64.
        shape: to which it broadcasts.

    Returns:
        A view.

    Raises:
        RuntimeError: it does not broadcast to this shape.
        UnsupportedTensorError: for another device, layout or dtype.

    Source: ``torch.broadcast_to``.
    """
    check_tensors("broadcast_to", input=input)
    return applied(_Broadcast, input, torch.Size(shape))


class _Broadcast(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, shape: torch.Size) -> Tensor:
        ctx.shape = x.shape
        return x.expand(shape)

    @staticmethod
    @first_order
    def backward(ctx: Any, grad: Tensor) -> Gradients:
        return summed_to(grad, ctx.shape), None


def summed_to(grad: Tensor, shape: torch.Size) -> Tensor:
    """A gradient summed over what a tensor of ``shape`` was repeated along."""
    new = grad.ndim - len(shape)
    repeated = [
        dim for dim in range(grad.ndim) if dim < new or (shape[dim - new] == 1 < grad.shape[dim])
    ]
    if not repeated:
        return grad.reshape(shape)
    kept = [dim for dim in range(grad.ndim) if dim not in repeated]
    rows, columns = (math.prod(grad.shape[dim] for dim in dims) for dims in (repeated, kept))
    return column_sums(grad.permute(*repeated, *kept).reshape(rows, columns)).view(shape)
