"""Validation loss of a small GPT-2 by optimizer and by what its state costs.

    python bench/quality.py [--only adamw u4+v4 ...] [--peers] [--jobs N] [--out runs/quality]

Every optimizer is tuned on the same grid: everything but the hidden matrices takes the learning
rate, the hidden matrices of the transformer's blocks that times a factor. All grid points are run
with the first seed, the best of them with the others; table and picture have the mean and the
standard deviation at that point over all seeds. The first seed's loss is the least of the grid,
which flatters every optimizer by about the same. A `*` says that the best point lies on the edge of
the grid: the optimizer may do better beyond it. Weights and batches depend on the seed alone.

Each run is a process of its own with one thread. A finished run is kept in OUT/runs.jsonl and not
run again, not after a change of the code either: give another --out then. Left there as well:
quality.json, quality.png.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peers
from cosmic.finetune import run as finetune
from cosmic.finetune.config import RunConfig
from cosmic.finetune.machine import core_count
from cosmic.finetune.models import load_config
from harness import machine, print_table, write_json
from quality_plot import draw
from quality_run import Run
from quality_store import Result, Store
from quality_variants import STATES, YARDSTICK, variant

LRS = (5e-3, 1e-2, 2e-2)
FACTORS = (0.03, 0.06, 0.12)


@dataclass(frozen=True)
class Row:
    """One optimizer at its best grid point; `difference` is to AdamW's loss, if it was run."""

    name: str
    version: str
    loss: float
    deviation: float
    difference: float
    lr: float
    factor: float
    edge: str
    bits_per_param: float
    step_ms: float
    losses: list[float]
    grid: list[tuple[float, float, float]]


@dataclass(frozen=True)
class Tuning:
    """The grid, the seeds and what every run shares (`base` has the first seed)."""

    lrs: Sequence[float]
    factors: Sequence[float]
    seeds: int
    base: RunConfig

    def grid(self, name: str) -> list[Run]:
        """Every grid point with the first seed."""
        scale = variant(name).lr_scale
        return [self.run(name, lr * scale, f, 0) for lr in self.lrs for f in self.factors]

    def repeats(self, best: Run) -> list[Run]:
        """A grid point with every seed."""
        return [self.run(best.variant, best.config.lr, best.factor, s) for s in range(self.seeds)]

    def run(self, name: str, lr: float, factor: float, seed: int) -> Run:
        return Run(name, factor, RunConfig(**self.base.to_dict() | {"lr": lr, "seed": seed}))

    def edge(self, best: Run) -> str:
        """A star if the best point has no neighbour on some side, of the sides that were tried."""
        lrs = [lr * variant(best.variant).lr_scale for lr in self.lrs]
        sides = ((best.config.lr, lrs), (best.factor, list(self.factors)))
        return "*" if any(len(t) > 1 and at in (min(t), max(t)) for at, t in sides) else ""


def loss_of(result: Result) -> float:
    """The validation loss; infinity where training diverged."""
    loss = float(result["validation_loss"])
    return loss if math.isfinite(loss) else math.inf


def finished(store: Store, runs: Sequence[Run]) -> list[Result] | None:
    """The results of all runs, or None if one is missing."""
    results = [result for run in runs if (result := store.get(run)) is not None]
    return results if len(results) == len(runs) else None


def best_point(store: Store, grid: Sequence[Run]) -> Run | None:
    """The grid point of the least loss; None if the grid is not finished."""
    results = finished(store, grid)
    if results is None:
        return None
    losses = [loss_of(result) for result in results]
    return grid[losses.index(min(losses))]


def summarize(name: str, store: Store, tuning: Tuning) -> Row | None:
    """The variant's row without its difference; None if it failed."""
    grid = tuning.grid(name)
    best = best_point(store, grid)
    results = finished(store, tuning.repeats(best)) if best else None
    if best is None or results is None:
        return None
    losses = [loss_of(result) for result in results]
    finite = len(losses) > 1 and all(map(math.isfinite, losses))
    points = [(r.config.lr, r.factor, loss_of(x)) for r in grid if (x := store.get(r))]
    return Row(
        name=name,
        version=variant(name).version,
        loss=statistics.fmean(losses),
        deviation=statistics.stdev(losses) if finite else math.nan,
        difference=math.nan,
        lr=best.config.lr,
        factor=best.factor,
        edge=tuning.edge(best),
        bits_per_param=float(results[0]["state_bits_per_parameter"]),
        step_ms=statistics.median(result["optimizer_ms"] for result in results),
        losses=losses,
        grid=points,
    )


