"""What a task of the suite is: a model, training batches and a validation loss, all by a seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor, nn

#: Constants may be fitted on the one half; the other judges, and nothing is ever fitted on it.
Half = Literal["fit", "judge"]


class Problem(Protocol):
    """One training of a task, with the weights, data and order of one seed.

    Attributes:
        model: its trainable parameters are those that require a gradient.
    """

    model: nn.Module

    def loss(self, step: int) -> Tensor:
        """The training loss of a step's batch, a scalar to call `backward()` on; steps in order."""
        ...

    def evaluate(self) -> float:
        """The validation loss: less is better, the same held-out data for every seed. It leaves
        the model in training mode, draws nothing from torch's global generator, keeps no graph."""
        ...


@dataclass(frozen=True)
class Task:
    """One task of the suite.

    Attributes:
        name: in tables and of stored runs.
        title: what is trained on what, for people.
        half: whether constants may be fitted on it.
        make: the problem of a seed.
        steps: optimizer steps of a training.
        batch: examples (sequences, rows) a step.
        rate: AdamW's usual learning rate for it, where searches start.
        version: is raised whenever a change makes other numbers of the same run.
    """

    name: str
    title: str
    half: Half
    make: Callable[[int], Problem]
    steps: int
    batch: int
    rate: float
    version: int = 1
