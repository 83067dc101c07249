"""The best point of an optimizer on the grid that all share, and its repetitions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from suite.contestants import YARDSTICK, contestant
from suite.store import Store
from suite.tasks import TASKS
from suite.training import Result, Run

#: Learning rates, about a factor of three apart, and factors of it.
RATES = tuple(x * 10.0**e for e in range(-6, 2) for x in (1.0, 3.0))
FACTORS = (0.03, 0.1, 0.3, 1.0, 3.0)
SEEDS = 3


@dataclass(frozen=True)
class Found:
    """An optimizer's best point on a task.

    Attributes:
        best: the best run of the first seed.
        repeats: results at that point, by seed, of those that are finished.
        tried: how many points.
    """

    best: Run
    repeats: dict[int, Result]
    tried: int


def nearest(rate: float) -> float:
    """The grid's rate that is the nearest by ratio."""
    return min(RATES, key=lambda x: max(x / rate, rate / x))


def neighbours(run: Run, axes: tuple[str, ...]) -> Iterator[Run]:
    """The points one step away along one axis of the grid; and those where the tables' rate alone
    is another, as the factor of matrices moves against it: best points lie along that diagonal."""
    moves = [{axis: step} for axis in axes for step in (1, -1)]
    if "matrix" in axes:
        moves += [{"rate": step, "matrix": -step} for step in (1, -1)]
    for move in moves:
        moved = _moved(run, move)
        if moved is not None:
            yield moved


def _moved(run: Run, move: dict[str, int]) -> Run | None:
    """So many steps along each axis; None beyond the grid."""
    changed: dict[str, Any] = {}
    for axis, step in move.items():
        values = RATES if axis == "rate" else FACTORS
        k = values.index(getattr(run, axis)) + step
        if not 0 <= k < len(values):
            return None
        changed[axis] = values[k]
    return replace(run, **changed)


def points(task: str, optimizer: str) -> Iterator[Run]:
    """Every point of the grid that an optimizer may be at, with the first seed."""
    axes = contestant(optimizer).axes
    matrices = FACTORS if "matrix" in axes else (1.0,)
    vectors = FACTORS if "vector" in axes else (1.0,)
    for rate in RATES:
        for matrix in matrices:
            for vector in vectors:
                yield Run(task, optimizer, rate, matrix, vector)


def found(store: Store, task: str, optimizer: str) -> Found | None:
    """What is known of an optimizer on a task; None if none of its runs is finished."""
    return _best(store, points(task, optimizer))


def at_one_rate(store: Store, task: str) -> Found | None:
    """The same of AdamW among the points where all roles have one rate."""
    every = points(task, YARDSTICK)
    return _best(store, (run for run in every if run.matrix == run.vector == 1.0))


def _best(store: Store, among: Iterable[Run]) -> Found | None:
    losses = {run: x.loss for run in among if (x := store.get(run))}
    if not losses:
        return None
    best = min(losses, key=lambda run: losses[run])
    return Found(best, repeats_of(store, best), len(losses))


def repeats_of(store: Store, run: Run) -> dict[int, Result]:
    """The results of a point that are finished, by seed."""
    return {s: x for s in range(SEEDS) if (x := store.get(replace(run, seed=s)))}


def start_of(store: Store, task: str, optimizer: str) -> Run:
    """Where a search starts: at AdamW's best single rate, times the optimizer's usual factor."""
    yardstick = at_one_rate(store, task)
    rate = yardstick.best.rate if yardstick else TASKS[task].rate
    return Run(task, optimizer, nearest(rate * contestant(optimizer).scale))


def descend(store: Store, start: Run, axes: tuple[str, ...]) -> Run:
    """A point none of whose neighbours along the axes is better."""
    at, loss, moved = start, store.finish(start).loss, True
    while moved:
        moved = False
        for run in neighbours(at, axes):
            theirs = store.finish(run).loss
            # where all diverge, lower rates are the way out
            if theirs < loss or (theirs == loss == math.inf and run.rate < at.rate):
                at, loss, moved = run, theirs, True
                break
    return at


def tune(store: Store, task: str, optimizer: str) -> None:
    """Find the best single rate, then the best point, and repeat both with the other seeds."""
    axes = contestant(optimizer).axes
    one = descend(store, start_of(store, task, optimizer), ("rate",))
    known = found(store, task, optimizer)
    best = known.best if known else one  # an earlier call's, maybe
    ends = [one] if axes == ("rate",) else [one, descend(store, best, axes)]
    for run in ends:
        for seed in range(1, SEEDS):
            store.finish(replace(run, seed=seed))


def take(store: Store, task: str, optimizer: str) -> None:
    """Train at AdamW's best single rate, which nobody has tuned for this optimizer."""
    yardstick = at_one_rate(store, task)
    if yardstick is None:
        tune(store, task, YARDSTICK)
        yardstick = at_one_rate(store, task)
    assert yardstick is not None
    for seed in range(SEEDS):
        store.finish(replace(yardstick.best, optimizer=optimizer, seed=seed))
