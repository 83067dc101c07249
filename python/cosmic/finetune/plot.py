"""The comparison as one picture: loss curves, state memory, optimizer time."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from cosmic.train.drawing import (
    COLOURS,
    GRID,
    LEGEND,
    bare,
    draw_bars,
    new_figure,
    save_figure,
    smooth,
)

Row = Mapping[str, Any]

BROAD: dict[str, Any] = {"linewidth": 4.0, "alpha": 0.45}
NARROW: dict[str, Any] = {"linewidth": 1.6, "alpha": 0.95}
DIAMOND: dict[str, Any] = {
    **{"marker": "D", "markersize": 6.5, "markeredgecolor": "white", "linestyle": "none"},
    **{"clip_on": False, "zorder": 5},
}


def draw(path: Path, rows: Sequence[Row], title: str, subtitle: str) -> None:
    """Write the PNG.

    Args:
        path: file to write.
        rows: rows of `results.json`, with `losses`.
        title: what was trained on what.
        subtitle: machine and sizes.
    """
    colours = [COLOURS[index % len(COLOURS)] for index in range(len(rows))]
    height = max(5.2, 2.6 + 0.62 * len(rows))
    figure = new_figure(height, title)
    grid = figure.add_gridspec(2, 2, width_ratios=(1.45, 1))
    curves = figure.add_subplot(grid[:, 0])
    memory, time = figure.add_subplot(grid[0, 1]), figure.add_subplot(grid[1, 1])
    _draw_curves(curves, rows, colours)
    names = [str(row["optimizer"]) for row in rows]
    for axes, bars, key, unit in (
        (memory, "Optimizer state (MB)", "state_bytes", 1e-6),
        (time, "Optimizer step (ms, median)", "optimizer_ms", 1.0),
    ):
        draw_bars(axes, names, colours, bars, [row[key] * unit for row in rows])
    save_figure(figure, path, subtitle)


def _draw_curves(axes: Axes, rows: Sequence[Row], colours: Sequence[str]) -> None:
    window = max(1, len(rows[0]["losses"]) // 20)
    floor, ceiling = math.inf, -math.inf
    for index, (row, colour) in enumerate(zip(rows, colours, strict=True)):
        losses = smooth(row["losses"], window)
        steps = np.arange(1, len(losses) + 1)
        # The first, the yardstick, is broad: what follows it closely does not hide it.
        axes.plot(steps, losses, color=colour, **(BROAD if index == 0 else NARROW))
        final = row["validation_loss"]
        shown = f"{final:.3f}" if math.isfinite(final) else "diverged"
        label = f"{shown}   {row['optimizer']}"
        axes.plot([steps[-1]], [final], color=colour, label=label, **DIAMOND)
        finite = [value for value in (*losses[window:], final) if math.isfinite(value)]
        floor, ceiling = min([floor, *finite]), max([ceiling, *finite])
    if floor < ceiling:
        margin = 0.06 * (ceiling - floor)
        axes.set_ylim(floor - margin, ceiling + margin)
    axes.set_xlim(0, len(rows[0]["losses"]))
    axes.set_title(f"Training loss, mean of {window} steps", loc="left", fontsize=11)
    axes.set_xlabel("step")
    axes.grid(color=GRID, linewidth=0.7)
    axes.legend(title="Validation loss at the end", **LEGEND)
    bare(axes)
