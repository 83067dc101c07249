"""Time of one step on one large tensor, beside torch.optim.AdamW(fused=True).

    python bench/step.py [--numel 50000000] [--pairs 15] [--json out.json]

Times are paired: torch, variant, torch, in one process; pairs whose two torch times differ by more
than 8 % are dropped, and the median ratio is printed with the number of pairs it rests on. The
floor is what memory traffic alone allows: bytes read and written for a parameter, over torch's.
The row `p.add_(g)` is torch's simplest kernel over the bytes that tiers 0 and 1 move: how near this
machine comes to that floor.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from cosmic import Cosmic, _core
from harness import machine, paired, print_table, write_json

YARDSTICK = "p.add_(g)"

#: Row name: (options of Cosmic, dtype of parameter and gradient).
VARIANTS: dict[str, tuple[dict[str, Any], torch.dtype]] = {
    "tier0": ({"tier": 0}, torch.float32),
    "tier1": ({"tier": 1}, torch.float32),
    "tier2:fp32+fp32": ({}, torch.float32),
    "tier2:fp32+fp32 gate": ({"gate": "snr"}, torch.float32),
    "tier2:bf16+bf16": ({"state_dtype": "bf16"}, torch.float32),
    "tier2:fp32+fp32+slow": ({"beta_slow": 0.9999}, torch.float32),
    "tier0 bf16": ({"tier": 0}, torch.bfloat16),
    "tier2:fp32+fp32 bf16": ({}, torch.bfloat16),
    YARDSTICK: ({}, torch.float32),
}


@dataclass(frozen=True)
class Row:
    """One line of the table; ``torch`` has parameters and gradients of the same dtype."""

    name: str
    isa: str
    threads: int
    param_dtype: str
    ratio: float
    pairs: int
    ns_per_param: float
    torch_ns_per_param: float
    bytes_per_param: float
    floor_ratio: float
    state_bits_per_param: float


def made(numel: int, dtype: torch.dtype) -> torch.nn.Parameter:
    param = torch.nn.Parameter(torch.randn(numel, dtype=dtype))
    param.grad = torch.randn(numel, dtype=dtype) * 1e-2
    return param


def adder(param: torch.nn.Parameter) -> Callable[[], Any]:
    values, gradient = param.detach(), param.grad
    assert gradient is not None
    return lambda: values.add_(gradient, alpha=-1e-9)


def measure(name: str, numel: int, pairs: int) -> Row:
    options, dtype = VARIANTS[name]
    torch.manual_seed(0)
    ours, theirs = made(numel, dtype), made(numel, dtype)
    optimizer = Cosmic([ours], lr=1e-3, weight_decay=1e-2, **options)
    reference = torch.optim.AdamW([theirs], lr=1e-3, weight_decay=1e-2, fused=True)
    step = adder(ours) if name == YARDSTICK else optimizer.step
    timed = paired(reference.step, step, pairs=pairs)
    # parameter read and written, gradient read, state read and written
    moved = dtype.itemsize * 3 + 2 * optimizer.state_bytes() / numel
    state = sum(t.nbytes for t in reference.state[theirs].values())
    torch_moved = dtype.itemsize * 3 + 2 * state / numel
    return Row(
        name=name,
        isa=str(_core.build_info()["isa"]),
        threads=torch.get_num_threads(),
        param_dtype=str(dtype).removeprefix("torch."),
        ratio=timed.ratio,
        pairs=timed.pairs,
        ns_per_param=timed.variant / numel * 1e9,
        torch_ns_per_param=timed.torch / numel * 1e9,
        bytes_per_param=moved,
        floor_ratio=moved / torch_moved,
        state_bits_per_param=optimizer.state_bytes() * 8 / numel,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--numel", type=int, default=50_000_000, help="elements of the tensor")
    parser.add_argument("--pairs", type=int, default=15, help="pairs that must agree, a row")
    parser.add_argument("--only", nargs="*", choices=list(VARIANTS), help="rows to measure")
    parser.add_argument("--json", help="file to write the table to")
    args = parser.parse_args()
    print({k: v for k, v in machine().items() if k in ("cpu", "threads", "torch", "isa")})
    rows = [measure(name, args.numel, args.pairs) for name in args.only or VARIANTS]
    print_table(
        rows,
        {
            "name": "", "param_dtype": "", "ratio": ".3f", "floor_ratio": ".3f", "pairs": "d",
            "ns_per_param": ".3f", "torch_ns_per_param": ".3f", "bytes_per_param": ".2f",
            "state_bits_per_param": ".2f",
        },
    )  # fmt: skip
    write_json(args.json, rows)


if __name__ == "__main__":
    main()
