"""Every optimizer tuned on the same grid, its best point repeated with every seed."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from cosmic.capital.budget import ADAMW_BYTES
from cosmic.finetune.config import RunConfig
from shared.run_store import Result, Store
from shared.variants import YARDSTICK, variant
from training_run import Run


@dataclass(frozen=True)
class Row:
    """One optimizer at its best grid point.

    Attributes:
        loss: mean over the seeds of `losses`.
        deviation: their standard deviation.
        difference: to the yardstick's loss; nan if it was not run.
        percent: the same, of the yardstick's loss.
        edge: a star if the best point lies on the edge of the grid.
        state_percent: state, of AdamW's two fp32 moments.
        grid: learning rate, factor and the first seed's loss of every grid point.
    """

    name: str
    version: str
    loss: float
    deviation: float
    difference: float
    percent: float
    lr: float
    factor: float
    edge: str
    state_bytes: int
    bits_per_param: float
    state_percent: float
    step_ms: float
    losses: list[float]
    grid: list[tuple[float, float, float]]


@dataclass(frozen=True)
class Tuning:
    """The grid, the seeds and what every run shares (`base` has the first seed)."""

    lrs: Sequence[float]
    factors: Sequence[float]
    seeds: int
    base: RunConfig

    def grid(self, name: str) -> list[Run]:
        """Every grid point with the first seed."""
        scale = variant(name).lr_scale
        return [self.run(name, lr * scale, f, 0) for lr in self.lrs for f in self.factors]

    def repeats(self, best: Run) -> list[Run]:
        """A grid point with every seed."""
        return [self.run(best.variant, best.config.lr, best.factor, s) for s in range(self.seeds)]

    def run(self, name: str, lr: float, factor: float, seed: int) -> Run:
        return Run(name, factor, replace(self.base, lr=lr, seed=seed))

    def edge(self, best: Run) -> str:
        """A star if the best point has no neighbour on some side, of the sides that were tried."""
        lrs = [lr * variant(best.variant).lr_scale for lr in self.lrs]
        sides = ((best.config.lr, lrs), (best.factor, list(self.factors)))
        return "*" if any(len(t) > 1 and at in (min(t), max(t)) for at, t in sides) else ""


def loss_of(result: Result) -> float:
    """The validation loss; infinity where training diverged."""
    loss = float(result["validation_loss"])
    return loss if math.isfinite(loss) else math.inf


def finished(store: Store, runs: Sequence[Run]) -> list[Result] | None:
    """The results of all runs, or None if one is missing."""
    results = [result for run in runs if (result := store.get(run)) is not None]
    return results if len(results) == len(runs) else None


def best_point(store: Store, grid: Sequence[Run]) -> Run | None:
    """The grid point of the least loss; None if the grid is not finished."""
    results = finished(store, grid)
    if results is None:
        return None
    losses = [loss_of(result) for result in results]
    return grid[losses.index(min(losses))]


def summarize(name: str, store: Store, tuning: Tuning) -> Row | None:
    """The variant's row without its difference; None if it failed."""
    grid = tuning.grid(name)
    best = best_point(store, grid)
    results = finished(store, tuning.repeats(best)) if best else None
    if best is None or results is None:
        return None
    losses = [loss_of(result) for result in results]
    finite = len(losses) > 1 and all(map(math.isfinite, losses))
    state = int(results[0]["state_bytes"])
    return Row(
        name=name,
        version=variant(name).version,
        loss=statistics.fmean(losses),
        deviation=statistics.stdev(losses) if finite else math.nan,
        difference=math.nan,
        percent=math.nan,
        lr=best.config.lr,
        factor=best.factor,
        edge=tuning.edge(best),
        state_bytes=state,
        bits_per_param=float(results[0]["state_bits_per_parameter"]),
        state_percent=100 * state / (ADAMW_BYTES * int(results[0]["parameters"])),
        step_ms=statistics.median(result["optimizer_ms"] for result in results),
        losses=losses,
        grid=[(r.config.lr, r.factor, loss_of(x)) for r in grid if (x := store.get(r))],
    )


def compare(
    names: Sequence[str], store: Store, tuning: Tuning, jobs: int, yardstick: str = YARDSTICK
) -> list[Row]:
    """Tune and repeat every variant; the rows of those that ran."""
    store.finish([run for name in names for run in tuning.grid(name)], jobs)
    best = [best_point(store, tuning.grid(name)) for name in names]
    store.finish([run for point in best if point for run in tuning.repeats(point)], jobs)
    rows = [row for name in names if (row := summarize(name, store, tuning))]
    return against(rows, yardstick)


def against(rows: Sequence[Row], yardstick: str) -> list[Row]:
    """The rows with their differences to the yardstick's."""
    zero = next((row.loss for row in rows if row.name == yardstick), math.nan)
    return [
        replace(row, difference=row.loss - zero, percent=100 * (row.loss / zero - 1))
        for row in rows
    ]
