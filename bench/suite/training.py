"""One training of the suite."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from shared.schedule import schedule
from suite.contestants import BETAS, WEIGHT_DECAY, contestant
from suite.problem import Problem
from suite.roles import groups_of
from suite.tasks import TASKS

CLIP_NORM = 1.0


@dataclass(frozen=True)
class Run:
    """One training; matrices take `rate * matrix`, vectors `rate * vector`, tables `rate`."""

    task: str
    optimizer: str
    rate: float
    matrix: float = 1.0
    vector: float = 1.0
    seed: int = 0

    @property
    def key(self) -> dict[str, Any]:
        """All that the result depends on; a run whose key has a result is not trained again."""
        release = contestant(self.optimizer).release
        setting = {"betas": list(BETAS), "weight_decay": WEIGHT_DECAY, "clip": CLIP_NORM}
        return asdict(self) | {"release": release, "version": TASKS[self.task].version} | setting


@dataclass(frozen=True)
class Result:
    """What a training gave.

    Attributes:
        loss: of the held-out data at the end; infinite where it is no number any more.
        optimizer_ms: of a step of the optimizer, mean.
        seconds: of the training, beside whatever else the machine did.
        course: steps that had been taken, and the loss of the held-out data then; empty where
            nobody asked for it.
    """

    loss: float
    state_bytes: int
    parameters: int
    optimizer_ms: float
    seconds: float
    course: Sequence[tuple[int, float]] = ()


def state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Of all tensors in an optimizer's state."""
    tensors = (x for state in optimizer.state.values() for x in state.values())
    return sum(x.numel() * x.element_size() for x in tensors if isinstance(x, Tensor))


def train(run: Run, looks: Sequence[float] = ()) -> Result:
    """Train once.

    Args:
        looks: shares of the steps after which the held-out data is looked at, beside the end.
    """
    start = time.perf_counter()
    task = TASKS[run.task]
    problem = task.make(run.seed)
    tried = contestant(run.optimizer)
    groups = groups_of(problem.model, run.rate, run.matrix, run.vector, tried.tags)
    params = [param for group in groups for _, param in group["params"]]
    optimizers = tried.make(groups, task.steps)
    course = {round(share * task.steps): math.inf for share in looks}
    stepping, whole = _steps(problem, task.steps, optimizers, params, course)
    loss = problem.evaluate() if whole else math.inf
    return Result(
        loss=loss if math.isfinite(loss) else math.inf,
        state_bytes=sum(map(state_bytes, optimizers)),
        parameters=sum(param.numel() for param in params),
        optimizer_ms=1000 * stepping / task.steps,
        seconds=time.perf_counter() - start,
        course=[*course.items(), (task.steps, loss)] if course else (),
    )


def _steps(
    problem: Problem,
    steps: int,
    optimizers: Sequence[torch.optim.Optimizer],
    params: Sequence[Tensor],
    course: dict[int, float],
) -> tuple[float, bool]:
    """All steps of a training, to its end or to a loss that is none: seconds in the optimizer, and
    whether the end was reached. Fills in ``course`` after the steps that it names."""
    rates = [(group, group["lr"]) for o in optimizers for group in o.param_groups]
    spent = 0.0
    for step in range(steps):
        for group, highest in rates:
            group["lr"] = highest * schedule(step, steps)
        loss = problem.loss(step)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(params, CLIP_NORM)
        before = time.perf_counter()
        for optimizer in optimizers:
            optimizer.step()
        spent += time.perf_counter() - before
        for optimizer in optimizers:
            optimizer.zero_grad()
        if not math.isfinite(float(loss.detach())):
            return spent, False
        if step + 1 in course:
            course[step + 1] = problem.evaluate()
    return spent, True
