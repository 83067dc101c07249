"""What the benchmarks that train have in common: options, data, and what all runs share."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import peers
from cosmic.finetune import run as finetune
from cosmic.finetune.config import RunConfig
from cosmic.models.configs import load_config
from cosmic.train.machine import core_count
from shared.harness import machine
from shared.run_store import Store
from shared.tuning import Row, Tuning


def parser(description: str, out: str, **defaults: Any) -> argparse.ArgumentParser:
    """A parser of the shared options.

    Args:
        description: a module's docstring, of which the first line is taken.
        out: default folder of the results.
        defaults: of `lrs`, `factors`, `seeds`, `batch_size` and `model`.
    """
    made = argparse.ArgumentParser(description=description.splitlines()[0])
    add = made.add_argument
    add("--steps", type=int, default=400, help="default: %(default)s")
    add("--seeds", type=int, help="default: %(default)s")
    add("--lrs", type=float, nargs="+", help="learning rates of the grid")
    add("--factors", type=float, nargs="+", help="of the hidden matrices' rate")
    add("--batch-size", type=int, help="default: %(default)s")
    add("--jobs", type=int, default=core_count(), help="runs at a time; default: %(default)s")
    add("--model", help="default: %(default)s")
    add("--out", type=Path, default=Path(out), help="default: %(default)s")
    made.set_defaults(**defaults)
    return made


def present(names: Sequence[str]) -> list[str]:
    """The names without those of peers that are not installed, which are printed."""
    missing = [name for name in names if name in peers.absent()]
    if missing:
        print("peers not installed:", ", ".join(missing))
    return [name for name in dict.fromkeys(names) if name not in missing]


def prepare(args: argparse.Namespace) -> tuple[Store, Tuning]:
    """Tokens and earlier results in the folder of the results, and the grid."""
    args.out.mkdir(parents=True, exist_ok=True)
    base = shared(args)
    vocabulary = load_config(base.model, base.from_scratch).vocab_size
    finetune.silence_libraries()
    tokens = finetune.prepare_tokens(base, vocabulary, args.out / "cache")
    store = Store(args.out / "runs.jsonl", tokens.folder)
    return store, Tuning(args.lrs, args.factors, args.seeds, base)


def shared(args: argparse.Namespace) -> RunConfig:
    """What all runs have in common: `cosmic finetune`'s defaults."""
    return RunConfig(
        model=args.model,
        dataset="python-stdlib",
        steps=args.steps,
        batch_size=args.batch_size,
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


def subtitle(rows: Sequence[Row], base: RunConfig) -> str:
    """Sizes and machine, for below a picture."""
    about = machine()
    seeds = max((len(row.losses) for row in rows), default=0)
    return (
        f"{base.model} on {base.dataset}, {base.steps} steps of {base.batch_size} x "
        f"{base.block_size} tokens, {seeds} seeds   |   {about['cpu']}, torch {about['torch']}, "
        f"cosmic {about['cosmic']}"
    )
