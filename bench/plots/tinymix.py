"""The pictures of bench/tinymix.py: time of a step, and training loss by step."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from matplotlib.figure import Figure

from cosmic.train.drawing import COLOURS
from plots import plotting
from shared.harness import machine
from tiny.contestants import CONTESTANTS

DASHES = ("-", "--", ":")  # where colours are used up


class Row(Protocol):
    """What is drawn of one optimizer, as bench/tinymix.py has it."""

    @property
    def name(self) -> str: ...
    @property
    def step_ms(self) -> float: ...
    @property
    def optimizer_ms(self) -> float: ...
    @property
    def losses(self) -> list[float]: ...


def draw(folder: Path, rows: Sequence[Row]) -> None:
    """Write both PNGs."""
    folder.mkdir(parents=True, exist_ok=True)
    _times(rows).savefig(folder / "tinymix_times.png")
    _losses(rows).savefig(folder / "tinymix_losses.png")


def _figure(title: str) -> Figure:
    figure = Figure(figsize=(9, 5), dpi=150, layout="constrained")
    about = machine()
    figure.suptitle(title, x=0.012, ha="left", fontsize=13)
    subtitle = f"{about['cpu']}, {about['threads']} thread, torch {about['torch']}"
    figure.supxlabel(subtitle, x=0.012, ha="left", fontsize=8.5, color="#666666")
    return figure


def _times(rows: Sequence[Row]) -> Figure:
    figure = _figure("TinyMix: median of a step, and of that the optimizer")
    axes = figure.add_subplot()
    names = [row.name for row in rows]
    axes.barh(names, [row.step_ms for row in rows], color=COLOURS[6], label="whole step")
    colours = [COLOURS[1 if CONTESTANTS[name].ours else 0] for name in names]
    axes.barh(names, [row.optimizer_ms for row in rows], color=colours, height=0.45)
    for place, row in enumerate(rows):
        text = f" {row.step_ms:.2f}, optimizer {row.optimizer_ms:.2f}"
        axes.text(row.step_ms, place, text, va="center", fontsize=8)
    axes.set_xlim(right=1.35 * max(row.step_ms for row in rows))
    axes.invert_yaxis()
    axes.set_xlabel("ms")
    plotting.dress(axes)
    axes.grid(visible=False, axis="y")
    return figure


def _losses(rows: Sequence[Row]) -> Figure:
    figure = _figure("TinyMix: training loss of the one batch, nothing tuned")
    axes = figure.add_subplot()
    for number, row in enumerate(rows):
        dashes = DASHES[number // len(COLOURS) % len(DASHES)]
        colour = COLOURS[number % len(COLOURS)]
        label = f"{row.name} ({row.losses[-1]:.3f})"
        axes.plot(row.losses, color=colour, linestyle=dashes, linewidth=1.6, label=label)
    axes.set_xlabel("steps")
    axes.set_ylabel("mean squared error")
    plotting.dress(axes)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=8.5)
    return figure
