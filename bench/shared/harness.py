"""What every benchmark shares: paired timing, the machine, the table and the JSON."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from cosmic import _core

#: Two torch times around a variant's that differ by more than this share spoil the pair: the
#: machine's memory changed its speed in between.
AGREEMENT = 0.08


@dataclass(frozen=True)
class Paired:
    """Median over the pairs that agree.

    Attributes:
        ratio: variant's time over torch's.
        pairs: how many pairs the ratio rests on.
        variant: seconds a step.
        torch: seconds a step.
    """

    ratio: float
    pairs: int
    variant: float
    torch: float


def seconds(
    step: Callable[[], Any], repeat: int, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Mean seconds of ``repeat`` steps in a row."""
    start = clock()
    for _ in range(repeat):
        step()
    return (clock() - start) / repeat


def paired(
    reference: Callable[[], Any],
    variant: Callable[[], Any],
    *,
    pairs: int,
    repeat: int = 1,
    tries: int = 6,
    clock: Callable[[], float] = time.perf_counter,
) -> Paired:
    """Time reference, variant, reference in turn until ``pairs`` pairs agree.

    Gives up after ``tries`` times as many attempts; then all attempts count, and ``pairs`` in the
    result is 0, which says that the machine was too restless.
    """
    for _ in range(2):
        seconds(reference, repeat, clock)
        seconds(variant, repeat, clock)
    good: list[tuple[float, float]] = []
    every: list[tuple[float, float]] = []
    while len(good) < pairs and len(every) < pairs * tries:
        before = seconds(reference, repeat, clock)
        mine = seconds(variant, repeat, clock)
        after = seconds(reference, repeat, clock)
        every.append((mine, (before + after) / 2))
        if abs(before - after) <= AGREEMENT * (before + after) / 2:
            good.append(every[-1])
    kept = good or every
    return Paired(
        statistics.median(v / r for v, r in kept),
        len(good),
        statistics.median(v for v, _ in kept),
        statistics.median(r for _, r in kept),
    )


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), cpu)
    info = _core.build_info()
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cosmic": info["version"],
        "isa": info["isa"],
        "isa_available": info["isa_available"],
        "compiler": info["compiler"],
    }


def print_table(rows: Sequence[Any], columns: dict[str, str]) -> None:
    """Print dataclass rows; ``columns`` maps a field to its format specification."""
    text = [[format(getattr(row, name), spec) for name, spec in columns.items()] for row in rows]
    widths = [max(map(len, column)) for column in zip(list(columns), *text, strict=True)]
    for line in [list(columns), *text]:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))


def write_json(path: str | None, rows: Sequence[Any], **more: Any) -> None:
    """Write machine, whatever else is given, and rows to ``path``, if there is one."""
    if path:
        report = {"machine": machine(), **more, "rows": [asdict(row) for row in rows]}
        Path(path).write_text(json.dumps(report, indent=2) + "\n")
