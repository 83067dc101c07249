"""The learning rate over a run: linear warm-up, then a cosine down to a tenth."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

__all__ = ["CosineSchedule", "lr_factor", "warmup_steps"]

FINAL_LR = 0.1  # of the highest


def lr_factor(step: int, steps: int, warmup: int) -> float:
    """Share of the highest learning rate at a step: linear warm-up, then cosine to a tenth."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    done = min(1.0, (step - warmup) / max(1, steps - warmup))
    return FINAL_LR + (1 - FINAL_LR) * (1 + math.cos(math.pi * done)) / 2


def warmup_steps(steps: int) -> int:
    """A tenth of all steps, at most 100."""
    return min(100, steps // 10)


class CosineSchedule:
    """Sets each group's ``lr`` to its first one times ``lr_factor``, over a run whose length may
    change.

    Args:
        optimizer: whose groups' ``lr`` are the highest rates.
        steps: of the whole run.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, steps: int) -> None:
        self._optimizer = optimizer
        self._rates = [float(group["lr"]) for group in optimizer.param_groups]
        self._done, self._steps = 0, steps
        self._apply()

    def step(self) -> None:
        """One more step was taken."""
        self._done += 1
        self._apply()

    def set_steps(self, steps: int) -> None:
        """The run has another length from now on."""
        self._steps = steps
        self._apply()

    def state_dict(self) -> dict[str, Any]:
        return {"done": self._done, "steps": self._steps, "rates": list(self._rates)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if len(state["rates"]) != len(self._rates):
            raise ValueError(
                f"it has rates of {len(state['rates'])} groups; the optimizer has "
                f"{len(self._rates)}"
            )
        self._done, self._steps = state["done"], state["steps"]
        self._rates = list(state["rates"])
        self._apply()

    def _apply(self) -> None:
        factor = lr_factor(self._done, self._steps, warmup_steps(self._steps))
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate * factor)
            else:
                group["lr"] = rate * factor
