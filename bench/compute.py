"""Time of one step where memory does not bind: a matrix in cache, on one thread, beside torch's.

    python bench/compute.py [--numel 32768] [--pairs 31] [--isa ...] [--only ...] [--json out.json]

Parameter, gradients and state of one matrix lie in the second cache, so that a step is nothing but
instructions. Each instruction set has a process of its own (COSMIC_ISA), in which torch, the
variant and torch take turns; pairs whose two torch times differ by more than 8 % are dropped. What
a call costs is no part of it: of every time that of a step of one block, 128 elements, is taken
away, which is measured in the same turn. Torch's instruction set is what ATEN_CPU_CAPABILITY says.

The bound is what a core's one divider allows, as if nothing else took time: a row's quotients and
roots an element over torch's, which are two and one. A root counts for 5/3 quotients, as Zen 4 has
it (3 cycles for a quotient of eight floats, 5 for a root). A row that is far above its bound waits
for its other instructions.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from cosmic import Cosmic, _core
from cosmic.presets import TurboAdam
from shared.harness import AGREEMENT, machine, print_table, seconds, write_json

COLUMNS = 256
EMPTY = 128  # elements: one block
#: Steps of a turn, of which the median counts: what else the machine does spoils some of them.
REPEAT = 25
#: Of the divider's time, in quotients.
ROOT, TORCH = 5 / 3, 5 / 3 + 2


@dataclass(frozen=True)
class Variant:
    """A step: options of Cosmic, or of the preset that they name, the parameter's dtype, and the
    quotients and roots that it takes an element."""

    options: dict[str, Any]
    dtype: torch.dtype = torch.float32
    quotients: float = 1
    roots: float = 1


VARIANTS: dict[str, Variant] = {
    "tier0": Variant({"tier": 0}, quotients=0, roots=0),
    "tier1:factored": Variant({"rung": "tier1:factored"}),
    **{
        f"tier2:{state}": Variant({"state_dtype": state})
        for state in ("fp32+fp32", "bf16+bf16", "q8+q8", "u4+v4", "u4+factored", "u2+factored")
    },
    "TurboAdam": Variant({"preset": TurboAdam}),
    "TurboAdam v4": Variant({"preset": TurboAdam, "v_codec": "v4"}),
    **{
        f"tier2:{state} bf16": Variant({"state_dtype": state}, torch.bfloat16)
        for state in ("fp32+fp32", "u4+v4", "u4+factored")
    },
}


@dataclass(frozen=True)
class Row:
    """One line of the table; torch steps parameters in float32."""

    name: str
    isa: str
    ratio: float
    bound: float
    pairs: int
    ns_per_param: float
    torch_ns_per_param: float


def made(numel: int, dtype: torch.dtype) -> torch.nn.Parameter:
    columns = min(COLUMNS, numel)
    return torch.nn.Parameter(torch.randn(numel // columns, columns).to(dtype))


def step_of(make: Callable[..., Any], numel: int, dtype: torch.dtype) -> Callable[[], Any]:
    """A step of a matrix, with two gradients that take turns."""
    param = made(numel, dtype)
    turns = itertools.cycle([(torch.randn_like(param) * 1e-2) for _ in range(2)])
    optimizer = make([param])

    def step() -> None:
        param.grad = next(turns)
        optimizer.step()

    for _ in range(REPEAT):
        step()
    return step


def net(step: Callable[[], Any], empty: Callable[[], Any]) -> float:
    """Seconds of a step without those of a call."""
    whole, call = (statistics.median(seconds(f, 1) for _ in range(REPEAT)) for f in (step, empty))
    return whole - call


def measure(name: str, numel: int, pairs: int, tries: int = 8) -> Row:
    variant = VARIANTS[name]
    options = {"min_compress_size": 0, **variant.options}
    make = options.pop("preset", Cosmic)
    if make is TurboAdam:
        del options["min_compress_size"]

    def ours(params: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        optimizer: torch.optim.Optimizer = make(params, lr=1e-3, weight_decay=1e-2, **options)
        return optimizer

    def theirs(params: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.AdamW(params, lr=1e-3, weight_decay=1e-2, fused=True)

    torch.manual_seed(0)
    mine = [step_of(ours, size, variant.dtype) for size in (numel, EMPTY)]
    reference = [step_of(theirs, size, torch.float32) for size in (numel, EMPTY)]
    good: list[tuple[float, float]] = []
    every: list[tuple[float, float]] = []
    while len(good) < pairs and len(every) < pairs * tries:
        before = net(reference[0], reference[1])
        here = net(mine[0], mine[1])
        after = net(reference[0], reference[1])
        every.append((here, (before + after) / 2))
        if abs(before - after) <= AGREEMENT * every[-1][1]:
            good.append(every[-1])
    kept = good or every
    scale = 1e9 / (numel - EMPTY)
    return Row(
        name=name,
        isa=str(_core.build_info()["isa"]),
        ratio=statistics.median(v / r for v, r in kept),
        bound=(variant.quotients + ROOT * variant.roots) / TORCH,
        pairs=len(good),
        ns_per_param=statistics.median(v for v, _ in kept) * scale,
        torch_ns_per_param=statistics.median(r for _, r in kept) * scale,
    )


def in_child(isa: str, args: argparse.Namespace) -> list[Row]:
    """The rows of an instruction set, which a process chooses when it starts."""
    command = [sys.executable, __file__, "--child", "--numel", str(args.numel)]
    command += ["--pairs", str(args.pairs), "--only", *args.only]
    done = subprocess.run(
        command, env={**os.environ, "COSMIC_ISA": isa}, check=True, stdout=subprocess.PIPE
    )
    return [Row(**row) for row in json.loads(done.stdout)]


def main() -> None:
    available = _core.build_info()["isa_available"]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--numel", type=int, default=32768, help="elements of the matrix")
    parser.add_argument("--pairs", type=int, default=31, help="pairs that must agree, a row")
    parser.add_argument("--isa", nargs="*", default=available, help="instruction sets")
    parser.add_argument(
        "--only", nargs="*", choices=list(VARIANTS), default=list(VARIANTS), help="rows to measure"
    )
    parser.add_argument("--json", help="file to write the table to")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.child:
        rows = [measure(name, args.numel, args.pairs) for name in args.only]
        print(json.dumps([asdict(row) for row in rows]))
        return
    about = {k: v for k, v in machine().items() if k in ("cpu", "torch")}
    print({**about, "torch_isa": torch.backends.cpu.get_cpu_capability()})
    rows = [row for isa in args.isa for row in in_child(isa, args)]
    print_table(
        rows,
        {
            "name": "", "isa": "", "ratio": ".3f", "bound": ".2f", "pairs": "d",
            "ns_per_param": ".3f", "torch_ns_per_param": ".3f",
        },
    )  # fmt: skip
    write_json(args.json, rows)


if __name__ == "__main__":
    main()
