"""A multilayer perceptron on made tabular data: the regression of a random smooth function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from suite.problem import Problem, Task

STEPS, BATCH, SMALL_BATCH = 600, 512, 64
FEATURES, WIDTH = 32, 256
ROWS, HELD_OUT = 60_000, 4_000
DATA_SEED = 20  # of the function and the rows: the same for all trainings

TERMS = 48  # waves that the function is the sum of
USED = 3  # features a wave runs along
NOISE = 0.1  # standard deviation of what is added to training targets, whose own is 1


@dataclass(frozen=True)
class Table:
    """Rows and targets; the held-out targets are without noise, so a loss of 0 is perfect."""

    rows: Tensor
    targets: Tensor
    held_out: Tensor
    truth: Tensor


@lru_cache(maxsize=1)
def table() -> Table:
    """The data set, the same for all seeds."""
    random = torch.Generator().manual_seed(DATA_SEED)
    rows = torch.randn(ROWS + HELD_OUT, FEATURES, generator=random)
    values = _function(rows, random)
    values = (values - values[:ROWS].mean()) / values[:ROWS].std()
    noisy = values[:ROWS] + NOISE * torch.randn(ROWS, generator=random)
    return Table(rows[:ROWS], noisy, rows[ROWS:], values[ROWS:])


def _function(rows: Tensor, random: torch.Generator) -> Tensor:
    # Waves of random direction, phase and height. Each along a few features only: the rows
    # would not tell a network anything of waves along all of them. They are so many that it does
    # not learn them by heart, which would hide how fast it learns.
    directions = torch.zeros(FEATURES, TERMS)
    for term in range(TERMS):
        used = torch.randperm(FEATURES, generator=random)[:USED]
        directions[used, term] = torch.randn(USED, generator=random)
    phases = 6.2832 * torch.rand(TERMS, generator=random)
    heights = torch.randn(TERMS, generator=random)
    return (rows @ directions + phases).sin() @ heights


class TabularProblem:
    """One training on the table.

    Attributes:
        model: what is trained.
    """

    def __init__(self, seed: int, batch: int) -> None:
        torch.manual_seed(seed)
        self.model: nn.Module = _perceptron().train()
        random = torch.Generator().manual_seed(seed)
        epochs = -(-STEPS * batch // ROWS)
        order = torch.cat([torch.randperm(ROWS, generator=random) for _ in range(epochs)])
        self._batches = order[: STEPS * batch].view(STEPS, batch)

    def loss(self, step: int) -> Tensor:
        """Mean squared error of the step's batch."""
        chosen = self._batches[step]
        return functional.mse_loss(self.model(table().rows[chosen]), table().targets[chosen])

    @torch.no_grad()
    def evaluate(self) -> float:
        """Mean squared error of the held-out rows; no layer differs between the modes."""
        return functional.mse_loss(self.model(table().held_out), table().truth).item()


def _perceptron() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(FEATURES, WIDTH),
        nn.GELU(),
        nn.Linear(WIDTH, WIDTH),
        nn.GELU(),
        nn.Linear(WIDTH, WIDTH),
        nn.GELU(),
        nn.Linear(WIDTH, 1),
        nn.Flatten(0),
    )


def _make(batch: int) -> Callable[[int], Problem]:
    return lambda seed: TabularProblem(seed, batch)


TABULAR = Task(
    name="tabular",
    title="a multilayer perceptron on the regression of a random smooth function",
    half="fit",
    make=_make(BATCH),
    steps=STEPS,
    batch=BATCH,
    rate=3e-2,
)
TABULAR_64 = replace(
    TABULAR, name="tabular-64", title=f"{TABULAR.title}, {SMALL_BATCH} rows a step",
    make=_make(SMALL_BATCH), batch=SMALL_BATCH,
)  # fmt: skip
