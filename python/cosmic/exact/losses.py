"""Losses."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import _core
from ..threads import thread_count
from .nodes import Gradients, applied, first_order
from .sums import mean, sum
from .tensors import check_dtype, check_tensor, check_tensors, check_word

__all__ = ["cross_entropy", "mse_loss"]

REDUCTIONS = ("mean", "sum", "none")


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """``(1 - s) (lse(x) - x_target) + s (lse(x) - mean(x))`` of each row of logits, with
    ``lse(x) = log sum_j exp(x_j)``.

    Args:
        input: ``x``, logits, ``(rows, classes)`` or ``(classes,)``, float32 or float64.
        target: int64 classes, ``(rows,)`` or a scalar.
        weight: refused: classes have none.
        ignore_index: rows with this target have loss and gradient 0, and do not count.
        reduction: ``"mean"`` over the rows that count, ``"sum"``, or ``"none"``.
        label_smoothing: ``s``, from 0 to 1.

    Returns:
        A scalar, or ``(rows,)`` where nothing is reduced. The mean over no rows is NaN.

    Raises:
        ValueError: for class weights, targets of probabilities, other shapes and words.
        IndexError: for a target that is no class.
        UnsupportedTensorError: for another device, layout or dtype.

    Source: ``torch.nn.functional.cross_entropy``.
    """
    check_tensors("cross_entropy", input=input)
    check_word("cross_entropy", "reduction", reduction, REDUCTIONS)
    if weight is not None:
        raise ValueError(
            "exact.cross_entropy(): weight is given; expected None: classes have no weights here"
        )
    if not 0 <= label_smoothing <= 1:
        raise ValueError(
            f"exact.cross_entropy(): label_smoothing is {label_smoothing}; expected 0 to 1"
        )
    _check_targets(input, target)
    rows, targets = (input, target) if input.ndim == 2 else (input[None], target[None])
    losses = applied(
        _CrossEntropy, rows.contiguous(), targets.contiguous(), ignore_index, float(label_smoothing)
    )
    if reduction == "none":
        return losses.view(target.shape)
    if reduction == "sum":
        return sum(losses)
    return sum(losses) / (targets != ignore_index).sum()


def _check_targets(input: Tensor, target: Tensor) -> None:
    check_tensor("cross_entropy", "target", target)
    if input.ndim not in (1, 2) or target.shape != input.shape[:-1]:
        raise ValueError(
            f"exact.cross_entropy(): input has shape {tuple(input.shape)}, target "
            f"{tuple(target.shape)}; expected (rows, classes) and (rows,), of one class a row: "
            "flatten other dimensions with view()"
        )
    check_dtype("cross_entropy", "target", target, torch.int64)


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, targets: Tensor, ignore_index: int, smoothing: float
    ) -> Tensor:
        losses, lse = logits.new_empty(len(logits)), logits.new_empty(len(logits))
        _core.exact_cross_entropy(
            logits, targets, ignore_index, smoothing, losses, lse, thread_count()
        )
        ctx.save_for_backward(logits, targets, lse)
        ctx.ignore_index, ctx.smoothing = ignore_index, smoothing
        return losses

    @staticmethod
    @first_order
    def backward(ctx: Any, grad: Tensor) -> Gradients:
        logits, targets, lse = ctx.saved_tensors
        out = torch.empty_like(logits)
        _core.exact_cross_entropy_backward(
            logits, lse, targets, ctx.ignore_index, ctx.smoothing, grad.contiguous(), out,
            thread_count(),
        )  # fmt: skip
        return out, None, None, None


def mse_loss(input: Tensor, target: Tensor, *, reduction: str = "mean") -> Tensor:
    """``(x - y)^2``, its mean or its sum.

    Args:
        input: ``x``, float32 or float64.
        target: ``y``, of the same shape.
        reduction: ``"mean"`` over all elements, ``"sum"``, or ``"none"``.

    Returns:
        A scalar, or a tensor of the same shape where nothing is reduced.

    Raises:
        ValueError: for shapes that differ, and another word.
        UnsupportedTensorError: for another device, layout or dtype.

    Source: ``torch.nn.functional.mse_loss``.
    """
    check_tensors("mse_loss", input=input, target=target)
    check_word("mse_loss", "reduction", reduction, REDUCTIONS)
    if input.shape != target.shape:
        raise ValueError(
            f"exact.mse_loss(): input has shape {tuple(input.shape)}, target "
            f"{tuple(target.shape)}; expected one shape"
        )
    difference = input - target
    squares = difference * difference
    if reduction == "none":
        return squares
    return sum(squares) if reduction == "sum" else mean(squares)
