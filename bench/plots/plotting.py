"""What the pictures of losses share: points with error bars, and labels that cover nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox

from cosmic.train.drawing import COLOURS, GRID
from shared.tuning import Row

PADDING = 1.5  # pixels around a label
POINT = 9.0  # pixels around a point
LINE_PARTS = 200  # boxes that a label must not touch, for each part of a line
STEM: dict[str, Any] = {"arrowstyle": "-", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3}


def ceiling(rows: Sequence[Row], zero: Row | None, room: float) -> float:
    """The greatest loss that is drawn where it is: `room` above the yardstick's, or the least."""
    limit = (zero.loss if zero else min(row.loss for row in rows)) + room
    within = [row.loss for row in rows if row.loss <= limit]
    return max(within) + 0.15 * (max(within) - min(within)) + 1e-3


def band(axes: Axes, zero: Row) -> Line2D:
    """The yardstick's loss as a line, and one standard deviation to either side of it."""
    half = 0.0 if math.isnan(zero.deviation) else zero.deviation
    axes.axhspan(zero.loss - half, zero.loss + half, color=COLOURS[0], alpha=0.15, linewidth=0)
    return axes.axhline(zero.loss, color=COLOURS[0], linewidth=0.8, alpha=0.6)


def point(
    axes: Axes, row: Row, x: float, text: str, colour: str, top: float
) -> tuple[Annotation, float]:
    """A row's point with its error bar, at the upper edge if its loss is above `top`.

    Returns:
        Its label, for `place`, and the half height of the error bar.
    """
    above = row.loss > top
    at = (x, top if above else row.loss)
    bar = 0.0 if above or math.isnan(row.deviation) else row.deviation
    marker = "^" if above else "o"
    axes.errorbar(*at, yerr=bar, fmt=marker, color=colour, markersize=6, capsize=3, clip_on=False)
    shown = f"{row.loss:.2f}" if math.isfinite(row.loss) else "diverged"
    label = axes.annotate(
        f"{text} ({shown})" if above else text,
        at,
        xytext=(0, 0),
        textcoords="offset pixels",
        fontsize=8.5,
        color=colour,
        ha="left",
        va="center",
        arrowprops=STEM | {"color": colour},
    )
    return label, bar


def dress(axes: Axes) -> None:
    """A grid behind what is drawn, and no frame."""
    axes.grid(color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def place(
    axes: Axes, labels: Sequence[Annotation], bars: Sequence[float], lines: Sequence[Line2D] = ()
) -> None:
    """Move every label to the nearest place where it covers no point, error bar, line or other
    label."""
    taken = [box for line in lines for box in _along(line)]
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


def _along(line: Line2D) -> Iterator[Bbox]:
    """Small boxes, close to each other, over a drawn line."""
    path = line.get_transform().transform_path(line.get_path()).interpolated(LINE_PARTS)
    for x, y in np.asarray(path.vertices):
        yield Bbox.from_extents(x - PADDING, y - PADDING, x + PADDING, y + PADDING)


def _offsets(width: float, height: float) -> Iterator[tuple[float, float]]:
    """Places for a label's left end, seen from its point: rings, each one line further out."""
    yield 12.0, 0.0
    yield -12.0 - width, 0.0
    for ring, side in product(range(1, 40), (1, -1)):
        up = side * ring * height * 0.8
        for across in (12.0, -width / 2, -12.0 - width):
            yield across + 8.0 * min(ring, 6) * (across > 0), up
