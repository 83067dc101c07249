"""Normalization of rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import _core
from ..threads import thread_count
from .nodes import Gradients, applied, first_order
from .tensors import check_shape, check_tensors

__all__ = ["layer_norm", "rms_norm"]


def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """``(x - mean) / sqrt(variance + eps) w + b`` over the last dimensions.

    Args:
        input: ``x``, ``(..., *normalized_shape)``, float32 or float64.
        normalized_shape: the dimensions of a row.
        weight: ``w``, ``normalized_shape``, or None: ones.
        bias: ``b``, ``normalized_shape``, or None: zeros.
        eps: added to the variance.

    Returns:
        A tensor of the same shape.

    Raises:
        ValueError: for shapes that do not fit.
        UnsupportedTensorError: for another device, layout or dtype.

    Source: ``torch.nn.functional.layer_norm``; arXiv 1607.06450.
    """
    check_tensors("layer_norm", input=input, weight=weight, bias=bias)
    rows = _rows("layer_norm", input, normalized_shape)
    check_shape("layer_norm", "weight", weight, normalized_shape)
    check_shape("layer_norm", "bias", bias, normalized_shape)
    out = applied(_LayerNorm, rows, _flat(weight), _flat(bias), float(eps))
    return out.view(input.shape)


def rms_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Tensor:
    """``x / sqrt(mean(x^2) + eps) w`` over the last dimensions.

    Args:
        input: ``x``, ``(..., *normalized_shape)``, float32 or float64.
        normalized_shape: the dimensions of a row.
        weight: ``w``, ``normalized_shape``, or None: ones.
        eps: added to the mean square; None: ``torch.finfo(x.dtype).eps``.

    Returns:
        A tensor of the same shape.

    Raises:
        ValueError: for shapes that do not fit.
        UnsupportedTensorError: for another device, layout or dtype.

    Source: ``torch.nn.functional.rms_norm``; arXiv 1910.07467.
    """
    check_tensors("rms_norm", input=input, weight=weight)
    rows = _rows("rms_norm", input, normalized_shape)
    check_shape("rms_norm", "weight", weight, normalized_shape)
    least = torch.finfo(input.dtype).eps if eps is None else float(eps)
    return applied(_RMSNorm, rows, _flat(weight), least).view(input.shape)


def _rows(op: str, input: Tensor, normalized_shape: Sequence[int]) -> Tensor:
    """The input as a matrix of what is normalized."""
    shape = tuple(normalized_shape)
    if not shape or tuple(input.shape[-len(shape) :]) != shape or 0 in shape:
        raise ValueError(
            f"exact.{op}(): input has shape {tuple(input.shape)}; expected its last dimensions to "
            f"be normalized_shape, {shape}, of one element at least"
        )
    columns = 1
    for size in shape:
        columns *= size
    return input.reshape(-1, columns).contiguous()


def _flat(parameter: Tensor | None) -> Tensor | None:
    return None if parameter is None else parameter.reshape(-1).contiguous()


class _LayerNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> Tensor:
        out, mean, rstd = (
            torch.empty_like(rows),
            rows.new_empty(len(rows)),
            rows.new_empty(len(rows)),
        )
        _core.exact_layer_norm(rows, weight, bias, eps, out, mean, rstd, thread_count())
        ctx.save_for_backward(rows, weight, mean, rstd)
        return out

    @staticmethod
    @first_order
    def backward(ctx: Any, grad: Tensor) -> Gradients:
        rows, weight, mean, rstd = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        of_rows = torch.empty_like(rows) if wanted[0] else None
        of_weight = torch.empty_like(weight) if wanted[1] else None
        of_bias = rows.new_empty(rows.shape[1]) if wanted[2] else None
        _core.exact_layer_norm_backward(
            rows, weight, mean, rstd, grad.contiguous(), of_rows, of_weight, of_bias, thread_count()
        )
        return of_rows, of_weight, of_bias, None


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor | None, eps: float) -> Tensor:
        out, rstd = torch.empty_like(rows), rows.new_empty(len(rows))
        _core.exact_rms_norm(rows, weight, eps, out, rstd, thread_count())
        ctx.save_for_backward(rows, weight, rstd)
        return out

    @staticmethod
    @first_order
    def backward(ctx: Any, grad: Tensor) -> Gradients:
        rows, weight, rstd = ctx.saved_tensors
        of_rows = torch.empty_like(rows) if ctx.needs_input_grad[0] else None
        of_weight = torch.empty_like(weight) if ctx.needs_input_grad[1] else None
        _core.exact_rms_norm_backward(
            rows, weight, rstd, grad.contiguous(), of_rows, of_weight, thread_count()
        )
        return of_rows, of_weight, None
