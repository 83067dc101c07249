"""The picture of bench/noise.py: grokking curves, and accuracy by learning rate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cosmic.train.drawing import COLOURS
from noisy.compare import Row
from noisy.optimizers import COMPRESSED, OPTIMIZERS
from noisy.tasks import DIGITS, GRADIENTS, GROKKING, LABELS
from plots import plotting
from shared.harness import machine

STYLE: dict[str, dict[str, Any]] = {
    name: {"color": colour, "linestyle": (0, (4, 2)) if name == COMPRESSED else "-"}
    for name, colour in zip(OPTIMIZERS, COLOURS, strict=False)
}


def draw(path: Path, rows: Sequence[Row]) -> None:
    """Write the PNG: what was not measured stays empty."""
    figure = Figure(figsize=(13, 8.4), dpi=130, layout="constrained")
    (common, tuned, labels), (gradients, digits, key) = figure.subplots(2, 3)
    _curves(common, rows, "common", "at the usual rate and weight decay")
    _curves(tuned, rows, "tuned", "each at its best point")
    for axes, task in ((labels, LABELS), (gradients, GRADIENTS), (digits, DIGITS)):
        _rates(axes, rows, task)
    key.set_axis_off()
    lines = [axes.get_legend_handles_labels() for axes in (common, labels, digits)]
    handles = {text: line for found in lines for line, text in zip(*found, strict=True)}
    key.legend(handles.values(), handles.keys(), loc="center left", frameon=False, fontsize=10.5)
    figure.suptitle("Clean test accuracy under noise", x=0.012, ha="left", fontsize=14)
    about = machine()
    subtitle = f"means of the seeds   |   {about['cpu']}, torch {about['torch']}"
    figure.supxlabel(subtitle, x=0.012, ha="left", fontsize=8.5, color="#666666")
    figure.savefig(path)


def _curves(axes: Axes, rows: Sequence[Row], point: str, title: str) -> None:
    for row in rows:
        if (row.task, row.point) != (GROKKING, point):
            continue
        steps, _, test = zip(*row.curve, strict=True)
        axes.plot(steps, test, label=row.optimizer, linewidth=1.8, **STYLE[row.optimizer])
    axes.set_title(f"{GROKKING},\n{title}", loc="left", fontsize=10)
    axes.set_xlabel("step")
    axes.set_ylim(0, 1)
    plotting.dress(axes)


def _rates(axes: Axes, rows: Sequence[Row], task: str) -> None:
    for row in rows:
        if (row.task, row.point) != (task, "common"):
            continue
        rates, tests = zip(*row.by_rate, strict=True)
        axes.plot(
            rates, tests, marker="o", markersize=4, label=row.optimizer, **STYLE[row.optimizer]
        )
    axes.set_title(task, loc="left", fontsize=10)
    axes.set_xscale("log")
    axes.set_xlabel("learning rate")
    axes.set_ylim(bottom=0)
    plotting.dress(axes)
