"""Batches of products whose bits are the same everywhere, beside torch.matmul.

    python bench/exact_products.py [--threads 1 2] [--isa ...] [--sums fp32 fp64] [--json out.json]

The products of training steps: of a layer of GPT-2's width and of a smaller one forward, of its
gradients backward, of attention's heads, and of GPT-2's head. Operands lie as autograd has them,
most of them transposed. Torch, the variant and torch take turns in one process; pairs whose two
torch times differ by more than 8 % are dropped. The ratio is the variant's time over torch's: below
1 the variant is faster. GFLOP/s count a multiplication and an addition each.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from cosmic import _core
from shared.harness import machine, paired, print_table, write_json

#: Seconds that a measured stretch takes at least.
STRETCH = 0.02


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    what: str
    size: str
    isa: str
    sums: str
    threads: int
    ratio: float
    pairs: int
    ms: float
    torch_ms: float
    gflops: float


def operands(with_head: bool) -> dict[str, tuple[Tensor, Tensor]]:
    """Pairs [batch, m, k], [batch, k, n]."""
    cases: dict[str, tuple[Tensor, Tensor]] = {}
    layers = [(2048, 320, 1280), (1024, 768, 3072)]
    if with_head:
        layers.append((1024, 768, 50257))
    for tokens, inside, outside in layers:
        x, weight = torch.randn(1, tokens, inside), torch.randn(1, outside, inside)
        grad = torch.randn(1, tokens, outside)
        cases[f"forward {inside} to {outside}"] = (x, weight.mT)
        cases[f"of weights {inside} to {outside}"] = (grad.mT, x)
        cases[f"of inputs {inside} to {outside}"] = (grad, weight)
    query, key, shares = (
        torch.randn(48, 256, 64),
        torch.randn(48, 256, 64),
        torch.rand(48, 256, 256),
    )
    cases["attention q k"] = (query, key.mT)
    cases["attention p v"] = (shares, key)
    cases["of attention's values"] = (shares.mT, key)
    return cases


def measure(a: Tensor, b: Tensor, what: str, how: tuple[str, str, int], pairs: int) -> Row:
    isa, sums, threads = how
    batch, m, k, n = *a.shape, b.shape[2]
    out = torch.empty(batch, m, n)

    def theirs() -> None:
        torch.matmul(a, b, out=out)

    def ours() -> None:
        _core.exact_product(a, b, out, None, sums, threads, isa)

    ours()
    theirs()
    start = time.perf_counter()
    theirs()
    repeat = max(1, int(STRETCH / (time.perf_counter() - start)))
    found = paired(theirs, ours, pairs=pairs, repeat=repeat)
    return Row(
        what=what,
        size=" x ".join(map(str, (batch, m, k, n))),
        isa=isa,
        sums=sums,
        threads=threads,
        ratio=found.ratio,
        pairs=found.pairs,
        ms=found.variant * 1e3,
        torch_ms=found.torch * 1e3,
        gflops=2e-9 * batch * m * k * n / found.variant,
    )


def main() -> None:
    available = _core.build_info()["isa_available"]
    wanted = [isa for isa in available if isa != "scalar"] or available
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, nargs="*", default=[1, torch.get_num_threads()])
    parser.add_argument("--isa", nargs="*", choices=available, default=wanted)
    parser.add_argument("--sums", nargs="*", choices=["fp32", "fp64"], default=["fp32", "fp64"])
    parser.add_argument("--head", action="store_true", help="and a head of 50,257 tokens")
    parser.add_argument("--pairs", type=int, default=15, help="pairs that must agree, a row")
    parser.add_argument("--json", help="file to write the table to")
    args = parser.parse_args()
    torch.manual_seed(0)
    print({"cpu": machine()["cpu"], "torch": torch.__version__})
    rows: list[Row] = []
    for threads in dict.fromkeys(args.threads):
        torch.set_num_threads(threads)
        for what, (a, b) in operands(args.head).items():
            for isa in args.isa:
                for sums in args.sums:
                    rows.append(measure(a, b, what, (isa, sums, threads), args.pairs))
    print_table(
        rows,
        {
            "what": "", "size": "", "isa": "", "sums": "", "threads": "d", "ratio": ".2f",
            "pairs": "d", "ms": ".3f", "torch_ms": ".3f", "gflops": ".1f",
        },
    )  # fmt: skip
    write_json(args.json, rows)


if __name__ == "__main__":
    main()
