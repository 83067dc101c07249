"""Train the suite of tasks with AdamW, with others and with Cosmic under budgets, and compare.

    python bench/suite_of_tasks.py --list                     # the tasks, and which half each is in
    python bench/suite_of_tasks.py --task recommender llama   # train what has no result yet
    python bench/suite_of_tasks.py --report                   # table, JSON, picture of what has
    python bench/suite_of_tasks.py --own-rate --optimizer 'cosmic 10%'    # its own best rate, too

AdamW is tuned over a rate for tables and factors of it for matrices and vectors, the others over
their rate (torch.optim.Muon's matrices have a factor, too), by descent on one grid with the first
seed; then three seeds. Cosmic is not tuned: it has the single rate that is best for AdamW. Finished
runs are kept in OUT/runs.jsonl, which several calls may lengthen at the same time; each trains
on one thread. Constants were fitted on tasks of the half "fit"; those of "judge" judge.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch

from shared.harness import machine, write_json
from suite.contestants import BUDGETS, NAMED, UNASKED, YARDSTICK
from suite.report import cells, markdown
from suite.search import take, tune
from suite.store import Store
from suite.tasks import SUITE, TASKS

OURS = [f"cosmic {budget}" for budget in BUDGETS]
THEIRS = [name for name in NAMED if name not in UNASKED]


def parse() -> argparse.Namespace:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--task", nargs="+", default=list(SUITE), choices=SUITE, metavar="NAME", help="all")
    named = "of suite/contestants.py, such as adamw, lion, 'cosmic 3%%', 'cosmic 3%% uniform'"
    add("--optimizer", nargs="+", default=[*THEIRS, *OURS], metavar="NAME", help=named)
    add("--out", type=Path, default=Path("bench/runs/suite"), help="default: %(default)s")
    add("--own-rate", action="store_true", help="tune Cosmic's rate, too, beside AdamW's")
    add("--list", action="store_true", help="print the tasks and end")
    add("--report", action="store_true", help="train nothing; table of what is finished")
    return parser.parse_args()


def list_tasks() -> None:
    """A line a task."""
    for task in map(TASKS.__getitem__, SUITE):
        print(
            f"{task.name:<12} {task.half:<6} {task.steps:>5} steps of {task.batch:<4} {task.title}"
        )


def train(args: argparse.Namespace, store: Store) -> None:
    """Train what has no result yet; AdamW first, whose best rate the others start from."""
    for task in args.task:
        for name in dict.fromkeys((YARDSTICK, *args.optimizer)):
            (tune if name in NAMED else take)(store, task, name)
            if args.own_rate and name not in NAMED:
                tune(store, task, name)


def report(args: argparse.Namespace, store: Store) -> None:
    """Print the tables; write them, the numbers and the picture."""
    from plots.suite import draw  # matplotlib is slow to start and not needed for training

    names = [name for name in args.optimizer if name != YARDSTICK]
    every = cells(store, args.task, names)
    text = [
        line
        for half in ("judge", "fit")
        for line in (f"### The half that is there to {half}", "", *markdown(every, half, names), "")
    ]
    about = machine()
    subtitle = f"{about['cpu']}, torch {about['torch']}, cosmic {about['cosmic']}, one thread a run"
    (args.out / "suite.md").write_text("\n".join(text))
    write_json(str(args.out / "suite.json"), every)
    if every:
        draw(args.out / "suite.png", every, subtitle)
    print(*text, f"Tables, numbers and picture: {args.out}/", sep="\n")


def main() -> None:
    args = parse()
    if args.list:
        list_tasks()
        return
    torch.set_num_threads(1)
    os.environ.setdefault("COSMIC_BENCH_CACHE", str(args.out / "cache"))
    args.out.mkdir(parents=True, exist_ok=True)
    store = Store(args.out / "runs.jsonl")
    if not args.report:
        train(args, store)
    report(args, store)


if __name__ == "__main__":
    main()
