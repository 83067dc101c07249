"""The plan as a picture: a bar a tensor, as wide as it is large and as high as its bits."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # a file, never a window

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from cosmic.cli.plan_text import bits
from cosmic.estimate import MemoryEstimate, TensorEstimate
from cosmic.train.drawing import GRID

# Okabe and Ito's colours, told apart by colour-blind eyes too
COLOURS = {"table": "#0072B2", "matrix": "#E69F00", "vector": "#009E73"}
TITLES = {"table": "embeddings and heads", "matrix": "hidden matrices", "vector": "vectors"}
LABELLED_SHARE = 0.035  # of all elements: narrower bars have no room for their name


def draw(path: Path, estimate: MemoryEstimate, title: str) -> None:
    """Write the PNG."""
    figure = Figure(figsize=(12.5, 5.2), dpi=150, layout="constrained")
    figure.suptitle(title, x=0.012, ha="left", fontsize=14, fontweight="bold")
    axes = figure.add_subplot()
    _draw_bars(axes, estimate.tensors)
    share = estimate.state_bytes / max(estimate.adamw_bytes, 1)
    axes.set_title(
        f"{estimate.state_bytes / 1e6:,.2f} MB of state, {share:.2%} of AdamW's",
        loc="left", fontsize=11,
    )  # fmt: skip
    axes.set_ylabel("bits of state a parameter")
    axes.set_xlabel("parameters of the model, in order")
    axes.grid(axis="y", color=GRID)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    shown = dict.fromkeys(tensor.role for tensor in estimate.tensors)
    axes.legend(
        handles=[Patch(color=COLOURS[role], label=TITLES[role]) for role in shown],
        edgecolor=GRID, loc="upper right",
    )  # fmt: skip
    figure.savefig(path)


def _draw_bars(axes: Axes, tensors: list[TensorEstimate]) -> None:
    widths = [torch.Size(tensor.shape).numel() for tensor in tensors]
    # a few bits of a small vector would make everything else flat
    matrices = [bits(t) for t in tensors if t.role != "vector"] or [bits(t) for t in tensors]
    top = max([*matrices, 0.5]) * 1.25
    left = 0
    for tensor, width in zip(tensors, widths, strict=True):
        height = min(bits(tensor), top)
        axes.bar(
            left, height, width, align="edge", color=COLOURS[tensor.role],
            edgecolor="white", linewidth=0.4,
        )  # fmt: skip
        if width > LABELLED_SHARE * sum(widths):
            axes.text(
                left + width / 2, height + top * 0.012, f"{tensor.name}\n{tensor.rung}",
                ha="center", va="bottom", fontsize=6.5, rotation=90,
            )  # fmt: skip
        left += width
    axes.set_xlim(0, max(left, 1))
    axes.set_ylim(0, top * 1.35)
