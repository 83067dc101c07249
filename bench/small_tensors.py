"""Time of one step on many small tensors, beside torch.optim.AdamW(fused=True).

    python bench/small_tensors.py [--pairs 15] [--json out.json]

Small models spend their step in bookkeeping, not in arithmetic. Tier 2 with fp32 state, the
default. Times are paired as in bench/step.py.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import torch

from cosmic import Cosmic, _core
from harness import machine, paired, print_table, write_json

#: (number of tensors, elements of each).
SHAPES = [(12, 4096), (150, 1000), (500, 1000), (500, 8192)]


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    isa: str
    threads: int
    param_dtype: str
    ratio: float
    pairs: int
    us_per_step: float
    torch_us_per_step: float
    state_bits_per_param: float


def made(count: int, numel: int) -> list[torch.nn.Parameter]:
    params = [torch.nn.Parameter(torch.randn(numel)) for _ in range(count)]
    for param in params:
        param.grad = torch.randn(numel) * 1e-2
    return params


def measure(count: int, numel: int, pairs: int) -> Row:
    torch.manual_seed(0)
    optimizer = Cosmic(made(count, numel), lr=1e-3, weight_decay=1e-2)
    reference = torch.optim.AdamW(made(count, numel), lr=1e-3, weight_decay=1e-2, fused=True)
    timed = paired(reference.step, optimizer.step, pairs=pairs, repeat=20)
    return Row(
        name=f"{count}x{numel}",
        isa=str(_core.build_info()["isa"]),
        threads=torch.get_num_threads(),
        param_dtype="float32",
        ratio=timed.ratio,
        pairs=timed.pairs,
        us_per_step=timed.variant * 1e6,
        torch_us_per_step=timed.torch * 1e6,
        state_bits_per_param=optimizer.state_bytes() * 8 / (count * numel),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=15, help="pairs that must agree, a row")
    parser.add_argument("--json", help="file to write the table to")
    args = parser.parse_args()
    print({k: v for k, v in machine().items() if k in ("cpu", "threads", "torch", "isa")})
    rows = [measure(count, numel, args.pairs) for count, numel in SHAPES]
    print_table(
        rows,
        {
            "name": "", "ratio": ".3f", "pairs": "d", "us_per_step": ".0f",
            "torch_us_per_step": ".0f", "state_bits_per_param": ".1f",
        },
    )  # fmt: skip
    write_json(args.json, rows)


if __name__ == "__main__":
    main()
