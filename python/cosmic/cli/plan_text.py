"""The plan as text: a table for people, JSON for programs."""

from __future__ import annotations

import argparse
import io
from typing import Any

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from cosmic.estimate import MemoryEstimate, TensorEstimate

MB = 1e6
NOTE = (
    "Weights are taken for fresh ones: what had been trained before is stepped by elements, within "
    "the same budget. 1 MB is 10^6 bytes."
)


def to_json(arguments: argparse.Namespace, estimate: MemoryEstimate, advice: str) -> dict[str, Any]:
    """The plan for programs; sizes in bytes."""
    return {
        "model": arguments.model,
        "budget": arguments.budget,
        "policy": arguments.policy,
        "roles": arguments.roles,
        "gate": arguments.gate,
        "matrix_rule": arguments.matrix_rule,
        "dtype": arguments.dtype,
        "weight_bytes": estimate.weight_bytes,
        "gradient_bytes": estimate.gradient_bytes,
        "state_bytes": estimate.state_bytes,
        "master_bytes": estimate.master_bytes,
        "adamw_bytes": estimate.adamw_bytes,
        "scratch_bytes": estimate.scratch_bytes,
        "largest_gradient_bytes": estimate.largest_gradient_bytes,
        "batch": estimate.batch,
        "activations": arguments.activations,
        "activation_bytes": estimate.activation_bytes,
        "loss_bytes": estimate.loss_bytes,
        "total_bytes": estimate.total_bytes,
        "fp16_gb": estimate.fp16_gb,
        "int8_gb": estimate.int8_gb,
        "recommendation": advice,
        "tensors": [
            {**tensor._asdict(), "bits_per_parameter": bits(tensor)} for tensor in estimate.tensors
        ],
    }


def bits(tensor: TensorEstimate) -> float:
    """Bits of state an element."""
    numel = torch.Size(tensor.shape).numel()
    return 8 * tensor.state_bytes / numel if numel else 0.0


def format_plan(estimate: MemoryEstimate, advice: str) -> str:
    """The table, the totals and the recommendation as plain text."""
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
    return (
        "\n".join(line for line in lines if line)
        + "\n\n"
        + _totals(estimate)
        + f"\n\n{advice}\n\n{NOTE}\n"
    )


def _totals(estimate: MemoryEstimate) -> str:
    numel = sum(torch.Size(t.shape).numel() for t in estimate.tensors)
    share = estimate.state_bytes / estimate.adamw_bytes if estimate.adamw_bytes else 0.0
    density = 8 * estimate.state_bytes / numel if numel else 0.0
    batch = estimate.batch and f"of {estimate.batch[0]} x {estimate.batch[1]} tokens"
    rows = [
        ("weights", estimate.weight_bytes, ""),
        ("  lower bits", estimate.master_bytes, "of weights in bf16"),
        ("gradients", estimate.gradient_bytes, ""),
        ("  the largest", estimate.largest_gradient_bytes, ""),
        ("state", estimate.state_bytes, f"{density:.3f} bits a parameter, {share:.2%} of AdamW's"),
        ("AdamW's state", estimate.adamw_bytes, "fp32 moments"),
        ("scratch", estimate.scratch_bytes, "of a step, for hidden matrices"),
        ("activations", estimate.activation_bytes, f"{batch}, saved for backward"),
        ("loss", estimate.loss_bytes, "logits and their gradients, while backward begins"),
        ("in all", estimate.total_bytes, "" if batch else "activations not counted"),
    ]
    rows = [
        row
        for row in rows
        if row[1] or row[0] not in ("  lower bits", "scratch", "activations", "loss")
    ]
    return "\n".join(
        f"{name:<14}{size / MB:>14,.3f} MB   {note}".rstrip() for name, size, note in rows
    )
