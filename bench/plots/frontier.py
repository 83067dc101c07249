"""The picture of bench/frontier.py: loss against state, in percent of AdamW's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter

from cosmic.train.drawing import COLOURS
from plots import plotting
from shared.tuning import Row
from shared.variants import BUDGETED, YARDSTICK

ROOM = 0.05  # of AdamW's loss (or the best), above it; worse losses are drawn at the upper edge
LINEAR = 0.1  # percent: the axis is linear from zero to here, then logarithmic
TICKS = (0, 0.1, 0.3, 1, 3, 10, 30, 100)
LINE: dict[str, Any] = {"color": COLOURS[1], "linewidth": 1.6, "alpha": 0.8, "label": "COSMIC"}


def draw(path: Path, rows: Sequence[Row], subtitle: str) -> None:
    """Write the PNG.

    Args:
        path: file to write.
        rows: at least one with a finite loss.
        subtitle: sizes and machine.
    """
    figure = Figure(figsize=(11, 7), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    finite = [row for row in rows if math.isfinite(row.loss)]
    zero = next((row for row in finite if row.name == YARDSTICK), None)
    top = plotting.ceiling(rows, zero, ROOM * (zero or finite[0]).loss)
    lines = [plotting.band(axes, zero)] if zero else []
    cosmic = sorted((r for r in finite if _is_cosmic(r)), key=lambda row: row.state_bytes)
    lines += axes.plot([r.state_percent for r in cosmic], [r.loss for r in cosmic], **LINE)
    labels, bars = [], []
    for row in sorted(rows, key=lambda row: row.loss):
        colour = COLOURS[0 if row.name == YARDSTICK else 1 if _is_cosmic(row) else 2]
        text = row.name.removeprefix(BUDGETED)
        label, bar = plotting.point(axes, row, row.state_percent, text, colour, top)
        labels.append(label)
        bars.append(bar)
    _dress(axes, rows, zero, top)
    figure.suptitle("Validation loss by bytes of optimizer state", x=0.012, ha="left", fontsize=14)
    figure.supxlabel(subtitle, x=0.012, ha="left", fontsize=8.5, color="#666666")
    figure.draw_without_rendering()  # settles the layout: labels are placed in pixels
    plotting.place(axes, labels, bars, lines)
    figure.savefig(path)


def _is_cosmic(row: Row) -> bool:
    return row.name.startswith(BUDGETED)


def _dress(axes: Axes, rows: Sequence[Row], zero: Row | None, top: float) -> None:
    axes.set_xscale("symlog", linthresh=LINEAR, linscale=0.5)
    axes.set_xlim(-LINEAR / 10, max(row.state_percent for row in rows) * 2.5)
    axes.xaxis.set_major_locator(FixedLocator(TICKS))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} %"))
    axes.minorticks_off()
    drawn = [row for row in rows if row.loss <= top]
    low = min(row.loss - (0.0 if math.isnan(row.deviation) else row.deviation) for row in drawn)
    axes.set_ylim(low - 0.08 * (top - low), top)
    axes.set_xlabel("optimizer state, share of AdamW's bytes")
    axes.set_ylabel("validation loss, mean of seeds; bars: standard deviation")
    plotting.dress(axes)
    axes.legend(loc="upper right", frameon=False)
    if zero:
        share = axes.twinx()
        share.set_ylim(*(100 * (loss / zero.loss - 1) for loss in axes.get_ylim()))
        share.set_ylabel("percent above AdamW")
        share.spines[["top", "right"]].set_visible(False)
