"""The results of one run as a picture: losses, and what it held beside AdamW."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .drawing import COLOURS, GRID, LEGEND, bare, draw_bars, new_figure, save_figure, smooth

__all__ = ["draw_results"]

MB = 1e6


def draw_results(path: Path, results: Mapping[str, Any], title: str) -> None:
    """Write the PNG.

    Args:
        path: file to write.
        results: as ``Trainer.fit`` returns them.
        title: what was trained.
    """
    figure = new_figure(5.2, title)
    curves, memory = figure.subplots(1, 2, width_ratios=(1.45, 1))
    losses = results["train_losses"]
    window = max(1, len(losses) // 20)
    steps = np.arange(1, len(losses) + 1)
    curves.plot(steps, smooth(losses, window), color=COLOURS[1], label="training")
    if results["val_losses"]:
        curves.plot(
            results["val_steps"],
            results["val_losses"],
            color=COLOURS[2],
            marker="D",
            label="held out",
        )
    curves.set_title(f"Loss; training, mean of {window} steps", loc="left", fontsize=11)
    curves.set_xlabel("step")
    curves.grid(color=GRID, linewidth=0.7)
    if losses or results["val_losses"]:
        curves.legend(**LEGEND)
    bare(curves)
    rows = {
        "AdamW's state": results["adamw_bytes"],
        "state": results["state_bytes"],
        "gradients": results["gradient_bytes"],
        "activations": results["activation_bytes"] or 0,
        "weights": results["weight_bytes"],
    }
    colours = (COLOURS[0], *(COLOURS[1:2] * (len(rows) - 1)))
    draw_bars(memory, list(rows), colours, "Memory (MB)", [value / MB for value in rows.values()])
    save_figure(
        figure,
        path,
        f"{results['parameters']:,} parameters, {results['steps']} steps, "
        f"{results['total_time_min']:.1f} min",
    )
