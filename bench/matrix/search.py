"""The best point of an optimizer on the grid that all share, and its repetitions."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from cosmic.finetune.tokens import TokenFolder
from matrix.optimizers import CONTESTANTS
from matrix.store import Store
from matrix.tasks import TASKS
from matrix.training import Result, Run, give_up_at, train

#: The grid: 1.5e-3 to 2e-2 and 0.1 to 1, and what extends it where a best point lies on its edge.
RATES = (3.5e-4, 7e-4, 1.5e-3, 3e-3, 6e-3, 1e-2, 2e-2, 4e-2, 8e-2)
FACTORS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
SEEDS = 3


@dataclass(frozen=True)
class Found:
    """How far the search of an optimizer on a task has come.

    Attributes:
        best: the best run of the first seed.
        settled: all neighbours of it have been tried.
        repeats: finished runs at that point, by seed.
        grid: rate, factor and the first seed's loss of every point tried; infinite: given up.
    """

    best: Run
    settled: bool
    repeats: dict[int, Result]
    grid: list[tuple[float, float, float]]


def neighbours(run: Run) -> Iterator[Run]:
    """The points one step away along one axis of the grid."""
    rate, factor = RATES.index(run.rate), FACTORS.index(run.factor)
    for i, j in ((rate + 1, factor), (rate - 1, factor), (rate, factor + 1), (rate, factor - 1)):
        if 0 <= i < len(RATES) and 0 <= j < len(FACTORS):
            yield replace(run, rate=RATES[i], factor=FACTORS[j])


def points(task: str, optimizer: str) -> Iterator[Run]:
    """Every grid point with the first seed."""
    for rate in RATES:
        for factor in FACTORS:
            yield Run(task, optimizer, rate, factor, seed=0)


def found(store: Store, task: str, optimizer: str) -> Found | None:
    """What is known of an optimizer on a task; None if no run of it has reached its end."""
    losses = {run: x.loss for run in points(task, optimizer) if (x := store.get(run))}
    best = _best(store, task, optimizer, losses)
    if best is None:
        return None
    repeats = {s: x for s in range(SEEDS) if (x := store.get(replace(best, seed=s)))}
    searched = CONTESTANTS[optimizer].searched
    return Found(
        best=best,
        settled=not searched or all(run in losses for run in neighbours(best)),
        repeats=repeats,
        grid=[(run.rate, run.factor, loss) for run, loss in losses.items()],
    )


def _best(store: Store, task: str, optimizer: str, losses: dict[Run, float]) -> Run | None:
    """The best point, or that of the optimizer whose rate this one has."""
    if CONTESTANTS[optimizer].searched:
        best = min(losses, key=lambda run: losses[run], default=None)
    else:
        best = start_of(store, task, optimizer)
    return best if best in losses and math.isfinite(losses[best]) else None


def start_of(store: Store, task: str, optimizer: str) -> Run:
    """Where the search starts: at the best point of the optimizer that this one comes after."""
    contestant = CONTESTANTS[optimizer]
    rate, factor = contestant.start
    before = found(store, task, contestant.after) if contestant.after else None
    if before is not None:
        rate, factor = before.best.rate, before.best.factor
    return Run(task, optimizer, rate, factor, seed=0)


def search(store: Store, folder: TokenFolder, task: str, optimizer: str) -> None:
    """Descend to a point whose neighbours are all worse, and repeat it with the other seeds.

    Starts from the best point known. Moves as soon as a neighbour is better, and tries the same
    direction first from there.
    """
    known = found(store, task, optimizer)
    before = at = known.best if known else start_of(store, task, optimizer)
    loss = finished(store, folder, at, math.inf).loss
    searched = CONTESTANTS[optimizer].searched
    while searched and (better := _better(store, folder, before, at, loss)):
        before, (at, loss) = at, better
    for seed in range(1, SEEDS):
        finished(store, folder, replace(at, seed=seed), math.inf)


def _better(
    store: Store, folder: TokenFolder, before: Run, at: Run, loss: float
) -> tuple[Run, float] | None:
    """A neighbour that is better, and its loss; that one first which lies ahead."""
    limit, away = _limit(store, at), _move(before, at)
    for run in sorted(neighbours(at), key=lambda run: _move(at, run) != away):
        theirs = finished(store, folder, run, limit).loss
        if theirs < loss:
            return run, theirs
    return None


def _move(of: Run, to: Run) -> tuple[int, int]:
    """From one point to another, in steps of the grid."""
    rates, factors = RATES.index, FACTORS.index
    return rates(to.rate) - rates(of.rate), factors(to.factor) - factors(of.factor)


def _limit(store: Store, best: Run) -> float:
    """The loss above which a run is given up, beside the best run so far."""
    dominated, result = TASKS[best.task].dominated, store.get(best)
    if dominated is None or result is None:
        return math.inf
    return result.at(give_up_at(best.task)) + dominated


def finished(store: Store, folder: TokenFolder, run: Run, limit: float) -> Result:
    """The result of a run, trained if there is none yet."""
    result = store.get(run)
    if result is None:
        result = train(run, folder, limit)
        store.put(run, result)
        step, loss = result.curve[-1]
        print(
            f"{run.task} {run.optimizer} rate {run.rate:g} factor {run.factor:g} seed {run.seed}: "
            f"{loss:.4f}{f', given up at step {step}' if result.stopped else ''} "
            f"in {result.seconds:.0f} s",
            flush=True,
        )
    return result
