"""Time of one step on many small tensors, beside torch.optim.AdamW(fused=True).

    python bench/small_tensors.py [--pairs 15] [--json out.json]

Small models spend their step in bookkeeping, not in arithmetic. Times are paired as in
bench/step.py. `--threshold` measures instead from which size on compressed state pays: the time of
a step with `u4+v4`, forced on every tensor, over that with `fp32`.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import torch

from cosmic import Cosmic, _core
from shared.harness import Paired, machine, paired, print_table, write_json

#: (number of tensors, elements of each, state). Matrices of 16 rows, where they are large enough.
CASES = [
    (12, 4096, "fp32"), (150, 1000, "fp32"), (500, 1000, "fp32"), (500, 8192, "fp32"),
    (12, 4096, "u4+v4"), (500, 8192, "u4+v4"), (500, 8192, "u4+factored"),
]  # fmt: skip
#: Elements of a tensor, for `--threshold`; as many tensors as make a million elements.
SIZES = (256, 512, 1024, 2048, 4096, 8192, 16384)
ROWS = 16


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
    shape = (ROWS, numel // ROWS) if numel % ROWS == 0 else (numel,)
    params = [torch.nn.Parameter(torch.randn(shape)) for _ in range(count)]
    for param in params:
        param.grad = torch.randn(shape) * 1e-2
    return params


def cosmic(count: int, numel: int, state: str, min_compress_size: int = 4096) -> Cosmic:
    return Cosmic(
        made(count, numel), lr=1e-3, weight_decay=1e-2, state_dtype=state,
        min_compress_size=min_compress_size,
    )  # fmt: skip


def measure(count: int, numel: int, state: str, pairs: int) -> Row:
    torch.manual_seed(0)
    optimizer = cosmic(count, numel, state)
    reference = torch.optim.AdamW(made(count, numel), lr=1e-3, weight_decay=1e-2, fused=True)
    timed = paired(reference.step, optimizer.step, pairs=pairs, repeat=20)
    return row(f"{count}x{numel} {state}", timed, optimizer, count * numel)


def measure_threshold(numel: int, pairs: int) -> Row:
    """As `measure`, with fp32 state in the place of torch."""
    torch.manual_seed(0)
    count = 1_000_000 // numel
    optimizer, reference = cosmic(count, numel, "u4+v4", 0), cosmic(count, numel, "fp32")
    timed = paired(reference.step, optimizer.step, pairs=pairs, repeat=20)
    return row(f"{count}x{numel} u4+v4 over fp32", timed, optimizer, count * numel)


def row(name: str, timed: Paired, optimizer: Cosmic, numel: int) -> Row:
    return Row(
        name=name,
        isa=str(_core.build_info()["isa"]),
        threads=torch.get_num_threads(),
        param_dtype="float32",
        ratio=timed.ratio,
        pairs=timed.pairs,
        us_per_step=timed.variant * 1e6,
        torch_us_per_step=timed.torch * 1e6,
        state_bits_per_param=optimizer.state_bytes() * 8 / numel,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=15, help="pairs that must agree, a row")
    parser.add_argument("--threshold", action="store_true", help="by size of a tensor")
    parser.add_argument("--json", help="file to write the table to")
    args = parser.parse_args()
    print({k: v for k, v in machine().items() if k in ("cpu", "threads", "torch", "isa")})
    if args.threshold:
        rows = [measure_threshold(numel, args.pairs) for numel in SIZES]
    else:
        rows = [measure(*case, args.pairs) for case in CASES]
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
