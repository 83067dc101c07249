"""Backward, clipping and step of one optimizer, ordinarily or each parameter within backward."""

import time
from typing import Any

import torch

from cosmic import Cosmic, NonfiniteGradientError
from cosmic.finetune.errors import UsageError

CLIP_NORM = 1.0


class Stepper:
    """Takes steps and counts the seconds that are the optimizer's.

    Args:
        release: step each parameter within backward and free its gradient; clip by the norm of the
            step before, as this step's is not known then.
    """

    def __init__(self, model: Any, optimizer: torch.optim.Optimizer, *, release: bool) -> None:
        self._model, self._optimizer, self._release = model, optimizer, release
        self._seconds = self._start = 0.0
        if release:
            if not isinstance(optimizer, Cosmic):
                raise TypeError(f"{type(optimizer).__name__} cannot step within backward")
            # Hooks run in the order in which they were attached: the clock's are around ours.
            self._attach(self._begin)
            optimizer.step_in_backward(model, max_norm=CLIP_NORM)
            self._attach(self._end)

    def step(self, loss: torch.Tensor) -> float:
        """Backward and step; the optimizer's seconds.

        Raises:
            UsageError: the optimizer refuses its options only now that it sees gradients.
        """
        self._seconds = 0.0
        self._optimizer.zero_grad(set_to_none=True)
        try:
            loss.backward()  # type: ignore[no-untyped-call]
            if not self._release:
                torch.nn.utils.clip_grad_norm_(self._model.parameters(), CLIP_NORM)
            self._begin()
            self._optimizer.step()
            self._end()
        except (ValueError, NonfiniteGradientError) as error:
            raise UsageError(str(error)) from error
        return self._seconds

    def _attach(self, hook: Any) -> None:
        for parameter in self._model.parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(hook)

    def _begin(self, _: object = None) -> None:
        self._start = time.perf_counter()

    def _end(self, _: object = None) -> None:
        self._seconds += time.perf_counter() - self._start


def warm_up(model: Any, ids: torch.Tensor, *, release: bool) -> None:
    """One forward and backward, so that memory counts neither its buffers nor, where they are kept
    from step to step, the gradients."""
    hooks = [
        parameter.register_post_accumulate_grad_hook(_free)
        for parameter in model.parameters()
        if release and parameter.requires_grad
    ]
    model(input_ids=ids, labels=ids).loss.backward()
    for hook in hooks:
        hook.remove()


def _free(parameter: torch.Tensor) -> None:
    parameter.grad = None