def compare(names: Sequence[str], store: Store, tuning: Tuning, jobs: int) -> list[Row]:
    """Tune and repeat every variant; the rows of those that ran."""
    store.finish([run for name in names for run in tuning.grid(name)], jobs)
    best = [best_point(store, tuning.grid(name)) for name in names]
    store.finish([run for point in best if point for run in tuning.repeats(point)], jobs)
    rows = [row for name in names if (row := summarize(name, store, tuning))]
    zero = next((row.loss for row in rows if row.name == YARDSTICK), math.nan)
    return [Row(**vars(row) | {"difference": row.loss - zero}) for row in rows]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--steps", type=int, default=400, help="default: %(default)s")
    add("--seeds", type=int, default=3, help="default: %(default)s")
    add("--lrs", type=float, nargs="+", default=LRS, help="learning rates of the grid")
    add("--factors", type=float, nargs="+", default=FACTORS, help="of the hidden matrices' rate")
    add("--only", nargs="+", metavar="NAME", help="adamw, a state_dtype, or a peer's name")
    add("--peers", action="store_true", help="other packages' optimizers too, where installed")
    add("--jobs", type=int, default=core_count(), help="runs at a time; default: %(default)s")
    add("--model", default="tiny-gpt2", help="default: %(default)s")
    add("--out", type=Path, default=Path("runs/quality"), help="default: %(default)s")
    return parser.parse_args()


def chosen(args: argparse.Namespace) -> list[str]:
    """Names of the variants to compare."""
    names = list(dict.fromkeys(args.only or (YARDSTICK, *STATES)))
    if args.peers:
        names += [name for name in peers.PEERS if name not in names]
    if missing := [name for name in names if name in peers.absent()]:
        print("peers not installed:", ", ".join(missing))
    return [name for name in names if name not in missing]


def shared(args: argparse.Namespace) -> RunConfig:
    """What all runs have in common: `cosmic finetune`'s defaults."""
    return RunConfig(
        model=args.model,
        dataset="python-stdlib",
        steps=args.steps,
        batch_size=8,
        block_size=64,
        lr=args.lrs[0],
        weight_decay=0.01,
        warmup=min(100, args.steps // 10),
        eval_batches=32,
        seed=0,
        dtype="fp32",
        from_scratch=True,
        threads=1,
    )


def report(rows: Sequence[Row], failed: dict[str, str], base: RunConfig, out: Path) -> None:
    print()
    columns = {
        "name": "", "loss": ".4f", "deviation": ".4f", "difference": "+.4f", "lr": "g",
        "factor": "g", "edge": "", "bits_per_param": ".2f", "step_ms": ".2f",
    }  # fmt: skip
    print_table(rows, columns)
    for name, reason in failed.items():
        print(f"{name}: fails here: {reason}")
    write_json(str(out / "quality.json"), rows)
    about: dict[str, Any] = machine()
    seeds = max((len(row.losses) for row in rows), default=0)
    subtitle = (
        f"{base.model} on {base.dataset}, {base.steps} steps of {base.batch_size} x "
        f"{base.block_size} tokens, {seeds} seeds   |   {about['cpu']}, torch {about['torch']}, "
        f"cosmic {about['cosmic']}"
    )
    if any(math.isfinite(row.loss) for row in rows):
        draw(out / "quality.png", rows, YARDSTICK, frozenset(peers.PEERS), subtitle)
    print(f"\nPicture and numbers: {out}/")


def main() -> None:
    args = parse()
    args.out.mkdir(parents=True, exist_ok=True)
    base = shared(args)
    vocabulary = load_config(base.model, base.from_scratch).vocab_size
    finetune.silence_libraries()
    tokens = finetune.prepare_tokens(base, vocabulary, args.out / "cache")
    store = Store(args.out / "runs.jsonl", tokens.folder)
    tuning = Tuning(args.lrs, args.factors, args.seeds, base)
    rows = compare(chosen(args), store, tuning, args.jobs)
    report(rows, store.failed, base, args.out)


if __name__ == "__main__":
    main()
