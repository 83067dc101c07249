"""What a batch is to a model, and what the model makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["IGNORED", "loss_of", "model_inputs", "predictions", "token_count"]

#: Label of a position that no loss is taken at, as torch and transformers have it.
IGNORED = -100

# Losses of transformers that compare each position's output with its own label, not the next one's.
_UNSHIFTED = ("MaskedLM", "Classification", "QuestionAnswering")


def model_inputs(batch: Any) -> dict[str, Any]:
    """Keyword arguments of the model.

    Args:
        batch: a mapping with ``labels``; a pair of ids and labels; or a tensor of token ids, shape
            (sequences, tokens), which are their own labels.

    Raises:
        TypeError: it is nothing of that.
        ValueError: it has no labels.
    """
    if isinstance(batch, Mapping):
        if batch.get("labels") is None:
            raise ValueError(
                f"a batch has no labels (it has {', '.join(map(str, batch)) or 'nothing'}); a "
                "causal language model takes labels=input_ids"
            )
        for name in ("input_ids", "labels"):
            if not isinstance(batch.get(name, batch["labels"]), Tensor):
                raise TypeError(
                    f"{name} of a batch is {type(batch[name]).__name__}; expected a tensor, as the "
                    "collators of transformers and dataset.with_format('torch') make it"
                )
        return dict(batch)
    if isinstance(batch, Tensor):
        if batch.is_floating_point() or batch.is_complex() or batch.dim() != 2:
            raise TypeError(
                f"a batch is a tensor of {batch.dtype} and shape {tuple(batch.shape)}; expected "
                "token ids (sequences, tokens), a dict with labels, or a pair (ids, labels)"
            )
        return {"input_ids": batch, "labels": batch}
    if isinstance(batch, (tuple, list)):
        if len(batch) == 2 and all(isinstance(one, Tensor) for one in batch):
            return {"input_ids": batch[0], "labels": batch[1]}
        if len(batch) == 1:
            raise ValueError("a batch is a sequence of one: it has no labels")
    raise TypeError(
        f"a batch is {type(batch).__name__}; expected a dict with labels, a pair of tensors "
        "(ids, labels), or a tensor of token ids"
    )


def token_count(inputs: Mapping[str, Any]) -> int:
    """Tokens that a batch shows the model; where it has no ids, of labels."""
    shown = inputs.get("input_ids")
    return int((shown if isinstance(shown, Tensor) else inputs["labels"]).numel())


def predictions(model: Any, inputs: Mapping[str, Any]) -> int:
    """Labels that the loss is a mean over: of a causal language model all but each first one."""
    labels: Tensor = inputs["labels"]
    if labels.dim() > 1 and _shifts(model):
        labels = labels[..., 1:]
    return int((labels != IGNORED).sum())


def _shifts(model: Any) -> bool:
    """Whether the loss compares a position's output with the next one's label."""
    kind = getattr(model, "loss_type", None) or type(model).__name__
    encodes = getattr(getattr(model, "config", None), "is_encoder_decoder", False)
    return not encodes and not any(word in kind for word in _UNSHIFTED)


def loss_of(output: Any) -> Tensor:
    """The loss of a model's output: its ``loss``, an attribute or an entry.

    Raises:
        TypeError: it has none.
        ValueError: the loss is more than one number.
    """
    loss = output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", None)
    if not isinstance(loss, torch.Tensor):
        raise TypeError(
            f"the model returned {type(output).__name__} without a loss; expected an output with "
            ".loss, as models of transformers have when they are given labels"
        )
    if loss.numel() != 1:
        raise ValueError(f"the model's loss has shape {tuple(loss.shape)}; expected one number")
    return loss
