"""Rows of a table, looked up."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import _core
from ..threads import thread_count
from .nodes import Gradients, applied, first_order
from .tensors import check_dtype, check_tensors

__all__ = ["embedding"]


def embedding(input: Tensor, weight: Tensor, padding_idx: int | None = None) -> Tensor:
    """``W[i]``. A row's gradient is the sum over its uses, in double, in the order of ``i``.

    Args:
        input: ``i``, int64 or int32, of any shape.
        weight: ``W``, ``(rows, width)``, float32 or float64.
        padding_idx: a row that has gradient 0; negative ones count from the end.

    Returns:
        ``(*input.shape, width)``.

    Raises:
        ValueError: for a weight that is no matrix, and a padding row that it does not have.
        IndexError: for a row that the weight does not have.
        UnsupportedTensorError: for another device, layout or dtype.

    Source: ``torch.nn.functional.embedding``.
    """
    check_tensors("embedding", weight=weight)
    if weight.ndim != 2:
        raise ValueError(
            f"exact.embedding(): weight has shape {tuple(weight.shape)}; expected a matrix"
        )
    check_dtype("embedding", "input", input, torch.int64, torch.int32)
    rows = len(weight)
    padding = -1
    if padding_idx is not None:
        if not -rows <= padding_idx < rows:
            raise ValueError(
                f"exact.embedding(): padding_idx is {padding_idx}; expected a row of {rows}"
            )
        padding = padding_idx % rows
    return applied(_Embedding, input.long(), weight, padding)


class _Embedding(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, indices: Tensor, weight: Tensor, padding: int) -> Tensor:
        flat = indices.reshape(-1)
        ctx.save_for_backward(flat)
        ctx.shape, ctx.padding = weight.shape, padding
        return weight.index_select(0, flat).view(*indices.shape, weight.shape[1])

    @staticmethod
    @first_order
    def backward(ctx: Any, grad: Tensor) -> Gradients:
        (flat,) = ctx.saved_tensors
        out = grad.new_empty(ctx.shape)
        rows = grad.reshape(len(flat), ctx.shape[1]).contiguous()
        _core.exact_embedding_backward(flat, rows, ctx.padding, out, thread_count())
        return None, out, None
