"""Times of bench/matrix_rule.py: forward and backward, and every optimizer's step, in turn."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from cosmic.finetune.tokens import TokenFolder
from matrix.tasks import load, model_of
from matrix.training import backward, optimizers_of

TURNS = 4  # steps of an optimizer in a round: all cadences tried divide it
RATE, FACTOR = 1e-5, 1.0  # what is timed shall stay finite


@dataclass(frozen=True)
class Times:
    """Seconds on a task.

    Attributes:
        rounds: how many rounds the medians rest on.
        backward: of forward, backward and clipping of one step.
        steps: of one step of each optimizer, by name: its time over that of forward and backward
            in the same round, whose median over the rounds is multiplied by `backward`.
    """

    rounds: int
    backward: float
    steps: dict[str, float]


def measure(task: str, names: Sequence[str], folder: TokenFolder, rounds: int) -> Times:
    """Time every optimizer on a copy of the model, after each forward and backward."""
    batches = load(task, 0, folder).batches[:TURNS]
    model = model_of(task, 0)
    steps = {name: _stepper(task, name, model) for name in names}
    whole: list[float] = []
    ratios: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds + 1):
        passes, taken = _round(model, batches, steps)
        if number:  # the first one warms up
            whole.append(passes)
            for name in names:
                ratios[name].append(taken[name] / passes)
    seconds = statistics.median(whole)
    return Times(rounds, seconds, {n: seconds * statistics.median(r) for n, r in ratios.items()})


def _round(
    model: Any, batches: torch.Tensor, steps: dict[str, Callable[[], None]]
) -> tuple[float, dict[str, float]]:
    """Mean seconds of forward and backward, and of a step of each optimizer."""
    passes: list[float] = []
    taken = dict.fromkeys(steps, 0.0)
    for ids in batches:
        for name, step in steps.items():
            model.zero_grad()
            start = time.perf_counter()
            backward(model, ids)
            between = time.perf_counter()
            step()
            passes.append(between - start)
            taken[name] += (time.perf_counter() - between) / len(batches)
    return statistics.fmean(passes), taken


def _stepper(task: str, name: str, model: Any) -> Callable[[], None]:
    """A step of an optimizer's own copy of the model, with the gradients of the first."""
    copy = model_of(task, 0)
    optimizers = optimizers_of(name, copy, RATE, FACTOR)

    def step() -> None:
        for mine, theirs in zip(copy.parameters(), model.parameters(), strict=True):
            mine.grad = theirs.grad
        for optimizer in optimizers:
            optimizer.step()

    return step


def save(path: Path, threads: int, task: str, times: Times) -> None:
    """Keep the times of a task on so many threads."""
    held = json.loads(path.read_text()) if path.exists() else {}
    held.setdefault(str(threads), {})[task] = asdict(times)
    path.write_text(json.dumps(held, indent=2) + "\n")


def saved(path: Path, threads: int, task: str) -> Times | None:
    """What `save` has kept."""
    held = json.loads(path.read_text()) if path.exists() else {}
    content = held.get(str(threads), {}).get(task)
    return Times(**content) if content else None
