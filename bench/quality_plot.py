"""The picture of bench/quality.py: loss against state bits a parameter."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence, Set
from itertools import product
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text
from matplotlib.ticker import FixedLocator, FuncFormatter
from matplotlib.transforms import Bbox

from cosmic.finetune.plot import COLOURS, GRID

LEAST_BITS = 0.25  # drawn there: zero has no place on a logarithmic axis
ROOM = 0.6  # above AdamW's loss (or the best); what is worse is drawn at the upper edge
PADDING = 1.5  # pixels around a label
POINT = 9.0  # pixels around a point
STEM: dict[str, Any] = {"arrowstyle": "-", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3}


class Row(Protocol):
    """What the picture takes of a row."""

    @property
    def name(self) -> str: ...
    @property
    def loss(self) -> float: ...
    @property
    def deviation(self) -> float: ...
    @property
    def bits_per_param(self) -> float: ...


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
    ceiling = _ceiling(rows, zero)
    if zero:
        band = 0.0 if math.isnan(zero.deviation) else zero.deviation
        axes.axhspan(zero.loss - band, zero.loss + band, color=COLOURS[0], alpha=0.15, linewidth=0)
        axes.axhline(zero.loss, color=COLOURS[0], linewidth=0.8, alpha=0.6)
    labels, bars = [], []
    for row in sorted(rows, key=lambda row: row.loss):
        colour = COLOURS[0 if row.name == yardstick else 2 if row.name in others else 1]
        bars.append(0.0 if row.loss > ceiling or math.isnan(row.deviation) else row.deviation)
        labels.append(_point(axes, row, bars[-1], colour, ceiling))
    _dress(axes, rows, ceiling)
    figure.suptitle("Validation loss by optimizer state", x=0.012, ha="left", fontsize=14)
    figure.supxlabel(subtitle, x=0.012, ha="left", fontsize=8.5, color="#666666")
    figure.draw_without_rendering()  # settles the layout: labels are placed in pixels
    _place(axes, labels, bars)
    figure.savefig(path)


def _ceiling(rows: Sequence[Row], zero: Row | None) -> float:
    """The greatest loss that is drawn where it is."""
    limit = (zero.loss if zero else min(row.loss for row in rows)) + ROOM
    within = [row.loss for row in rows if row.loss <= limit]
    return max(within) + 0.15 * (max(within) - min(within)) + 1e-3


def _point(axes: Axes, row: Row, bar: float, colour: str, ceiling: float) -> Annotation:
    above = row.loss > ceiling
    at = (max(row.bits_per_param, LEAST_BITS), ceiling if above else row.loss)
    marker = "^" if above else "o"
    axes.errorbar(*at, yerr=bar, fmt=marker, color=colour, markersize=6, capsize=3, clip_on=False)
    shown = f"{row.loss:.2f}" if math.isfinite(row.loss) else "diverged"
    text = f"{row.name} ({shown})" if above else row.name
    return axes.annotate(
        text,
        at,
        xytext=(0, 0),
        textcoords="offset pixels",
        fontsize=8.5,
        color=colour,
        ha="left",
        va="center",
        arrowprops=STEM | {"color": colour},
    )


def _dress(axes: Axes, rows: Sequence[Row], ceiling: float) -> None:
    bits = [max(row.bits_per_param, LEAST_BITS) for row in rows]
    axes.set_xscale("log", base=2)
    axes.set_xlim(min(bits) / 1.5, max(bits) * 2.2)  # room for labels right of the last
    ticks = [2.0**power for power in range(-2, 9)]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.minorticks_off()
    axes.margins(y=0.08)
    if any(row.loss > ceiling for row in rows):
        axes.set_ylim(top=ceiling)
    axes.set_xlabel("optimizer state, bits a parameter")
    axes.set_ylabel("validation loss, mean of seeds; bars: standard deviation")
    axes.grid(color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _place(axes: Axes, labels: Sequence[Annotation], bars: Sequence[float]) -> None:
    """Move every label to the nearest place where it covers no point, error bar or other label."""
    taken = []
    for label, bar in zip(labels, bars, strict=True):
        (x, low), (_, high) = axes.transData.transform(
            [(label.xy[0], label.xy[1] - bar), (label.xy[0], label.xy[1] + bar)]
        )
        taken.append(Bbox.from_extents(x - POINT, low - POINT, x + POINT, high + POINT))
    whole = axes.figure.bbox
    for label in labels:
        box = Text.get_window_extent(label)  # of the text without its stem
        size = (box.width, box.height)
        for offset in _offsets(*size):
            label.set_position(offset)
            x, y = axes.transData.transform(label.xy) + np.asarray(offset)
            moved = Bbox.from_extents(
                x - PADDING, y - size[1] / 2 - PADDING, x + size[0] + PADDING, y + size[1] / 2
            )
            inside = whole.x0 < moved.x0 and moved.x1 < whole.x1 and moved.y0 > whole.y0
            if inside and not any(moved.overlaps(other) for other in taken):
                taken.append(moved)
                break


def _offsets(width: float, height: float) -> Iterator[tuple[float, float]]:
    """Places for a label's left end, seen from its point: rings, each one line further out."""
    yield 12.0, 0.0
    yield -12.0 - width, 0.0
    for ring, side in product(range(1, 40), (1, -1)):
        up = side * ring * height * 0.8
        for across in (12.0, -width / 2, -12.0 - width):
            yield across + 8.0 * min(ring, 6) * (across > 0), up
