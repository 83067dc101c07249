"""What pictures of losses and bytes have in common: colours, curves, bars."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # a file, never a window

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

__all__ = ["COLOURS", "GRID", "LEGEND", "bare", "draw_bars", "new_figure", "save_figure", "smooth"]

# Okabe and Ito's colours, told apart by colour-blind eyes too; the first is the yardstick's.
COLOURS = ("#444444", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
GRID = "#DDDDDD"
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


def new_figure(height: float, title: str) -> Figure:
    """An empty picture, 12.5 inches wide, under a title."""
    figure = Figure(figsize=(12.5, height), dpi=150, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.1)  # type: ignore[union-attr, call-arg]
    figure.suptitle(title, x=0.012, ha="left", fontsize=14, fontweight="bold")
    return figure


def save_figure(figure: Figure, path: Path, subtitle: str) -> None:
    """Write the PNG, with machine and sizes below."""
    figure.supxlabel(subtitle, x=0.012, ha="left", fontsize=8.5, color="#666666")
    figure.savefig(path)


def draw_bars(
    axes: Axes,
    names: Sequence[str],
    colours: Sequence[str],
    title: str,
    values: Sequence[float],
) -> None:
    """One bar a name, with its number."""
    places = range(len(names))
    bars = axes.barh(places, values, color=list(colours), height=0.68)
    axes.bar_label(bars, [_short(value) for value in values], padding=4, fontsize=9.5)
    axes.set_yticks(places, list(names), fontsize=9.5)
    axes.invert_yaxis()
    axes.set_xlim(0, max([*values, 1e-9]) * SPARE_ROOM)
    axes.set_title(title, loc="left", fontsize=11)
    axes.grid(axis="x", color=GRID, linewidth=0.7)
    axes.tick_params(axis="y", length=0)
    bare(axes)


def bare(axes: Axes) -> None:
    """No frame above and to the right; the grid below all else."""
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _short(value: float) -> str:
    """Three digits, whatever the size."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
