"""Backward, clipping and step of one optimizer, ordinarily or each parameter within backward."""

from __future__ import annotations

import time
from typing import Any

import torch

from cosmic.optimizer import Cosmic
from cosmic.step.backward import stepping_in_backward

__all__ = ["Stepper"]


class Stepper:
    """Takes steps, counts the seconds that are the optimizer's and the bytes that gradients take.

    Args:
        model: whose parameters are stepped.
        optimizer: of them.
        max_norm: gradients are clipped to it; None: not.
        release: step each parameter within backward and free its gradient; clip by the norm of the
            step before, as this step's is not known then.

    Raises:
        TypeError: the optimizer cannot step within backward.
        ValueError: as of ``Cosmic.step_in_backward``; or the model's parameters are stepped within
            backward already, by this optimizer or another.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        max_norm: float | None,
        release: bool,
    ) -> None:
        self._model, self._optimizer = model, optimizer
        self._max_norm, self._release = max_norm, release
        self._seconds = self._start = 0.0
        self._handles: list[Any] = []
        #: The most bytes of gradients that were held at a time.
        self.gradient_bytes = 0
        _refuse_hooks(model, optimizer)
        if release:
            if not isinstance(optimizer, Cosmic):
                raise TypeError(
                    f"release_gradients wants a Cosmic optimizer: {type(optimizer).__name__} "
                    "cannot step within backward"
                )
            # Hooks run in the order in which they were attached: the clock's are around ours.
            self._attach(self._begin_one)
            try:
                self._handles.append(optimizer.step_in_backward(model, max_norm=max_norm))
            except BaseException:
                self.remove()
                raise
            self._attach(self._end)

    def begin(self) -> None:
        """A step begins: without gradients."""
        self._seconds = 0.0
        self._optimizer.zero_grad(set_to_none=True)
        self._model.zero_grad(set_to_none=True)  # what trains but is not the optimizer's, too

    def backward(self, loss: torch.Tensor) -> None:
        """Backward of one batch of the step."""
        loss.backward()  # type: ignore[no-untyped-call]

    def step(self) -> float:
        """Clip and step; the optimizer's seconds since ``begin``."""
        if not self._release:
            held = sum(p.grad.nbytes for p in self._model.parameters() if p.grad is not None)
            self.gradient_bytes = max(self.gradient_bytes, held)
            if self._max_norm is not None:
                groups = self._optimizer.param_groups
                stepped = [param for group in groups for param in group["params"]]
                torch.nn.utils.clip_grad_norm_(stepped, self._max_norm)
        self._begin()
        self._optimizer.step()
        self._end()
        return self._seconds

    def remove(self) -> None:
        """Take all hooks from the model."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _attach(self, hook: Any) -> None:
        for parameter in self._model.parameters():
            if parameter.requires_grad:
                register: Any = parameter.register_post_accumulate_grad_hook
                self._handles.append(register(hook))

    def _begin_one(self, parameter: torch.Tensor) -> None:
        if parameter.grad is not None:
            self.gradient_bytes = max(self.gradient_bytes, parameter.grad.nbytes)
        self._begin()

    def _begin(self) -> None:
        self._start = time.perf_counter()

    def _end(self, _: object = None) -> None:
        self._seconds += time.perf_counter() - self._start


def _refuse_hooks(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    if isinstance(optimizer, Cosmic) and optimizer._backward is not None:
        raise ValueError(
            f"the {type(optimizer).__name__} steps within backward already; call remove_hooks(), "
            "or remove() of what step_in_backward() returned, and give Trainer "
            "release_gradients=True"
        )
    for name, parameter in model.named_parameters():
        other = stepping_in_backward(parameter)
        if other is not None:
            raise ValueError(
                f"parameter {name} is stepped within backward by another {type(other).__name__}; "
                "call cleanup() of the Trainer before, or remove() of what step_in_backward() "
                "returned"
            )
