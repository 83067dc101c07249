"""The picture of bench/quality.py: loss against state bits a parameter."""

from __future__ import annotations

import math
from collections.abc import Sequence, Set
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter

from cosmic.train.drawing import COLOURS
from plots import plotting
from shared.tuning import Row

LEAST_BITS = 0.25  # drawn there: zero has no place on a logarithmic axis
ROOM = 0.6  # above AdamW's loss (or the best); what is worse is drawn at the upper edge


def draw(path: Path, rows: Sequence[Row], yardstick: str, others: Set[str], subtitle: str) -> None:
    """Write the PNG.

    Args:
        path: file to write.
        rows: at least one with a finite loss.
        yardstick: name of the row whose band of one standard deviation is shaded.
        others: names in another colour.
        subtitle: sizes and machine.
    """
    figure = Figure(figsize=(11, 7), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    zero = next((row for row in rows if row.name == yardstick and math.isfinite(row.loss)), None)
    top = plotting.ceiling(rows, zero, ROOM)
    if zero:
        plotting.band(axes, zero)
    labels, bars = [], []
    for row in sorted(rows, key=lambda row: row.loss):
        colour = COLOURS[0 if row.name == yardstick else 2 if row.name in others else 1]
        bits = max(row.bits_per_param, LEAST_BITS)
        label, bar = plotting.point(axes, row, bits, row.name, colour, top)
        labels.append(label)
        bars.append(bar)
    _dress(axes, rows, top)
    figure.suptitle("Validation loss by optimizer state", x=0.012, ha="left", fontsize=14)
    figure.supxlabel(subtitle, x=0.012, ha="left", fontsize=8.5, color="#666666")
    figure.draw_without_rendering()  # settles the layout: labels are placed in pixels
    plotting.place(axes, labels, bars)
    figure.savefig(path)


def _dress(axes: Axes, rows: Sequence[Row], top: float) -> None:
    bits = [max(row.bits_per_param, LEAST_BITS) for row in rows]
    axes.set_xscale("log", base=2)
    axes.set_xlim(min(bits) / 1.5, max(bits) * 2.2)  # room for labels right of the last
    ticks = [2.0**power for power in range(-2, 9)]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.minorticks_off()
    axes.margins(y=0.08)
    if any(row.loss > top for row in rows):
        axes.set_ylim(top=top)
    axes.set_xlabel("optimizer state, bits a parameter")
    axes.set_ylabel("validation loss, mean of seeds; bars: standard deviation")
    plotting.dress(axes)
