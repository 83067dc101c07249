"""The comparison as a table, as `results.json` and as `losses.csv`."""

import csv
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from cosmic.train.files import strict

Row = Mapping[str, Any]
MB = 1e6

FOOTNOTE = (
    "Losses are a mean per token: train over the last 20 steps, validation over held-out text; "
    "perplexity is exp(validation loss).\n"
    "Peak RSS is the most resident memory of the process from start to end; RSS in training is the "
    "most while training.\n"
    "RSS growth is the latter minus what was held right before the optimizer was made, when model, "
    "data and (unless they are\n"
    "released) the gradients of one pass were there already: state, activations, and what the C "
    "allocator keeps, which moves by\n"
    "some MB from run to run. 1 MB is 10^6 bytes."
)


def number(value: float, form: str) -> str:
    """A number for the table; "diverged" where a loss is no longer one."""
    return format(value, form) if math.isfinite(value) else "diverged"


COLUMNS: dict[str, Callable[[Row], str]] = {
    "optimizer": lambda row: str(row["optimizer"]),
    "train\nloss": lambda row: number(row["train_loss"], ".3f"),
    "validation\nloss": lambda row: number(row["validation_loss"], ".3f"),
    "perplexity": lambda row: number(row["perplexity"], ",.1f"),
    "time\ns": lambda row: number(row["seconds"], ",.1f"),
    "tokens/s": lambda row: number(row["tokens_per_second"], ",.0f"),
    "optimizer\nms/step": lambda row: number(row["optimizer_ms"], ",.2f"),
    "state\nMB": lambda row: number(row["state_bytes"] / MB, ",.2f"),
    "state\nbits/param": lambda row: number(row["state_bits_per_parameter"], ",.2f"),
    "RSS growth\nMB": lambda row: number(row["rss_growth_bytes"] / MB, ",.1f"),
    "RSS in\ntraining MB": lambda row: number(row["rss_peak_bytes"] / MB, ",.1f"),
    "peak RSS\nMB": lambda row: number(row["rss_process_peak_bytes"] / MB, ",.1f"),
}


def format_table(rows: Sequence[Row]) -> str:
    """The table and its footnote as plain text, never wrapped, whatever the terminal's width."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for title in COLUMNS:
        table.add_column(title, justify="left" if title == "optimizer" else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(show(row) for show in COLUMNS.values()))
    out = io.StringIO()
    console = Console(file=out, width=1000, color_system=None, force_terminal=False)
    console.print(table)
    lines = (line.rstrip() for line in out.getvalue().splitlines())
    return "\n".join(line for line in lines if line) + f"\n\n{FOOTNOTE}\n"


def write_results(
    path: Path,
    rows: Sequence[Row],
    *,
    machine: Mapping[str, Any],
    arguments: Mapping[str, Any],
    data: Mapping[str, Any],
) -> None:
    """Write `results.json`: machine, arguments, data, and one row an optimizer."""
    slim = [
        {key: value for key, value in row.items() if key not in ("losses", "machine")}
        for row in rows
    ]
    content = {"machine": machine, "arguments": arguments, "data": data, "rows": slim}
    path.write_text(json.dumps(strict(content), indent=2) + "\n", encoding="utf-8")


def write_losses(path: Path, rows: Sequence[Row]) -> None:
    """Write the training loss of every step: one column an optimizer."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["step", *(row["optimizer"] for row in rows)])
        curves = zip(*(row["losses"] for row in rows), strict=True)
        for step, losses in enumerate(curves, start=1):
            writer.writerow([step, *(f"{loss:.6g}" for loss in losses)])
