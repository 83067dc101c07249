"""A linear layer in bfloat16, forward and backward: torch's products beside `fp32_products`.

    python bench/products.py [--rows 10240] [--columns 2560] [--tokens 64 256] [--rounds 3]

Seconds of one layer, the shortest of the rounds, in which the three take turns; the same layer in
float32 stands beside them.
"""

from __future__ import annotations

import argparse
import time
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from cosmic import fp32_products
from cosmic.products import native_products
from shared.harness import machine, print_table


@dataclass(frozen=True)
class Row:
    """One line of the table: seconds."""

    tokens: int
    layer: str
    forward: float
    backward: float


def step_seconds(layer: nn.Linear, tokens: int, context: Any) -> tuple[float, float]:
    """Seconds of forward and of backward, gradients of inputs and weights."""
    x = torch.randn(1, tokens, layer.in_features, dtype=layer.weight.dtype, requires_grad=True)
    with context:
        start = time.perf_counter()
        out = layer(x)
        middle = time.perf_counter()
        out.backward(torch.ones_like(out))
        end = time.perf_counter()
    layer.weight.grad = None
    return middle - start, end - middle


def measure(rows: int, columns: int, tokens: int, rounds: int) -> list[Row]:
    """One line of the table a way."""
    half = nn.Linear(columns, rows, bias=False, dtype=torch.bfloat16)
    whole = nn.Linear(columns, rows, bias=False)
    ways = (
        ("float32", whole, "never"),
        ("bfloat16, torch's products", half, "never"),
        ("bfloat16, fp32_products", half, "always"),
    )
    found: dict[str, list[tuple[float, float]]] = {name: [] for name, *_ in ways}
    for _ in range(rounds):
        for name, layer, when in ways:
            context = nullcontext() if when == "never" else fp32_products(when)
            found[name].append(step_seconds(layer, tokens, context))
    return [
        Row(tokens, name, min(a for a, _ in times), min(b for _, b in times))
        for name, times in found.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=10240)
    parser.add_argument("--columns", type=int, default=2560)
    parser.add_argument("--tokens", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    lines: list[Row] = []
    for tokens in arguments.tokens:
        lines += measure(arguments.rows, arguments.columns, tokens, arguments.rounds)
    print(machine(), "| torch has fast products of bfloat16 here:", native_products())
    print_table(lines, {"tokens": "d", "layer": "s", "forward": ".3f", "backward": ".3f"})


if __name__ == "__main__":
    main()
