"""The comparison as one picture: loss curves, state memory, optimizer time."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # a file, never a window

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

Row = Mapping[str, Any]

# Okabe and Ito's colours, told apart by colour-blind eyes too; the first is the yardstick's.
COLOURS = ("#444444", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
GRID = "#DDDDDD"
BROAD: dict[str, Any] = {"linewidth": 4.0, "alpha": 0.45}
NARROW: dict[str, Any] = {"linewidth": 1.6, "alpha": 0.95}
DIAMOND: dict[str, Any] = {
    **{"marker": "D", "markersize": 6.5, "markeredgecolor": "white", "linestyle": "none"},
    **{"clip_on": False, "zorder": 5},
}
LEGEND: dict[str, Any] = {
    **{"loc": "upper right", "framealpha": 0.95, "edgecolor": GRID, "alignment": "left"},
    **{"fontsize": 9.5, "title_fontsize": 9.5},
}
SPARE_ROOM = 1.22  # right of the longest bar, for its number


def smooth(losses: Sequence[float], window: int) -> NDArray[np.float64]:
    """Mean over the last `window` steps, over fewer where there are not as many yet."""
    total = np.concatenate([[0.0], np.cumsum(np.asarray(losses, dtype=np.float64))])
    end = np.arange(1, len(losses) + 1)
    start = np.maximum(0, end - window)
    mean: NDArray[np.float64] = (total[end] - total[start]) / (end - start)
    return mean


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
    figure = Figure(figsize=(12.5, height), dpi=150, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.1)  # type: ignore[union-attr, call-arg]
    figure.suptitle(title, x=0.012, ha="left", fontsize=14, fontweight="bold")
    grid = figure.add_gridspec(2, 2, width_ratios=(1.45, 1))
    curves = figure.add_subplot(grid[:, 0])
    memory, time = figure.add_subplot(grid[0, 1]), figure.add_subplot(grid[1, 1])
    _draw_curves(curves, rows, colours)
    _draw_bars(
        memory, rows, colours, "Optimizer state (MB)", [r["state_bytes"] / 1e6 for r in rows]
    )
    _draw_bars(
        time, rows, colours, "Optimizer step (ms, median)", [r["optimizer_ms"] for r in rows]
    )
    figure.supxlabel(subtitle, x=0.012, ha="left", fontsize=8.5, color="#666666")
    figure.savefig(path)


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
    _bare(axes)


def _draw_bars(
    axes: Axes, rows: Sequence[Row], colours: Sequence[str], title: str, values: Sequence[float]
) -> None:
    places = range(len(rows))
    bars = axes.barh(places, values, color=list(colours), height=0.68)
    axes.bar_label(bars, [_short(value) for value in values], padding=4, fontsize=9.5)
    axes.set_yticks(places, [str(row["optimizer"]) for row in rows], fontsize=9.5)
    axes.invert_yaxis()
    axes.set_xlim(0, max([*values, 1e-9]) * SPARE_ROOM)
    axes.set_title(title, loc="left", fontsize=11)
    axes.grid(axis="x", color=GRID, linewidth=0.7)
    axes.tick_params(axis="y", length=0)
    _bare(axes)


def _short(value: float) -> str:
    """Three digits, whatever the size."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _bare(axes: Axes) -> None:
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
