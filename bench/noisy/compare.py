"""Every optimizer of bench/noise.py at the common point and at its own best one, by seed."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from noisy.optimizers import OPTIMIZERS
from noisy.store import Result, Run, Store
from noisy.tasks import TASKS

POINTS = ("common", "tuned")
MOST_OF_LONG = 3  # seeds of a task that is tuned with fewer than all


@dataclass(frozen=True)
class Row:
    """One optimizer in one task at one point of the grid; means over the seeds.

    Attributes:
        test: clean held-out accuracy at the end; `deviation`: its standard deviation.
        best: the best test accuracy in mid-training.
        train: accuracy on the training labels, as corrupted as they are.
        memorized: share of the corrupted labels that the model gives.
        rare: test accuracy of the rarest third of the classes.
        edge: a star if a tuned rate or decay is the least or the largest of the grid.
        tests: `test` by seed.
        curve: step, train, test.
        by_rate: learning rate and mean test accuracy at this weight decay, where every seed ran.
    """

    task: str
    point: str
    optimizer: str
    test: float
    deviation: float
    best: float
    train: float
    memorized: float
    rare: float
    lr: float
    weight_decay: float
    edge: str
    tests: list[float]
    curve: list[list[float]]
    by_rate: list[tuple[float, float]]
    seconds: float


def grid(name: str) -> list[tuple[float, float]]:
    """Learning rates and weight decays that are tried."""
    task = TASKS[name]
    return [(lr, decay) for lr in task.lrs for decay in task.decays]


def runs(name: str, optimizer: str, point: tuple[float, float], seeds: int) -> list[Run]:
    """One point with so many seeds."""
    return [Run(name, optimizer, *point, seed) for seed in range(seeds)]


def compare(name: str, store: Store, seeds: int, jobs: int) -> list[Row]:
    """Tune and repeat every optimizer in one task."""
    task = TASKS[name]
    tuning = task.tuning_seeds or seeds
    seeds = min(seeds, MOST_OF_LONG) if task.tuning_seeds else seeds
    tried = [r for o in OPTIMIZERS for point in grid(name) for r in runs(name, o, point, tuning)]
    store.finish(tried, jobs, f"{name}: grid")
    points = {o: (task.common, best_point(name, o, store, tuning)) for o in OPTIMIZERS}
    repeats = [r for o, both in points.items() for p in both for r in runs(name, o, p, seeds)]
    store.finish(repeats, jobs, f"{name}: seeds")
    return [
        summarize(name, optimizer, point, at, store, seeds)
        for index, point in enumerate(POINTS)
        if point == "common" or len(grid(name)) > 1
        for optimizer in OPTIMIZERS
        for at in [points[optimizer][index]]
    ]


def best_point(name: str, optimizer: str, store: Store, seeds: int) -> tuple[float, float]:
    """The grid point of the best accuracy on what chooses."""

    def worth(point: tuple[float, float]) -> float:
        return mean([store[run] for run in runs(name, optimizer, point, seeds)], "chosen_by")

    return max(grid(name), key=worth)


def mean(results: Sequence[Result], figure: str) -> float:
    """Over the seeds; nan of what a task has not."""
    values = [result[figure] for result in results]
    return math.nan if None in values else statistics.fmean(values)


def summarize(
    name: str, optimizer: str, point: str, at: tuple[float, float], store: Store, seeds: int
) -> Row:
    """The row of an optimizer at a point that every seed has been run at."""
    task = TASKS[name]
    results = [store[run] for run in runs(name, optimizer, at, seeds)]
    tests = [result["test"] for result in results]
    sides = [(at[0], task.lrs), (at[1], task.decays)]
    edge = any(len(tried) > 1 and x in (min(tried), max(tried)) for x, tried in sides)
    curves = zip(*(result["curve"] for result in results), strict=True)
    rates = task.lrs if task.tuning_seeds is None else ()
    return Row(
        task=name,
        point=point,
        optimizer=optimizer,
        test=statistics.fmean(tests),
        deviation=statistics.stdev(tests) if len(tests) > 1 else math.nan,
        lr=at[0],
        weight_decay=at[1],
        edge="*" if edge and point == "tuned" else "",
        tests=tests,
        curve=[[statistics.fmean(x) for x in zip(*part, strict=True)] for part in curves],
        by_rate=[
            (lr, mean([store[r] for r in runs(name, optimizer, (lr, at[1]), seeds)], "test"))
            for lr in rates
        ],
        **{x: mean(results, x) for x in ("best", "train", "memorized", "rare", "seconds")},
    )
