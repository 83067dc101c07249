"""Time of a step of GPT-2's hidden matrices by the rule muon, beside torch.optim.Muon.

    python bench/matrix_step.py [--layers 12] [--rounds 5] [--threads 2] [--json out.json]

The 48 hidden matrices of the GPT-2 of 124 million parameters, 85 million of these, as transformers
holds them (rows are inputs). In one process every row takes its turn, as many steps as its cadence
has, then forward and backward of the whole model on 4 x 128 tokens; ratios are medians over the
rounds, each of times of one round. `equal work`: as many iterations as torch takes, at each step.
Where the CPU has units for bfloat16, torch's iterations take them; ONEDNN_MAX_CPU_ISA=AVX512_CORE
shows it without. With fewer layers the step is measured on these and multiplied, which the table
says.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import transformers

import cosmic
from cosmic.models.configs import silence_transformers
from shared.harness import machine, print_table, seconds, write_json

LAYERS, WIDTH = 12, 768
SHAPES = ((WIDTH, 3 * WIDTH), (WIDTH, WIDTH), (WIDTH, 4 * WIDTH), (4 * WIDTH, WIDTH))
BATCH, TOKENS = 4, 128
TORCH, ADAMW, PASSES = "torch.optim.Muon", "torch.optim.AdamW", "forward and backward"
RUNG, ITERATIONS = "tier2:muon:m1", 5

#: Options of Cosmic's group by row.
VARIANTS: dict[str, dict[str, Any]] = {
    "equal work": {"ns_steps": ITERATIONS, "ns_coefficients": (3.4445, -4.7750, 2.0315)},
    "5 iterations": {"ns_steps": 5},
    "4 iterations": {"ns_steps": 4},
    "default: 3 iterations": {},
    "every 2nd step": {"matrix_every": 2},
    "every 4th step": {"matrix_every": 4},
    "2 blocks": {"matrix_blocks": 2},
    "4 blocks": {"matrix_blocks": 4},
}


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        ms: of a step of all layers, the mean over its cadence.
        ratio: to torch.optim.Muon's step.
        of_passes: the step over forward and backward.
        ns_per_param: of the hidden matrices.
    """

    name: str
    ms: float
    ratio: float
    of_passes: float
    ns_per_param: float
    rounds: int
    layers: int


def matrices(layers: int) -> list[torch.nn.Parameter]:
    """Hidden matrices with gradients; all optimizers step the same ones."""
    params = [torch.nn.Parameter(0.02 * torch.randn(s)) for _ in range(layers) for s in SHAPES]
    for param in params:
        param.grad = 1e-3 * torch.randn_like(param)
    return params


def steppers(params: list[torch.nn.Parameter], only: list[str]) -> dict[str, Callable[[], Any]]:
    """A step of each optimizer by row; rows that do not run here are left out, with a line."""
    adamw = torch.optim.AdamW(params, lr=1e-5, fused=True)
    muon = torch.optim.Muon(params, lr=1e-5, ns_steps=ITERATIONS, adjust_lr_fn="match_rms_adamw")
    made: dict[str, Callable[[], Any]] = {TORCH: muon.step, ADAMW: adamw.step}
    for name in only:
        try:
            group = {"params": params, "rung": RUNG, **VARIANTS[name]}
            made[name] = cosmic.Cosmic([group], lr=1e-5).step
        except (TypeError, ValueError) as error:
            print(f"{name}: fails here: {error}")
    return made


def passes() -> Callable[[], None]:
    """Forward and backward of the whole model, with random weights."""
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(use_cache=False))
    ids = torch.randint(0, model.config.vocab_size, (BATCH, TOKENS))

    def step() -> None:
        model.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()

    return step


def measure(steps: dict[str, Callable[[], Any]], rounds: int) -> list[dict[str, float]]:
    """Seconds of every row and of forward and backward, by round; the first one warms up."""
    through = passes()
    taken = []
    for number in range(rounds + 1):
        start = time.perf_counter()
        times = {
            name: seconds(step, VARIANTS.get(name, {}).get("matrix_every", 1))
            for name, step in steps.items()
        }
        taken.append(times | {PASSES: seconds(through, 1)})
        took = time.perf_counter() - start
        print(f"round {number} of {rounds}: {took:.0f} s", flush=True)
    return taken[1:]


def table(taken: list[dict[str, float]], layers: int) -> list[Row]:
    """The rows, of all layers; forward and backward is of the whole model as it is."""
    whole = LAYERS / layers
    numel = LAYERS * sum(rows * columns for rows, columns in SHAPES)

    def scaled(name: str, of_round: dict[str, float]) -> float:
        return of_round[name] * (1.0 if name == PASSES else whole)

    def row(name: str) -> Row:
        step = statistics.median(scaled(name, t) for t in taken)
        return Row(
            name=name,
            ms=step * 1e3,
            ratio=statistics.median(scaled(name, t) / scaled(TORCH, t) for t in taken),
            of_passes=statistics.median(scaled(name, t) / t[PASSES] for t in taken),
            ns_per_param=step / numel * 1e9,
            rounds=len(taken),
            layers=layers,
        )

    return [row(name) for name in taken[0]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=LAYERS, help="measured, of %(default)s")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=2, help="default: %(default)s")
    parser.add_argument(
        "--only", nargs="*", choices=list(VARIANTS), default=list(VARIANTS), help="Cosmic's rows"
    )
    parser.add_argument("--json", help="file to write the table to")
    args = parser.parse_args()
    if not 1 <= args.layers <= LAYERS:
        parser.error(f"--layers must be 1 to {LAYERS}")
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    silence_transformers()
    print({k: v for k, v in machine().items() if k in ("cpu", "threads", "torch", "isa")})
    rows = table(measure(steppers(matrices(args.layers), args.only), args.rounds), args.layers)
    print_table(
        rows,
        {"name": "", "ms": ".1f", "ratio": ".3f", "of_passes": ".3f", "ns_per_param": ".2f",
         "rounds": "d"},
    )  # fmt: skip
    if args.layers < LAYERS:
        print(f"steps: measured on {args.layers} layers, times {LAYERS / args.layers:g}")
    write_json(args.json, rows)


if __name__ == "__main__":
    main()
