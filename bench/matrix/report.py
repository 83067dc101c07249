"""The table of bench/matrix_rule.py."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from cosmic.capital.budget import ADAMW_BYTES
from matrix.optimizers import CONTESTANTS, YARDSTICK
from matrix.search import SEEDS, found
from matrix.store import Store
from matrix.times import Times

Curve = list[tuple[int, float]]


@dataclass(frozen=True)
class Row:
    """One optimizer on one task at its best grid point.

    Attributes:
        settled: all neighbours of the point have been tried, and all seeds.
        loss: mean of `losses`, the last validation losses by seed.
        spread: their standard deviation.
        difference: to the yardstick's loss.
        state_percent: bytes of state, of AdamW's two fp32 moments.
        steps: to the yardstick's loss, interpolated on `curve`; nan where it is not reached.
        passes_ms: forward, backward and clipping of a step.
        step_ms: the optimizer's part of a step.
        seconds: `steps` times the sum of both.
        of_yardstick: these seconds over the yardstick's.
        curve: steps and validation loss, mean of the seeds.
        train: the same of the training loss, each the mean of the steps since the last.
        grid: rate, factor and the first seed's loss of every point; infinite: given up.
    """

    task: str
    optimizer: str
    title: str
    version: str
    rate: float
    factor: float
    settled: bool
    losses: list[float]
    loss: float
    spread: float
    state_bytes: int
    state_percent: float
    curve: Curve
    train: Curve
    grid: list[tuple[float, float, float]]
    difference: float = math.nan
    steps: float = math.nan
    passes_ms: float = math.nan
    step_ms: float = math.nan
    seconds: float = math.nan
    of_yardstick: float = math.nan


def steps_to(curve: Curve, loss: float) -> float:
    """Steps until a curve is first at a loss, on straight lines between its points."""
    for (before, above), (after, below) in pairwise(curve):
        if below <= loss:
            return before + (after - before) * (above - loss) / (above - below)
    return math.nan


def row_of(store: Store, task: str, name: str) -> Row | None:
    """An optimizer's row without what depends on the yardstick; None without a finished run."""
    point = found(store, task, name)
    if point is None:
        return None
    results = list(point.repeats.values())
    losses = [result.loss for result in results]
    finite = len(losses) > 1 and all(map(math.isfinite, losses))
    steps = [step for step, _ in results[0].curve]
    means = [statistics.fmean(r.at(step) for r in results) for step in steps]
    train = [statistics.fmean(means) for means in zip(*(r.train for r in results), strict=False)]
    state, parameters = results[0].state_bytes, results[0].parameters
    return Row(
        task=task,
        optimizer=name,
        title=CONTESTANTS[name].title,
        version=CONTESTANTS[name].version,
        rate=point.best.rate,
        factor=point.best.factor,
        settled=point.settled and len(results) == SEEDS,
        losses=losses,
        loss=statistics.fmean(losses),
        spread=statistics.stdev(losses) if finite else math.nan,
        state_bytes=state,
        state_percent=100 * state / (ADAMW_BYTES * parameters),
        curve=list(zip(steps, means, strict=True)),
        train=list(zip(steps[1:], train, strict=False)),
        grid=point.grid,
    )


def rows_of(store: Store, task: str, names: Sequence[str], times: Times | None) -> list[Row]:
    """The rows of a task, each beside the yardstick, whether that is shown or not."""
    zero = row_of(store, task, YARDSTICK)
    rows = [row for name in names if (row := row_of(store, task, name))]
    if zero is None:
        return rows
    whole = _beside(zero, zero, times).seconds
    rows = [_beside(row, zero, times) for row in rows]
    return [replace(row, of_yardstick=row.seconds / whole) for row in rows]


def _beside(row: Row, zero: Row, times: Times | None) -> Row:
    """A row with its distance to the yardstick's loss: in loss, in steps and in seconds."""
    steps = steps_to(row.curve, zero.loss)
    row = replace(row, difference=row.loss - zero.loss, steps=steps)
    if times is None or row.optimizer not in times.steps:
        return row
    step = times.steps[row.optimizer]
    return replace(
        row,
        passes_ms=times.backward * 1e3,
        step_ms=step * 1e3,
        seconds=steps * (times.backward + step),
    )


HEAD = (
    *("optimizer", "rate", "factor", "validation loss", "sd", "to AdamW", "state, of AdamW's"),
    *("steps to AdamW's loss", "forward, backward", "step", "seconds to it", "of AdamW's"),
)


def markdown(rows: Sequence[Row]) -> str:
    """The rows of one task as a table; a star: the search, or the seeds, are not through."""
    lines = [HEAD, ("---",) * len(HEAD), *map(_cells, rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.title,
        f"{row.rate:g}",
        f"{row.factor:g}",
        f"{row.loss:.3f}{'' if row.settled else '*'}",
        _number(row.spread, ".3f"),
        _number(row.difference, "+.3f"),
        f"{row.state_percent:.1f} %",
        _number(row.steps, ".0f"),
        _number(row.passes_ms, ".1f", " ms"),
        _number(row.step_ms, ".2f", " ms"),
        _number(row.seconds, ".1f"),
        _number(100 * row.of_yardstick, ".0f", " %"),
    )


def _number(value: float, spec: str, unit: str = "") -> str:
    return format(value, spec) + unit if math.isfinite(value) else "-"
