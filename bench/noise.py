"""Do gates on noisy gradients deliver what their authors publish?

    python bench/noise.py [--tasks TEXT ...] [--seeds N] [--jobs N] [--out runs/noise]

The published numbers are those of casmo-optimizer's repository: CASMO's one scalar for all
parameters, and its redesign in release 0.4, a factor for each coordinate. The tasks are smaller
ones of the same kind: addition modulo 97 with corrupted labels, a classifier of generated clusters
under five regimes, scikit-learn's digits with an imbalance of 100:1.

Every optimizer is measured twice: at one point that all have in common, the task's usual learning
rate and weight decay; and tuned, at its own best point of one grid that all share. What is held out
is clean and has two parts: one chooses the point, by the accuracy at the end of training, the other
is the test. Grokking is tuned with the first seed, everything else with all.

Each run has one thread. A finished run is kept in OUT/runs.jsonl and not run again, not after a
change of the code either: give another --out then. Left there as well: noise.json, noise.png.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from cosmic.train.machine import core_count
from noisy.compare import POINTS, Row, compare
from noisy.store import Store
from noisy.tasks import TASKS
from noisy.verdicts import CLAIMS, Claim, margin, verdict
from plots.noise import draw
from shared.harness import print_table, write_json

COLUMNS = {
    "task": "", "point": "", "optimizer": "", "test": ".3f", "deviation": ".3f", "best": ".3f",
    "train": ".3f", "memorized": ".3f", "rare": ".3f", "lr": "g", "weight_decay": "g", "edge": "",
}  # fmt: skip


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--tasks", nargs="+", metavar="TEXT", help="only those whose names have one of these")
    add("--seeds", type=int, default=5, help="of grokking at most 3; default: %(default)s")
    add("--jobs", type=int, default=core_count(), help="runs at a time; default: %(default)s")
    add("--out", type=Path, default=Path("runs/noise"), help="default: %(default)s")
    return parser.parse_args()


def judge(claim: Claim, rows: Sequence[Row]) -> list[str]:
    """The verdicts on one claim, at the common point and tuned."""
    lines = [f"{claim.task}: {claim.text}"]
    for point in POINTS:
        found = {r.optimizer: r for r in rows if (r.task, r.point) == (claim.task, point)}
        if not found:
            continue
        one, other = found[claim.optimizer], found[claim.other]
        noise = margin([row.tests for row in found.values()])
        lines.append(
            f"  {point}: {verdict(claim.wanted, one.test - other.test, noise).upper()}: "
            f"{claim.optimizer} {one.test:.3f}, {claim.other} {other.test:.3f}, "
            f"margin of noise {noise:.3f}"
        )
    return lines


def main() -> None:
    args = parse()
    args.out.mkdir(parents=True, exist_ok=True)
    store = Store(args.out / "runs.jsonl")
    chosen = [n for n in TASKS if not args.tasks or any(text in n for text in args.tasks)]
    if not chosen:
        raise SystemExit(f"no task has any of {args.tasks} in its name; there are {list(TASKS)}")
    rows = [row for name in chosen for row in compare(name, store, args.seeds, args.jobs)]
    print()
    print_table(rows, COLUMNS)
    verdicts = [line for claim in CLAIMS if claim.task in chosen for line in judge(claim, rows)]
    print("", *verdicts, sep="\n")
    write_json(str(args.out / "noise.json"), rows, verdicts=verdicts)
    draw(args.out / "noise.png", rows)
    print(f"\nPicture and numbers: {args.out}/")


if __name__ == "__main__":
    main()
