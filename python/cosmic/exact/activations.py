"""Functions of single elements, and softmax."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import _core
from ..threads import thread_count
from .nodes import Gradients, applied, first_order
from .tensors import check_tensors, check_word

__all__ = ["gelu", "mapped", "sigmoid", "silu", "softmax", "tanh"]


def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """``x Phi(x)`` with the normal distribution ``Phi(x) = (1 + erf(x / sqrt(2))) / 2``.

    Args:
        input: float32 or float64, of any shape.
        approximate: ``"none"``, or ``"tanh"`` for ``x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))
            / 2``.

    Returns:
        A tensor of the same shape.

    Raises:
        ValueError: for another word.
        UnsupportedTensorError: for another device, layout or dtype.

    Source: ``torch.nn.functional.gelu``; arXiv 1606.08415.
    """
    check_word("gelu", "approximate", approximate, ("none", "tanh"))
    return mapped("gelu" if approximate == "none" else "gelu_tanh", "gelu", input)


def silu(input: Tensor) -> Tensor:
    """``x / (1 + exp(-x))``.

    Args:
        input: float32 or float64, of any shape.

    Returns:
        A tensor of the same shape.

    Raises:
        UnsupportedTensorError: for another device, layout or dtype.

    Source: ``torch.nn.functional.silu``.
    """
    return mapped("silu", "silu", input)


def tanh(input: Tensor) -> Tensor:
    """The hyperbolic tangent.

    Args:
        input: float32 or float64, of any shape.

    Returns:
        A tensor of the same shape.

    Raises:
        UnsupportedTensorError: for another device, layout or dtype.

    Source: ``torch.tanh``.
    """
    return mapped("tanh", "tanh", input)


def sigmoid(input: Tensor) -> Tensor:
    """``1 / (1 + exp(-x))``.

    Args:
        input: float32 or float64, of any shape.

    Returns:
        A tensor of the same shape.

    Raises:
        UnsupportedTensorError: for another device, layout or dtype.

    Source: ``torch.sigmoid``.
    """
    return mapped("sigmoid", "sigmoid", input)


def mapped(core: str, op: str, input: Tensor) -> Tensor:
    """A function of each element, by its name in the core and as messages name it."""
    check_tensors(op, input=input)
    return applied(_Map, input.contiguous(), core)


class _Map(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, op: str) -> Tensor:
        ctx.save_for_backward(x)
        ctx.op = op
        out = torch.empty_like(x)
        _core.exact_map(op, x, out, thread_count())
        return out

    @staticmethod
    @first_order
    def backward(ctx: Any, grad: Tensor) -> Gradients:
        (x,) = ctx.saved_tensors
        out = torch.empty_like(x)
        _core.exact_map_backward(ctx.op, x, grad.contiguous(), out, thread_count())
        return out, None


def softmax(input: Tensor, dim: int = -1) -> Tensor:
    """``exp(x_i) / sum_j exp(x_j)`` along one dimension.

    A row without anything to choose from, all of whose elements are ``-inf``, is all zeros, where
    torch's has NaN. A NaN makes its whole row NaN.

    Args:
        input: float32 or float64.
        dim: that is summed over.

    Returns:
        A tensor of the same shape.

    Raises:
        IndexError: there is no such dimension.
        UnsupportedTensorError: for another device, layout or dtype.

    Source: ``torch.nn.functional.softmax``.
    """
    check_tensors("softmax", input=input)
    if input.ndim == 0:
        raise IndexError("exact.softmax(): input has no dimension; expected one at least")
    last = input.movedim(dim, -1)
    return applied(_Softmax, last.contiguous()).movedim(-1, dim)


class _Softmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        out = torch.empty_like(x)
        softmax_rows(x, out, 1.0, causal=False)
        ctx.save_for_backward(out)
        return out

    @staticmethod
    @first_order
    def backward(ctx: Any, grad: Tensor) -> Gradients:
        (y,) = ctx.saved_tensors
        out = torch.empty_like(y)
        softmax_rows_backward(y, grad.contiguous(), out, 1.0)
        return (out,)


def _matrices(x: Tensor) -> Tensor:
    """As ``(matrices, rows, columns)``."""
    if x.ndim >= 3:
        return x.view(x.numel() // max(1, x.shape[-2] * x.shape[-1]), *x.shape[-2:])
    return x.view(1, -1, x.shape[-1]) if x.numel() else x.view(1, 0, x.shape[-1])


def softmax_rows(x: Tensor, out: Tensor, scale: float, *, causal: bool) -> None:
    """The softmax of ``scale x`` along rows of contiguous tensors, which may be the same one.

    Args:
        x: ``(..., rows, columns)``.
        out: of the same shape.
        scale: a factor.
        causal: row ``r`` sees columns up to ``r + columns - rows``; the others are 0.
    """
    _core.exact_softmax(_matrices(x), _matrices(out), scale, causal, thread_count())


def softmax_rows_backward(y: Tensor, grad: Tensor, out: Tensor, scale: float) -> None:
    """The gradient by ``x``: ``scale y (grad - sum(y grad))`` along rows of contiguous tensors."""
    matrices = _matrices(y), _matrices(grad), _matrices(out)
    _core.exact_softmax_backward(*matrices, scale, thread_count())
