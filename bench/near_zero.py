"""What state next to nothing is worth: AXIOM's preset beside AdamW, in loss and in steps.

    python bench/near_zero.py [--task NAME ...] [--optimizer NAME ...] [--out runs/near_zero]
    python bench/near_zero.py --report    # the table of what has been trained

Tasks of the suite. Every optimizer, AdamW too, has one learning rate for all tensors, found by
descent on the suite's grid with the first seed, so that both neighbours of the best end higher;
then three seeds. The held-out data is looked at from half of the steps on, and where the mean
course of the seeds comes to a loss is interpolated. Finished runs are kept in OUT/runs.jsonl; each
trains on one thread.
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

from cosmic.capital.budget import ADAMW_BYTES
from shared.harness import machine, write_json
from suite.contestants import YARDSTICK, contestant
from suite.search import SEEDS, Found, at_one_rate, descend, found, start_of
from suite.store import Store
from suite.tasks import TASKS

DEFAULT_TASKS = ("recommender", "tabular-64", "gpt-4x64", "gpt-32x64")
OURS = ("axiom", "axiom 0.36%", "axiom 0.073%")
LOOKS = tuple(k / 20 for k in range(10, 20))

Course = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Row:
    """One optimizer on one task, at its best rate.

    Attributes:
        loss: mean over the seeds.
        deviation: their standard deviation.
        percent: above AdamW's loss; below is negative.
        state_percent: state, of AdamW's two fp32 moments.
        to_adamw: share of the steps after which it is at AdamW's last loss; nan: never.
        adamw_to: share after which AdamW is at its last loss; nan: never.
    """

    task: str
    optimizer: str
    rate: float
    tried: int
    losses: list[float]
    loss: float
    deviation: float
    percent: float
    state_bytes: int
    state_percent: float
    to_adamw: float
    adamw_to: float


def known(store: Store, task: str, name: str) -> Found | None:
    """The best point of one rate, with its repeats."""
    return at_one_rate(store, task) if name == YARDSTICK else found(store, task, name)


def tune_one_rate(store: Store, task: str, name: str) -> None:
    """Find the best rate, and repeat it with the other seeds."""
    best = descend(store, start_of(store, task, name), ("rate",))
    for seed in range(SEEDS):
        store.finish(replace(best, seed=seed))


def mean_course(best: Found) -> Course:
    """The mean over the seeds, as shares of the steps."""
    courses = [result.course for result in best.repeats.values()]
    steps = courses[0][-1][0]
    return [
        (points[0][0] / steps, statistics.fmean(loss for _, loss in points))
        for points in zip(*courses, strict=True)
    ]


def reached(course: Course, loss: float) -> float:
    """The share of the steps after which a course is at a loss; nan: not by the end."""
    before: tuple[float, float] | None = None
    for share, now in course:
        if now <= loss:
            if before is None:
                return share  # or earlier
            return before[0] + (share - before[0]) * (before[1] - loss) / (before[1] - now)
        before = share, now
    return math.nan


def row_of(task: str, name: str, mine: Found, adamw: Found) -> Row:
    losses = [result.loss for result in mine.repeats.values()]
    theirs = statistics.fmean(result.loss for result in adamw.repeats.values())
    loss, result = statistics.fmean(losses), mine.repeats[0]
    return Row(
        task=task,
        optimizer=contestant(name).title,
        rate=mine.best.rate,
        tried=mine.tried,
        losses=losses,
        loss=loss,
        deviation=statistics.stdev(losses),
        percent=100 * (loss / theirs - 1),
        state_bytes=result.state_bytes,
        state_percent=100 * result.state_bytes / (ADAMW_BYTES * result.parameters),
        to_adamw=reached(mean_course(mine), theirs),
        adamw_to=reached(mean_course(adamw), loss),
    )


def rows_of(store: Store, tasks: Sequence[str], names: Sequence[str]) -> list[Row]:
    """Of every optimizer that has all seeds on a task, as AdamW has."""
    out = []
    for task in tasks:
        adamw = known(store, task, YARDSTICK)
        if adamw is None or len(adamw.repeats) < SEEDS:
            continue
        for name in names:
            mine = known(store, task, name)
            if mine is not None and len(mine.repeats) == SEEDS:
                out.append(row_of(task, name, mine, adamw))
    return out


def share(x: float) -> str:
    if math.isnan(x):
        return "not by the end"
    return f"{100 * x:.0f} %" + (" or fewer" if x <= LOOKS[0] else "")


def markdown(rows: Sequence[Row]) -> list[str]:
    lines = [
        "| task | optimizer | rate | state | of AdamW's | loss | beside AdamW's | at AdamW's after "
        "| AdamW at this after |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        yardstick = r.optimizer == contestant(YARDSTICK).title
        beside = ["", "", ""] if yardstick else [
            f"{r.percent:+.1f} %", share(r.to_adamw), share(r.adamw_to)
        ]  # fmt: skip
        cells = [
            r.task, r.optimizer, f"{r.rate:g}", f"{r.state_bytes:,} B", f"{r.state_percent:.3g} %",
            f"{r.loss:.4f} ± {r.deviation:.4f}", *beside,
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def parse() -> argparse.Namespace:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--task", nargs="+", default=DEFAULT_TASKS, choices=TASKS, metavar="NAME")
    add("--optimizer", nargs="+", default=OURS, metavar="NAME", help="beside AdamW")
    add("--out", type=Path, default=Path("runs/near_zero"))
    add("--report", action="store_true", help="train nothing")
    return parser.parse_args()


def main() -> None:
    args = parse()
    torch.set_num_threads(1)
    os.environ.setdefault("COSMIC_BENCH_CACHE", str(args.out / "cache"))
    store, names = Store(args.out / "runs.jsonl", LOOKS), [YARDSTICK, *args.optimizer]
    if not args.report:
        for task in args.task:
            for name in names:
                tune_one_rate(store, task, name)
    rows = rows_of(store, args.task, names)
    about = machine()
    print(f"{about['cpu']}, torch {about['torch']}, cosmic {about['cosmic']}, one thread a run\n")
    print(*markdown(rows), sep="\n")
    write_json(str(args.out / "near_zero.json"), rows)


if __name__ == "__main__":
    main()
