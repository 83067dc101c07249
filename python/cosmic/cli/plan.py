"""`cosmic plan`: what each tensor of a model would get of a budget, before anything is trained."""

from __future__ import annotations

import argparse
import io
import json
import sys
from pathlib import Path
from typing import Any

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from cosmic.estimate import MemoryEstimate, TensorEstimate, estimate_memory
from cosmic.finetune.config import DTYPES as DTYPE_NAMES
from cosmic.finetune.errors import UsageError
from cosmic.finetune.models import DTYPES, load_config, silence_transformers
from cosmic.finetune.optimizers import byte_budget

MB = 1e6
NOTE = (
    "Roles are those that shapes suggest; the gradients may correct them, within the same budget. "
    "1 MB is 10^6 bytes."
)


def run(arguments: argparse.Namespace) -> None:
    """Print the plan, and draw it if asked to.

    Raises:
        UsageError: for a model, a dtype or a budget that cannot be had.
    """
    if arguments.dtype not in DTYPE_NAMES:
        raise UsageError(f"--dtype must be one of {', '.join(DTYPE_NAMES)}, not {arguments.dtype}")
    if arguments.picture:
        _check_picture(arguments.picture)
    estimate = _estimate(arguments)
    if arguments.json:
        print(json.dumps(to_json(arguments, estimate), indent=2))
    else:
        sys.stdout.write(format_plan(estimate))
    if arguments.picture:
        from cosmic.cli.plan_picture import draw

        draw(arguments.picture, estimate, _title(arguments))
        if not arguments.json:
            print(f"\nPicture: {arguments.picture}")


def _estimate(arguments: argparse.Namespace) -> MemoryEstimate:
    silence_transformers()
    config = load_config(arguments.model, from_scratch=True)
    budget = None if arguments.budget is None else byte_budget(arguments.budget)
    try:
        return estimate_memory(
            config,
            budget,
            dtype=DTYPES[arguments.dtype],
            release_gradients=arguments.release_gradients,
            policy=arguments.policy,
            gate=arguments.gate,
        )
    except (TypeError, ValueError) as error:
        raise UsageError(str(error)) from error


def _check_picture(picture: Path) -> None:
    if not picture.resolve().parent.is_dir():
        raise UsageError(f"--picture {picture}: its folder does not exist")
    if picture.is_dir() or picture.suffix.lower() not in (".png", ".pdf", ".svg"):
        raise UsageError(f"--picture {picture}: expected a file ending in .png, .pdf or .svg")


def _title(arguments: argparse.Namespace) -> str:
    budget = arguments.budget or "nothing is lost"
    return f"{arguments.model}, budget: {budget}, policy: {arguments.policy}"


def to_json(arguments: argparse.Namespace, estimate: MemoryEstimate) -> dict[str, Any]:
    """The plan for programs; sizes in bytes."""
    return {
        "model": arguments.model,
        "budget": arguments.budget,
        "policy": arguments.policy,
        "gate": arguments.gate,
        "dtype": arguments.dtype,
        "weight_bytes": estimate.weight_bytes,
        "gradient_bytes": estimate.gradient_bytes,
        "state_bytes": estimate.state_bytes,
        "adamw_bytes": estimate.adamw_bytes,
        "total_bytes": estimate.total_bytes,
        "tensors": [
            {**tensor._asdict(), "bits_per_parameter": bits(tensor)} for tensor in estimate.tensors
        ],
    }


def bits(tensor: TensorEstimate) -> float:
    """Bits of state an element."""
    numel = torch.Size(tensor.shape).numel()
    return 8 * tensor.state_bytes / numel if numel else 0.0


def format_plan(estimate: MemoryEstimate) -> str:
    """The table and the totals as plain text."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for title in ("parameter", "shape", "role", "rung"):
        table.add_column(title, no_wrap=True)
    for title in ("bits/param", "bytes", "AdamW's bytes"):
        table.add_column(title, justify="right", no_wrap=True)
    for t in estimate.tensors:
        shape = " x ".join(map(str, t.shape)) or "1"
        numbers = (f"{bits(t):.3f}", f"{t.state_bytes:,}", f"{t.adamw_bytes:,}")
        table.add_row(t.name, shape, t.role, t.rung, *numbers)
    out = io.StringIO()
    Console(file=out, width=1000, color_system=None, force_terminal=False).print(table)
    lines = (line.rstrip() for line in out.getvalue().splitlines())
    return "\n".join(line for line in lines if line) + "\n\n" + _totals(estimate) + f"\n\n{NOTE}\n"


def _totals(estimate: MemoryEstimate) -> str:
    numel = sum(torch.Size(t.shape).numel() for t in estimate.tensors)
    share = estimate.state_bytes / estimate.adamw_bytes if estimate.adamw_bytes else 0.0
    density = 8 * estimate.state_bytes / numel if numel else 0.0
    rows = [
        ("weights", estimate.weight_bytes, ""),
        ("gradients", estimate.gradient_bytes, ""),
        ("state", estimate.state_bytes, f"{density:.3f} bits a parameter, {share:.2%} of AdamW's"),
        ("AdamW's state", estimate.adamw_bytes, "fp32 moments"),
        ("in all", estimate.total_bytes, "weights, gradients and state; activations not counted"),
    ]
    return "\n".join(
        f"{name:<14}{size / MB:>14,.3f} MB   {note}".rstrip() for name, size, note in rows
    )
