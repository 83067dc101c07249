"""The picture of bench/matrix_rule.py: loss by steps and by seconds, one picture a task."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cosmic.train.drawing import COLOURS
from matrix.optimizers import CONTESTANTS
from matrix.report import Row
from plots import plotting

DASHES = ("-", "--", ":")  # where colours are used up
ROOM = 1.2  # of loss, above the least: what is drawn


def draw(path: Path, rows: Sequence[Row], subtitle: str) -> None:
    """Write the PNG.

    Args:
        path: file to write.
        rows: of one task, at least one.
        subtitle: sizes and machine.
    """
    figure = Figure(figsize=(13, 6), dpi=150, layout="constrained")
    by_steps, by_seconds = figure.subplots(1, 2, sharey=True)
    timed = [row for row in rows if math.isfinite(row.step_ms)]
    for row in rows:
        _line(by_steps, row, 1.0)
    for row in timed:
        _line(by_seconds, row, (row.passes_ms + row.step_ms) / 1e3)
    by_steps.set_xlabel("steps")
    by_steps.set_ylabel("validation loss, mean of seeds")
    by_seconds.set_xlabel("seconds of training" if timed else "times are not measured")
    low = min(min(loss for _, loss in row.curve) for row in rows)
    by_steps.set_ylim(low - 0.04 * ROOM, low + ROOM)
    for axes in (by_steps, by_seconds):
        plotting.dress(axes)
        axes.set_xlim(left=0)
    by_steps.legend(loc="upper right", frameon=False, fontsize=9)
    title = f"{rows[0].task}: each optimizer at its best rate and factor"
    figure.suptitle(title, x=0.012, ha="left", fontsize=14)
    figure.supxlabel(subtitle, x=0.012, ha="left", fontsize=8.5, color="#666666")
    figure.savefig(path)


def _line(axes: Axes, row: Row, scale: float) -> None:
    number = list(CONTESTANTS).index(row.optimizer)
    axes.plot(
        [step * scale for step, _ in row.curve],
        [loss for _, loss in row.curve],
        color=COLOURS[number % len(COLOURS)],
        linestyle=DASHES[number // len(COLOURS)],
        linewidth=1.6,
        label=f"{row.title} ({row.loss:.3f})",
    )
