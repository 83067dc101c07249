"""transformers' loss of next tokens, for heads that have made no logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .cross_entropy import summed_cross_entropy
from .modules import BlockedLinear
from .stand_in import HiddenLogits

__all__ = ["NextTokenLoss"]


class NextTokenLoss:
    """In place of ``ForCausalLMLoss``, with its arguments; real logits are left to that one.

    Args:
        head: whose logits are not made.
        otherwise: the model's own function.

    Attributes:
        calls: how many losses were made without logits.
    """

    def __init__(self, head: BlockedLinear, otherwise: Callable[..., Tensor]) -> None:
        self._head = head
        self._otherwise = otherwise
        self.calls = 0

    def __call__(
        self,
        logits: Any,
        labels: Tensor | None,
        vocab_size: int,
        num_items_in_batch: Tensor | int | None = None,
        ignore_index: int = -100,
        shift_labels: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """The mean cross-entropy, or the sum over ``num_items_in_batch``, a scalar of float32.

        Args:
            logits: of the head, ``(..., tokens, vocabulary)``.
            labels: ``(..., tokens)`` of an integer dtype; the token at each place, which the place
                before it is to predict.
            vocab_size: the head's rows.
            num_items_in_batch: what to divide by in place of the number of targets.
            ignore_index: labels that are no target.
            shift_labels: targets, shifted already, in place of ``labels``.
            kwargs: what the model hands on and no causal loss reads.

        Raises:
            ValueError: for another ``vocab_size``, or another number of labels than tokens.
            TypeError: for labels of a floating dtype.
            IndexError: for a label that is no row of the head.
        """
        if not isinstance(logits, HiddenLogits):
            return self._otherwise(
                logits, labels, vocab_size, num_items_in_batch, ignore_index, shift_labels, **kwargs
            )
        self.calls += 1
        targets = shift_labels
        if targets is None:
            if labels is None:
                raise ValueError("labels and shift_labels are None; expected one of them")
            targets = F.pad(labels, (0, 1), value=ignore_index)[..., 1:]
        hidden = logits.hidden.reshape(-1, logits.hidden.shape[-1])
        targets = targets.reshape(-1).to(hidden.device)
        _check(targets, hidden, vocab_size, logits.shape[-1])
        places = (targets != ignore_index).nonzero()[:, 0]
        if places.numel() < targets.numel():
            hidden, targets = hidden.index_select(0, places), targets.index_select(0, places)
        _check_range(targets, vocab_size)
        total = summed_cross_entropy(
            hidden, targets.long(), self._head.blocks, self._head.bias, logits.steps
        )
        if num_items_in_batch is None:
            return total / targets.numel() if targets.numel() else total / total.new_zeros(())
        if isinstance(num_items_in_batch, Tensor):
            num_items_in_batch = num_items_in_batch.to(total.device)
        return total / num_items_in_batch


def _check(targets: Tensor, hidden: Tensor, vocab_size: int, rows: int) -> None:
    if vocab_size != rows:
        raise ValueError(f"vocab_size is {vocab_size}, but the head has {rows} rows")
    if targets.numel() != hidden.shape[0]:
        raise ValueError(
            f"there are {targets.numel()} labels for {hidden.shape[0]} tokens; expected one each"
        )
    if targets.is_floating_point() or targets.dtype == torch.bool:
        raise TypeError(f"labels are {targets.dtype}; expected int64")


def _check_range(targets: Tensor, rows: int) -> None:
    if not targets.numel():
        return
    low, high = (int(bound) for bound in targets.aminmax())
    if low < 0 or high >= rows:
        raise IndexError(
            f"label {low if low < 0 else high} is out of bounds: the head has {rows} rows"
        )
