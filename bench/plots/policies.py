"""The picture of bench/policies.py: a panel a budget, a line a policy, its loss along the line."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cosmic.train.drawing import COLOURS
from plots import plotting
from shared.policy_variants import RANDOM
from shared.tuning import Row

DRAW: dict[str, Any] = {"marker": "o", "markersize": 3.5, "color": COLOURS[5], "alpha": 0.9}


@dataclass(frozen=True)
class Panel:
    """One budget.

    Attributes:
        rows: by policy, the default first.
        margin: of noise, shaded around the default; nan if it is not known.
    """

    budget: str
    rows: Mapping[str, Row]
    margin: float


def draw(path: Path, shown: Sequence[Panel], subtitle: str) -> None:
    """Write the PNG: at least one panel, with sizes and machine below."""
    lines = _lines(shown)
    size = (2.2 + 2.9 * len(shown), 2.3 + 0.5 * len(lines))
    figure = Figure(figsize=size, dpi=150, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.1)  # type: ignore[union-attr, call-arg]
    panels = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    for axes, panel in zip(panels, shown, strict=True):
        _draw_panel(axes, panel, lines)
    panels[0].set_yticks(range(len(lines)), lines, fontsize=9.5)
    panels[0].set_ylim(len(lines) - 0.5, -0.5)
    about = (
        "validation loss, mean of seeds; bars: standard deviation; band: noise about the default; "
        "small dots: single draws"
    )
    figure.suptitle("Who gets the bytes", x=0.012, ha="left", fontsize=14)
    figure.supxlabel(f"{about}\n{subtitle}", x=0.012, ha="left", fontsize=8.5, color="#666666")
    figure.savefig(path)


def _lines(shown: Sequence[Panel]) -> list[str]:
    """Policies from the top down; the draws of the random one share its line."""
    names = [name for panel in shown for name in panel.rows]
    return [name for name in dict.fromkeys(names) if not _is_draw(name)]


def _is_draw(name: str) -> bool:
    return name.startswith(f"{RANDOM} ")


def _draw_panel(axes: Axes, panel: Panel, lines: Sequence[str]) -> None:
    zero, margin = next(iter(panel.rows.values())).loss, panel.margin
    if math.isfinite(margin) and math.isfinite(zero):
        axes.axvspan(zero - margin, zero + margin, color=COLOURS[1], alpha=0.13, linewidth=0)
    for name, row in panel.rows.items():
        if not math.isfinite(row.loss):
            continue
        if _is_draw(name):
            axes.plot([row.loss], [lines.index(RANDOM) + 0.22], **DRAW)
            continue
        place = lines.index(name)
        bar = 0.0 if math.isnan(row.deviation) else row.deviation
        colour = COLOURS[1 if place == 0 else 2]
        axes.errorbar(row.loss, place, xerr=bar, fmt="o", color=colour, markersize=6, capsize=3)
    axes.set_title(f"{panel.budget} of AdamW's state", loc="left", fontsize=11)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.margins(x=0.12)
    axes.tick_params(axis="y", length=0)
    plotting.dress(axes)
