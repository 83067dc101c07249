"""Products of matrices and orthogonalization beside torch's, with the same bits everywhere.

    python bench/matmul.py [--threads 1 2] [--isa ...] [--only product ...] [--json out.json]

Torch, the variant and torch take turns in one process; pairs whose two torch times differ by more
than 8 % are dropped. The ratio is torch's time over the variant's: above 1 the variant is faster.

    product          A B, beside torch.mm
    symmetric        A A^T, of which half is computed, beside torch.mm
    muon 5           the polynomial of torch.optim.Muon, five times, beside the same in float32 with
                     torch.mm
    polar express n  n iterations of Polar Express, beside the same

GFLOP/s count what is needed of a product: for a symmetric one half; for an orthogonalization what
the usual iteration takes, 2 m (2 m n + m^2) for an m x n matrix, so that they may exceed the peak.
The peak is that of multiplications and additions apart, which bench/multiply_add.cpp measures on
registers alone: the products use no fused multiply-add, because not every CPU has one.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cosmic import _core
from shared.harness import machine, paired, print_table, write_json

PRODUCTS = ((128, 128, 128), (256, 256, 256), (768, 768, 768), (768, 768, 3072))
SYMMETRIC = ((128, 128), (128, 512), (768, 768), (768, 3072))
MATRICES = ((128, 128), (128, 512), (768, 768), (768, 2304), (768, 3072))
STEPS = {
    "muon 5": _core.muon_quintic(5),
    **{f"polar express {n}": _core.polar_express(n) for n in (3, 4, 5)},
}
#: Seconds that a measured stretch takes at least.
STRETCH = 0.01


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    what: str
    size: str
    isa: str
    threads: int
    ratio: float
    pairs: int
    ms: float
    torch_ms: float
    gflops: float
    of_peak: float


def peaks(isas: Sequence[str]) -> dict[str, float]:
    """GFLOP/s of one core."""
    source = Path(__file__).with_name("multiply_add.cpp")
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder) / "multiply_add.so"
        compiler = os.environ.get("CXX", "c++")
        flags = ["-std=c++17", "-O2", "-ffp-contract=off", "-Wno-psabi", "-shared", "-fPIC"]
        subprocess.run([compiler, *flags, source, "-o", built], check=True)
        library = ctypes.CDLL(str(built))
    return {isa: peak(library[f"multiply_add_{isa}"]) for isa in isas}


def peak(function: Callable[..., int], rounds: int = 100_000, repeat: int = 50) -> float:
    numbers = (ctypes.c_float * 13)()
    function.restype = ctypes.c_int64  # type: ignore[attr-defined]
    best = 0.0
    for _ in range(repeat):
        start = time.perf_counter()
        done = function(ctypes.c_int64(rounds), numbers)
        best = max(best, done / (time.perf_counter() - start) * 1e-9)
    return best


class Bench:
    def __init__(self, isa: str, threads: int, peak: float, pairs: int) -> None:
        self.isa, self.threads, self.peak, self.pairs = isa, threads, peak * threads, pairs

    def row(
        self,
        what: str,
        sizes: Sequence[int],
        flops: float,
        theirs: Callable[[], object],
        ours: Callable[[], object],
    ) -> Row:
        ours(), theirs()
        start = time.perf_counter()
        theirs()
        repeat = max(1, int(STRETCH / (time.perf_counter() - start)))
        found = paired(theirs, ours, pairs=self.pairs, repeat=repeat)
        gflops = flops / found.variant * 1e-9
        return Row(
            what=what,
            size=" x ".join(map(str, sizes)),
            isa=self.isa,
            threads=self.threads,
            ratio=1 / found.ratio,
            pairs=found.pairs,
            ms=found.variant * 1e3,
            torch_ms=found.torch * 1e3,
            gflops=gflops,
            of_peak=gflops / self.peak,
        )

    def product(self, m: int, k: int, n: int) -> Row:
        a, b, out = torch.randn(m, k), torch.randn(k, n), torch.empty(m, n)
        return self.row(
            "product",
            (m, k, n),
            2 * m * k * n,
            lambda: torch.mm(a, b, out=out),
            lambda: _core.matmul(a, b, out, self.threads, self.isa),
        )

    def symmetric(self, m: int, k: int) -> Row:
        a, out = torch.randn(m, k), torch.empty(m, m)
        return self.row(
            "symmetric",
            (m, k),
            m * (m + 1) * k,
            lambda: torch.mm(a, a.T, out=out),
            lambda: _core.symmetric_product(a, a.T, out, self.threads, self.isa),
        )

    def orthogonal(self, name: str, m: int, n: int) -> Row:
        steps, matrix = STEPS[name], torch.randn(m, n)
        inplace, norm = matrix.clone(), float(matrix.norm())
        return self.row(
            name,
            (m, n),
            len(steps) * 2 * m * (2 * m * n + m * m),
            lambda: newton_schulz(matrix, steps),
            lambda: _core.orthogonalize(inplace, steps, norm, 1e-7, 1.0, self.threads, self.isa),
        )


def newton_schulz(x: Tensor, steps: _core.NewtonSchulz) -> Tensor:
    """As torch.optim.Muon has it, in float32."""
    x = x / x.norm()
    for a, b, c in steps:
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


def measure(bench: Bench, only: Sequence[str]) -> list[Row]:
    rows = []
    if "product" in only:
        rows += [bench.product(*sizes) for sizes in PRODUCTS]
    if "symmetric" in only:
        rows += [bench.symmetric(*sizes) for sizes in SYMMETRIC]
    rows += [bench.orthogonal(name, *sizes) for name in STEPS if name in only for sizes in MATRICES]
    return rows


def main() -> None:
    available = _core.build_info()["isa_available"]
    wanted = [isa for isa in available if isa != "scalar"] or available
    kinds = ["product", "symmetric", *STEPS]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, nargs="*", default=[1, torch.get_num_threads()])
    parser.add_argument("--isa", nargs="*", choices=available, default=wanted)
    parser.add_argument("--only", nargs="*", choices=kinds, default=kinds, help="rows to measure")
    parser.add_argument("--pairs", type=int, default=15, help="pairs that must agree, a row")
    parser.add_argument("--json", help="file to write the table to")
    args = parser.parse_args()
    torch.manual_seed(0)
    of_core = peaks(args.isa)
    print({"cpu": machine()["cpu"], "torch": torch.__version__, "peak of a core": of_core})
    rows: list[Row] = []
    for threads in dict.fromkeys(args.threads):
        torch.set_num_threads(threads)
        for isa in args.isa:
            rows += measure(Bench(isa, threads, of_core[isa], args.pairs), args.only)
    print_table(
        rows,
        {
            "what": "", "size": "", "isa": "", "threads": "d", "ratio": ".2f", "pairs": "d",
            "ms": ".3f", "torch_ms": ".3f", "gflops": ".1f", "of_peak": ".2f",
        },
    )  # fmt: skip
    write_json(args.json, rows, peak_gflops=of_core)


if __name__ == "__main__":
    main()
