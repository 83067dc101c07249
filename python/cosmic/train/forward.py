"""The forward pass of a step, and what autograd keeps of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from cosmic.activations import compress_activations, saved_bytes
from cosmic.activations.codecs import CodecChoice

from .batches import loss_of

__all__ = ["Forward"]


class Forward:
    """Runs the model on batches and knows how many bytes autograd keeps for backward.

    Args:
        model: called with a batch's entries.
        codec: activations are compressed by it, as ``compress_activations`` does; None: kept.
        seed: of the compression's random bits, which are a function of it and the pass's number.

    Raises:
        TypeError, ValueError: the codec is unknown.
    """

    def __init__(self, model: torch.nn.Module, codec: Any, seed: int) -> None:
        self._model, self._codec, self._seed = model, codec, seed
        #: The most that autograd kept of a pass; without compression the first pass tells.
        self.activation_bytes: int | None = None
        if codec is not None:
            CodecChoice.named(codec)  # refuses what it does not know

    def __call__(self, inputs: Mapping[str, Any], number: int) -> Tensor:
        """The loss of one batch.

        Args:
            inputs: keyword arguments of the model.
            number: of the pass, counted over the whole run.

        Raises:
            TypeError: the model's output has no loss.
            ValueError: the loss is not one number, or no parameter takes part in it.
        """
        if self._codec is not None:
            with compress_activations(self._codec, seed=self._seed_of(number)) as meter:
                loss = self._loss(inputs)
            self._note(meter.packed_bytes)
            return loss
        if self.activation_bytes is not None:
            return self._loss(inputs)
        losses: list[Tensor] = []
        self._note(saved_bytes(lambda: losses.append(self._loss(inputs))))
        return losses[0]

    def _loss(self, inputs: Mapping[str, Any]) -> Tensor:
        loss = loss_of(self._model(**inputs))
        if not loss.requires_grad:
            raise ValueError(
                "the model's loss depends on no parameter that requires grad: there is nothing to "
                "go backward to"
            )
        return loss

    def _note(self, kept: int) -> None:
        self.activation_bytes = max(kept, self.activation_bytes or 0)

    def _seed_of(self, number: int) -> int:
        """Different for each pass, and the same after a restart."""
        return (self._seed * 0x9E3779B1 + number) % 2**31
