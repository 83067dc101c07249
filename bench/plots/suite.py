"""The picture of bench/suite_of_tasks.py: loss beside AdamW's by bytes of state, a panel a task."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cosmic.train.drawing import COLOURS
from plots import plotting
from suite.contestants import BUDGETS, NAMED, YARDSTICK
from suite.report import ONE_RATE, Cell

WIDTH = 4  # panels side by side
MOST = 30.0  # percent above AdamW's loss: what is further off stands at the edge
OURS = [f"cosmic {budget}" for budget in BUDGETS]
LEAST = 0.3  # percent of AdamW's state, likewise


def draw(path: Path, cells: Sequence[Cell], subtitle: str) -> None:
    """Write the PNG.

    Args:
        path: file to write.
        cells: of any number of tasks.
        subtitle: the machine.
    """
    tasks = list(dict.fromkeys(cell.task for cell in cells))
    height = math.ceil(len(tasks) / WIDTH)
    figure = Figure(figsize=(4 * WIDTH, 3.6 * height + 0.8), dpi=150, layout="constrained")
    panels = figure.subplots(height, WIDTH, squeeze=False).flatten()
    for axes in panels[len(tasks) :]:
        axes.set_visible(False)
    for axes, task in zip(panels, tasks, strict=False):
        _panel(axes, [cell for cell in cells if cell.task == task])
    title = "Loss at the end, beside AdamW's with three rates tuned, by bytes of state"
    figure.suptitle(title, x=0.012, ha="left", fontsize=14)
    figure.supxlabel(subtitle, x=0.012, ha="left", fontsize=8.5, color="#666666")
    figure.savefig(path)


def _panel(axes: Axes, cells: Sequence[Cell]) -> None:
    axes.axhline(0, color=COLOURS[0], linewidth=0.8)
    ours = sorted((c for c in cells if c.optimizer in OURS), key=lambda c: c.state_percent)
    axes.errorbar(
        [c.state_percent for c in ours],
        [min(c.percent, MOST) for c in ours],
        yerr=[0 if math.isnan(c.noise_percent) else c.noise_percent for c in ours],
        fmt="o-",
        color=COLOURS[1],
        markersize=4,
        capsize=2,
    )
    for cell in cells:
        if cell.optimizer in (ONE_RATE, *NAMED) and cell.optimizer != YARDSTICK:
            colour = COLOURS[0] if cell.optimizer == ONE_RATE else "#777777"
            at = (max(cell.state_percent, LEAST), min(cell.percent, MOST))
            axes.plot(*at, "s", color=colour, markersize=4)
            axes.annotate(cell.title + " ", at, fontsize=7, color=colour, ha="right", va="center")
    plotting.dress(axes)
    axes.set_xscale("log")
    axes.set_xlim(LEAST, 200)
    axes.set_xticks([1, 10, 100], ["1", "10", "100"])
    axes.minorticks_off()
    axes.set_title(f"{cells[0].task} ({cells[0].half})", fontsize=10, loc="left")
    axes.set_xlabel("state, % of AdamW's", fontsize=8)
    axes.set_ylabel("loss beside AdamW's, %", fontsize=8)
