"""The loss on held-out batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

import torch

from .batches import loss_of, model_inputs, predictions
from .feed import generators_of
from .randomness import keeping_random_state

__all__ = ["mean_loss", "perplexity"]

MAX_EXPONENT = 700.0  # exp of more overflows


def perplexity(loss: float) -> float:
    """exp(loss), and NaN of NaN; finite for any other loss."""
    return math.exp(min(loss, MAX_EXPONENT))


def mean_loss(
    model: torch.nn.Module,
    batches: Iterable[Any],
    *,
    max_batches: int | None = None,
    before_each: Callable[[], None] | None = None,
) -> float:
    """Mean loss a predicted token, without gradients and in evaluation mode.

    Random numbers are left as they were, those of the loader too: an evaluation changes nothing in
    what is trained after it, and each one sees the same batches.

    Args:
        model: whose mode is as before afterwards.
        batches: as ``Trainer`` takes them.
        max_batches: no more than so many; None: all.
        before_each: called before each batch.

    Raises:
        ValueError: there are no batches, or no labels in them.
        TypeError: as ``model_inputs`` and ``loss_of``.
    """
    total = weight = 0.0
    modes = {module: module.training for module in model.modules()}
    generators = [(one, one.get_state()) for one in generators_of(batches)]
    model.eval()
    try:
        with torch.no_grad(), keeping_random_state():
            for batch in islice(iter(batches), max_batches):
                if before_each is not None:
                    before_each()
                inputs = model_inputs(batch)
                if count := predictions(model, inputs):
                    total += count * loss_of(model(**inputs)).item()
                    weight += count
    finally:
        for module, mode in modes.items():
            module.training = mode
        for generator, state in generators:
            generator.set_state(state)
    if not weight:
        raise ValueError("the held-out batches have nothing to predict: no batches, or no labels")
    return total / weight
