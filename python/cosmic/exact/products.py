"""Matrix products whose bits depend on the numbers alone."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .. import _core
from ..threads import thread_count
from .nodes import Gradients, applied, first_order
from .sums import column_sums
from .tensors import check_shape, check_tensors, check_word, common_shape

__all__ = [
    "ACCUMULATE",
    "check_accumulate",
    "check_precision",
    "conv1d",
    "linear",
    "matmul",
    "product",
]

ACCUMULATE = ("fp64", "fp32", "exact")


def check_accumulate(op: str, accumulate: object) -> None:
    """See that an argument says how products are summed.

    Raises:
        ValueError: it does not.
    """
    check_word(op, "accumulate", accumulate, ACCUMULATE)


def product(a: Tensor, b: Tensor, accumulate: str, add: Tensor | None = None) -> Tensor:
    """``a @ b + add`` of batches of matrices, without autograd.

    Args:
        a: ``(batch, m, k)`` of any strides.
        b: ``(batch, k, n)`` of any strides.
        accumulate: as in ``linear``.
        add: ``(n,)``, added to each row, or None.
    """
    out = a.new_empty(a.shape[0], a.shape[1], b.shape[2])
    _core.exact_product(a, b, out, add, accumulate, thread_count())
    return out


def _product(a: Tensor, b: Tensor, accumulate: str, add: Tensor | None = None) -> Tensor:
    return product(a.unsqueeze(0), b.unsqueeze(0), accumulate, add).squeeze(0)


def linear(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, *, accumulate: str = "fp64"
) -> Tensor:
    """``y = x W^T + b``, as ``torch.nn.functional.linear``.

    Each element of ``y`` and of all gradients is a sum over one index in ascending order:
    of ``dx = dy W`` over outputs, of ``dW = dy^T x`` over rows of ``x`` in their order. A row's
    ``y`` and ``dx`` have the same bits in whatever batch it comes.

    Args:
        input: ``x``, ``(..., inputs)``, float32 or float64.
        weight: ``W``, ``(outputs, inputs)``.
        bias: ``b``, ``(outputs,)``, or None.
        accumulate: ``"fp64"``: products and sums in double, rounded once, where ``b`` has been
            added; ``"fp32"``: each product and each sum rounded to float32; ``"exact"``: the sum
            as if without any rounding, rounded once.

    Returns:
        ``(..., outputs)``.

    Raises:
        ValueError: for shapes that do not fit, for another word, and for ``"fp32"`` with float64.
        UnsupportedTensorError: for another device, layout or dtype.

    Source: ``torch.nn.functional.linear``.
    """
    check_tensors("linear", input=input, weight=weight, bias=bias)
    return _linear("linear", input, weight, bias, accumulate, transposed=True)


def conv1d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, *, accumulate: str = "fp64"
) -> Tensor:
    """``y = x W + b``, GPT-2's layer: a linear one whose weight is stored the other way round.

    Args:
        input: ``x``, ``(..., inputs)``, float32 or float64.
        weight: ``W``, ``(inputs, outputs)``.
        bias: ``b``, ``(outputs,)``, or None.
        accumulate: as in ``linear``.

    Returns:
        ``(..., outputs)``, with the bits that ``linear`` gives for ``W^T``.

    Raises:
        ValueError: for shapes that do not fit, for another word, and for ``"fp32"`` with float64.
        UnsupportedTensorError: for another device, layout or dtype.

    Source: ``transformers.pytorch_utils.Conv1D``.
    """
    check_tensors("conv1d", input=input, weight=weight, bias=bias)
    return _linear("conv1d", input, weight, bias, accumulate, transposed=False)


def _linear(
    op: str,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    accumulate: str,
    *,
    transposed: bool,
) -> Tensor:
    check_accumulate(op, accumulate)
    check_precision(op, input, accumulate)
    if weight.ndim != 2:
        raise ValueError(
            f"exact.{op}(): weight has shape {tuple(weight.shape)}; expected a matrix of 2 "
            "dimensions"
        )
    outputs, inputs = weight.shape if transposed else weight.shape[::-1]
    if input.ndim == 0 or input.shape[-1] != inputs:
        raise ValueError(
            f"exact.{op}(): input has shape {tuple(input.shape)}; expected {inputs} elements in "
            f"the last dimension, as weight has shape {tuple(weight.shape)}"
        )
    check_shape(op, "bias", bias, (outputs,))
    rows = input.reshape(math.prod(input.shape[:-1]), inputs)
    out = applied(_Linear, rows, weight, bias, accumulate, transposed)
    return out.view(*input.shape[:-1], outputs)


def check_precision(op: str, tensor: Tensor, accumulate: str) -> None:
    """See that products of a tensor are not to be summed in less than its own dtype.

    Raises:
        ValueError: they are.
    """
    if accumulate == "fp32" and tensor.dtype == torch.float64:
        raise ValueError(
            f"exact.{op}(): accumulate='fp32' would round float64 tensors; expected 'fp64'"
        )


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        accumulate: str,
        transposed: bool,
    ) -> Tensor:
        ctx.save_for_backward(rows, weight)
        ctx.accumulate, ctx.transposed = accumulate, transposed
        return _product(rows, weight.t() if transposed else weight, accumulate, bias)

    @staticmethod
    @first_order
    def backward(ctx: Any, grad: Tensor) -> Gradients:
        rows, weight = ctx.saved_tensors
        accumulate, transposed = ctx.accumulate, ctx.transposed
        of_rows = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            of_rows = _product(grad, weight if transposed else weight.t(), accumulate)
        if ctx.needs_input_grad[1]:
            first, second = (grad, rows) if transposed else (rows, grad)
            of_weight = _product(first.t(), second, accumulate)
        if ctx.needs_input_grad[2]:
            of_bias = column_sums(grad)
        return of_rows, of_weight, of_bias, None, None


def matmul(a: Tensor, b: Tensor, *, accumulate: str = "fp64") -> Tensor:
    """``a @ b`` of matrices or batches of matrices, as ``torch.matmul``.

    Where a factor is used by several products of the batch, its gradient is one sum over all of
    them, in their order.

    Args:
        a: ``(..., m, k)``, float32 or float64.
        b: ``(..., k, n)``; leading dimensions broadcast.
        accumulate: as in ``linear``.

    Returns:
        ``(..., m, n)``.

    Raises:
        ValueError: for shapes that do not fit, vectors among them, and as ``linear``.
        UnsupportedTensorError: for another device, layout or dtype.

    Source: ``torch.matmul``.
    """
    check_tensors("matmul", a=a, b=b)
    check_accumulate("matmul", accumulate)
    check_precision("matmul", a, accumulate)
    if a.ndim < 2 or b.ndim < 2 or a.shape[-1] != b.shape[-2]:
        raise ValueError(
            f"exact.matmul(): shapes {tuple(a.shape)} and {tuple(b.shape)}; expected (..., m, k) "
            "and (..., k, n): give vectors a dimension with unsqueeze()"
        )
    if b.ndim == 2:  # one product of all rows
        m, n = a.shape[-2], b.shape[-1]
        rows = a.reshape(math.prod(a.shape[:-1]), a.shape[-1])
        return applied(_Linear, rows, b, None, accumulate, False).view(*a.shape[:-2], m, n)
    batch = common_shape(a.shape[:-2], b.shape[:-2])
    a = a[(None,) * (len(batch) + 2 - a.ndim)]
    b = b[(None,) * (len(batch) + 2 - b.ndim)]
    return applied(_Matmul, a, b, batch, accumulate)


def _flat(matrices: Tensor, batch: torch.Size) -> Tensor:
    """As one batch; a copy only where strides do not say it."""
    sizes = matrices.shape[-2:]
    return matrices.expand(*batch, *sizes).reshape(math.prod(batch), *sizes)


class _Matmul(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, batch: torch.Size, accumulate: str) -> Tensor:
        ctx.save_for_backward(a, b)
        ctx.batch, ctx.accumulate = batch, accumulate
        out = product(_flat(a, batch), _flat(b, batch), accumulate)
        return out.view(*batch, a.shape[-2], b.shape[-1])

    @staticmethod
    @first_order
    def backward(ctx: Any, grad: Tensor) -> Gradients:
        a, b = ctx.saved_tensors
        of_a = of_b = None
        if ctx.needs_input_grad[0]:
            of_a = _summed(grad, b.mT, a.shape[:-2], ctx.batch, ctx.accumulate)
        if ctx.needs_input_grad[1]:
            of_b = _summed(a.mT, grad, b.shape[:-2], ctx.batch, ctx.accumulate)
        return of_a, of_b, None, None


def _summed(a: Tensor, b: Tensor, kept: torch.Size, batch: torch.Size, accumulate: str) -> Tensor:
    """``a @ b`` summed over the dimensions of a batch that are 1 in ``kept``: these become a part
    of the index that is summed over, its slow one."""
    dims = range(len(batch))
    over = [dim for dim in dims if kept[dim] == 1 and batch[dim] > 1]
    stay = [dim for dim in dims if dim not in over]
    (m, k), n = a.shape[-2:], b.shape[-1]
    a = a.expand(*batch, m, k).permute(*stay, len(batch), *over, len(batch) + 1)
    b = b.expand(*batch, k, n).permute(*stay, *over, len(batch), len(batch) + 1)
    count, length = 1, k
    for dim in stay:
        count *= batch[dim]
    for dim in over:
        length *= batch[dim]
    out = product(a.reshape(count, m, length), b.reshape(count, length, n), accumulate)
    return out.view(*kept, m, n)
