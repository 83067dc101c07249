"""What gates by norms, rule softsign and rates of tags bring: each alone, on and off, tuned alike.

    python bench/parts_worth.py                          # train what has no result yet, and report
    python bench/parts_worth.py --part trust --task tabular
    python bench/parts_worth.py --report                 # table and JSON of what is there

Small tasks of the suite's half "fit", of which constants may be fitted, one of them at two batch
sizes. Every contestant has one rate of one grid (factors of about three): three from its usual one
downward, with the first seed, and on from the best so far to either side as losses fall; then three
seeds. No weight decay: a gate does not scale it, so at the rates that a gate needs it would be
another one. Finished runs are kept in OUT/runs.jsonl; each trains on one thread.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from shared.harness import machine, write_json
from suite.search import RATES, SEEDS, Found, descend, found, start_of
from suite.store import Store
from suite.tasks import TASKS

SMALL = ("gpt-4x64", "tabular", "tabular-64", "digits-16")
DEFAULT = "default"
#: By what tables call it: the words of suite/contestants.py that follow `cosmic weight_decay=0`.
PARTS = {
    DEFAULT: "",
    "fp32": "state_dtype=fp32",
    "trust": "gate=trust",
    "trust, exact": "gate=trust exact=True",
    "agc 10": "gate=agc agc_clip=10",
    "agc 5": "gate=agc agc_clip=5",
    "clip_update 1": "clip_update=1.0",
    "softsign": "rule=softsign",
    "softsign + trust, exact": "rule=softsign gate=trust exact=True",
    "rates of tags": "tags",
}
FIRST = 3  # rates that are tried in any case: descent alone may start where all rates diverge
NOISE = 2.0  # standard errors of a difference; less means nothing


@dataclass(frozen=True)
class Row:
    """One contestant on one task.

    Attributes:
        rate: the best learning rate of the grid, with the first seed.
        tried: rates that were trained to find it.
        at_edge: whether no rate of the grid lies beyond it.
        losses: validation losses at it, by seed.
        loss: their mean.
        percent: of the default's loss, how much more; nan without it.
        noise_percent: of the default's loss, `NOISE` standard errors of the difference; nan of
            one seed.
        step_ms: of the optimizer, median of the runs, beside whatever else the machine did.
    """

    task: str
    batch: int
    part: str
    rate: float
    tried: int
    at_edge: bool
    losses: list[float]
    loss: float
    percent: float
    noise_percent: float
    step_ms: float


def name_of(part: str) -> str:
    """The contestant of a part, as the suite has it."""
    return f"cosmic weight_decay=0 {PARTS[part]}".rstrip()


def train(store: Store, task: str, part: str) -> None:
    """Find the best rate with the first seed, and repeat it with the others."""
    start = start_of(store, task, name_of(part))
    usual = RATES.index(start.rate)
    first = [replace(start, rate=rate) for rate in RATES[usual + 1 - FIRST : usual + 1]]
    best = descend(store, min(first, key=lambda run: store.finish(run).loss), ("rate",))
    for seed in range(1, SEEDS):
        store.finish(replace(best, seed=seed))


def rows(store: Store, tasks: Sequence[str]) -> list[Row]:
    """A row for every contestant on every task that has finished runs."""
    out: list[Row] = []
    for task in tasks:
        seen = {part: found(store, task, name_of(part)) for part in PARTS}
        base = seen[DEFAULT]
        out += [_row(task, part, x, base) for part, x in seen.items() if x is not None]
    return out


def _row(task: str, part: str, seen: Found, base: Found | None) -> Row:
    losses = [result.loss for result in seen.repeats.values()]
    zero = [result.loss for result in base.repeats.values()] if base else [math.nan]
    mean, theirs = statistics.fmean(losses), statistics.fmean(zero)
    error = math.sqrt(_square_error(losses) + _square_error(zero))
    return Row(
        task=task,
        batch=TASKS[task].batch,
        part=part,
        rate=seen.best.rate,
        tried=seen.tried,
        at_edge=seen.best.rate in (RATES[0], RATES[-1]),
        losses=losses,
        loss=mean,
        percent=100 * (mean / theirs - 1),
        noise_percent=100 * NOISE * error / theirs,
        step_ms=statistics.median(result.optimizer_ms for result in seen.repeats.values()),
    )


def _square_error(losses: Sequence[float]) -> float:
    """Of the mean of the losses; nan of one."""
    finite = len(losses) > 1 and all(map(math.isfinite, losses))
    return statistics.variance(losses) / len(losses) if finite else math.nan


def markdown(every: Sequence[Row]) -> list[str]:
    """A line a contestant, a column a task: loss, difference to the default, rate."""
    tasks = list(dict.fromkeys(row.task for row in every))
    lines = ["| | " + " | ".join(tasks) + " |", "|---" * (len(tasks) + 1) + "|"]
    for part in PARTS:
        mine = {row.task: row for row in every if row.part == part}
        if mine:
            cells = (_text(mine.get(task)) for task in tasks)
            lines.append(f"| {part} | " + " | ".join(cells) + " |")
    return lines


def _text(row: Row | None) -> str:
    if row is None:
        return ""
    if not math.isfinite(row.loss):
        return "diverged"
    seeds = "" if len(row.losses) > 1 else "*"
    beside = "" if row.part == DEFAULT else f"{row.percent:+.1f} "
    return f"{row.loss:.4g}{seeds} ({beside}± {row.noise_percent:.1f} %) at {row.rate:g}"


def parse() -> argparse.Namespace:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--task", nargs="+", default=list(SMALL), choices=TASKS, metavar="NAME", help=str(SMALL))
    add("--part", nargs="+", default=list(PARTS), choices=PARTS, metavar="PART", help=str([*PARTS]))
    add("--out", type=Path, default=Path("bench/runs/parts"), help="default: %(default)s")
    add("--report", action="store_true", help="train nothing; table of what is finished")
    return parser.parse_args()


def main() -> None:
    args = parse()
    torch.set_num_threads(1)
    os.environ.setdefault("COSMIC_BENCH_CACHE", str(args.out / "cache"))
    args.out.mkdir(parents=True, exist_ok=True)
    store = Store(args.out / "runs.jsonl")
    if not args.report:
        for part in args.part:
            for task in args.task:
                train(store, task, part)
    every = rows(store, args.task)
    about = machine()
    text = [
        f"{about['cpu']}, torch {about['torch']}, cosmic {about['cosmic']}, one thread a run", "",
        *markdown(every),
    ]  # fmt: skip
    (args.out / "parts.md").write_text("\n".join([*text, ""]))
    write_json(str(args.out / "parts.json"), every)
    print(*text, f"Table and numbers: {args.out}/", sep="\n")


if __name__ == "__main__":
    main()
