"""The table of the suite: every optimizer on every task, beside AdamW at its best point."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from cosmic.capital.budget import ADAMW_BYTES
from suite.contestants import NAMED, YARDSTICK, contestant
from suite.search import SEEDS, Found, at_one_rate, found, repeats_of, start_of
from suite.store import Store
from suite.tasks import TASKS
from suite.training import Result

ONE_RATE = f"{YARDSTICK}, one rate"
OWN_RATE = ", own rate"  # behind the name of one of ours: the best that was found, if it was sought


@dataclass(frozen=True)
class Cell:
    """One optimizer on one task.

    Attributes:
        losses: validation losses by seed.
        loss: their mean.
        spread: their standard deviation; nan of one seed.
        percent: of the yardstick's loss, how much more.
        noise_percent: of the yardstick's loss, twice the standard error of the difference.
        state_percent: bytes of state, of AdamW's two fp32 moments.
        tried: points of the grid that were trained to find this one; 1: none but this.
    """

    task: str
    half: str
    optimizer: str
    title: str
    rate: float
    matrix: float
    vector: float
    tried: int
    losses: list[float]
    loss: float
    spread: float
    state_percent: float
    optimizer_ms: float
    percent: float = math.nan
    noise_percent: float = math.nan


def cells(store: Store, tasks: Sequence[str], optimizers: Sequence[str]) -> list[Cell]:
    """A cell for every optimizer on every task of which runs are finished."""
    return [cell for task in tasks for cell in _of_task(store, task, optimizers)]


def _of_task(store: Store, task: str, optimizers: Sequence[str]) -> list[Cell]:
    yardstick = _cell(task, YARDSTICK, found(store, task, YARDSTICK))
    if yardstick is None:
        return []
    mine = [yardstick, _cell(task, ONE_RATE, at_one_rate(store, task))]
    for name in optimizers:
        mine.append(_cell(task, name, _seen(store, task, name)))
        if name not in NAMED and (own := found(store, task, name)) and own.tried > 1:
            mine.append(_cell(task, name + OWN_RATE, own))
    return [_beside(cell, yardstick) for cell in mine if cell is not None]


def _seen(store: Store, task: str, optimizer: str) -> Found | None:
    """An optimizer's best point, or Cosmic's at the rate that AdamW had found for itself."""
    if optimizer in NAMED:
        return found(store, task, optimizer)
    run = start_of(store, task, optimizer)
    repeats = repeats_of(store, run)
    return Found(run, repeats, 1) if repeats else None


def _cell(task: str, name: str, seen: Found | None) -> Cell | None:
    if seen is None or not seen.repeats:
        return None
    results = list(seen.repeats.values())
    losses = [result.loss for result in results]
    return Cell(
        task=task,
        half=TASKS[task].half,
        optimizer=name,
        title=_title(name),
        rate=seen.best.rate,
        matrix=seen.best.matrix,
        vector=seen.best.vector,
        tried=seen.tried,
        losses=losses,
        loss=statistics.fmean(losses),
        spread=_spread(losses),
        state_percent=_state_percent(results[0]),
        optimizer_ms=statistics.median(result.optimizer_ms for result in results),
    )


def _title(name: str) -> str:
    if name == ONE_RATE:
        return "AdamW, one rate"
    plain = name.removesuffix(OWN_RATE)
    return contestant(plain).title + name[len(plain) :]


def _spread(losses: Sequence[float]) -> float:
    finite = len(losses) > 1 and all(map(math.isfinite, losses))
    return statistics.stdev(losses) if finite else math.nan


def _state_percent(result: Result) -> float:
    return 100 * result.state_bytes / (ADAMW_BYTES * result.parameters)


def _beside(cell: Cell, yardstick: Cell) -> Cell:
    variances = [c.spread**2 / len(c.losses) for c in (cell, yardstick)]
    return replace(
        cell,
        percent=100 * (cell.loss / yardstick.loss - 1),
        noise_percent=200 * math.sqrt(sum(variances)) / yardstick.loss,
    )


def markdown(every: Sequence[Cell], half: str, optimizers: Sequence[str]) -> list[str]:
    """A table of one half of the suite: losses, and the difference to AdamW's in percent."""
    mine = [cell for cell in every if cell.half == half]
    tasks = list(dict.fromkeys(cell.task for cell in mine))
    seen = {cell.optimizer for cell in mine}
    ours = [row for name in optimizers for row in (name, name + OWN_RATE)]
    names = [name for name in (YARDSTICK, ONE_RATE, *ours) if name in seen]
    lines = ["| optimizer | " + " | ".join(tasks) + " |", "|---" * (len(tasks) + 1) + "|"]
    for name in names:
        row = {cell.task: cell for cell in mine if cell.optimizer == name}
        title = next(iter(row.values())).title
        lines.append(f"| {title} | " + " | ".join(_text(row.get(task)) for task in tasks) + " |")
    return lines


def _text(cell: Cell | None) -> str:
    if cell is None:
        return ""
    star = "" if len(cell.losses) == SEEDS else "*"
    if cell.optimizer == YARDSTICK:
        return f"{cell.loss:.4g}{star} ± {cell.spread:.2g}"
    if not math.isfinite(cell.loss):
        return "diverged"
    return f"{cell.loss:.4g}{star} ({cell.percent:+.1f} %)"
