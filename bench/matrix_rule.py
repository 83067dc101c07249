"""Orthogonalized momentum for hidden matrices, beside AdamW, torch.optim.Muon and the default.

    python bench/matrix_rule.py [--task 4x64 ...] [--optimizer adamw muon-4 ...] [--out runs/matrix]
    python bench/matrix_rule.py --times      # times of steps: nothing else should run
    python bench/matrix_rule.py --report     # table and pictures of what has been trained

Three trainings of small GPT-2s: `4x64` and `64x64`, 1.15 million parameters on so many sequences
of so many tokens a step, and `small`, 3.5 million on 16 x 64. Gradients are clipped at norm 1; the
rate falls to a twentieth. Everything but the hidden matrices takes the learning rate, the hidden
matrices that times a factor. All optimizers have one grid of both; a search with the first seed
goes from a point to a better neighbour, one axis at a time, until all neighbours are worse, past
the edge of the grid if it must. A run that at 40 % of its steps is more than 0.3 above the best so
far is given up (not at 4x64). The point found is repeated with two more seeds. Weights and batches
depend on the seed alone; a validation loss is that of the same 64 held-out sequences each time.

Times are those of one process in which forward and backward and one step of each optimizer take
turns, medians of their ratios, never those of the trainings, which may run beside anything. Seconds
to AdamW's loss are steps to it, on the mean curve of the seeds, times both.

Finished runs are kept in OUT/runs.jsonl, which several processes may share, and not trained again,
not after a change of the code either: `--fresh` drops those of the tasks and optimizers named. Left
there as well: times.json, matrix_rule.json, matrix_rule.md and a picture a task. With
MALLOC_MMAP_THRESHOLD_=1073741824 and MALLOC_TRIM_THRESHOLD_=2147483647 in the environment,
trainings take a sixth less time where the C library is glibc.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from matrix import times
from matrix.optimizers import BETAS, CONTESTANTS, WEIGHT_DECAY, trouble
from matrix.report import Row, markdown, rows_of
from matrix.search import search
from matrix.store import Store
from matrix.tasks import BLOCK, TASKS, prepare
from plots.matrix_rule import draw
from shared.harness import machine, write_json

#: What the pictures show; the table has all.
PICTURED = ("adamw", "torch-muon", "cosmic", "muon-1", "muon-32")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--task", nargs="+", choices=list(TASKS), default=list(TASKS), help="default: all")
    add("--optimizer", nargs="+", choices=list(CONTESTANTS), default=list(CONTESTANTS),
        metavar="NAME", help=f"of {', '.join(CONTESTANTS)}; default: all")  # fmt: skip
    add("--threads", type=int, default=1, help="of torch and of Cosmic; default: %(default)s")
    add("--fresh", action="store_true", help="drop earlier results of what is named")
    add("--times", action="store_true", help="measure times, train nothing")
    add("--rounds", type=int, default=9, help="of times; default: %(default)s")
    add("--report", action="store_true", help="report what there is, train nothing")
    add("--out", type=Path, default=Path("runs/matrix"), help="default: %(default)s")
    return parser.parse_args()


def train(args: argparse.Namespace, names: Sequence[str], store: Store) -> None:
    """Search and repeat what has no results yet, task after task."""
    folder = prepare(args.out)
    for task in args.task:
        for name in names:
            if args.fresh:
                store.forget(task, name)
            search(store, folder, task, name)


def measure(args: argparse.Namespace, names: Sequence[str]) -> None:
    """Time the optimizers on every task."""
    folder = prepare(args.out)
    for task in args.task:
        taken = times.measure(task, names, folder, args.rounds)
        times.save(args.out / "times.json", args.threads, task, taken)


def report(args: argparse.Namespace, store: Store) -> None:
    """Write the table, the pictures and the numbers."""
    text, every = [], list[Row]()
    for task in args.task:
        taken = times.saved(args.out / "times.json", args.threads, task)
        rows = rows_of(store, task, args.optimizer, taken)
        if rows:
            text += [f"### {_title(task)}", "", markdown(rows), ""]
            shown = [row for row in rows if row.optimizer in PICTURED]
            draw(args.out / f"{task}.png", shown or rows, _subtitle(task, args.threads))
        every += rows
    (args.out / "matrix_rule.md").write_text("\n".join(text))
    setting = {"betas": BETAS, "weight_decay": WEIGHT_DECAY, "block": BLOCK}
    tasks = {task: asdict(TASKS[task]) for task in args.task}
    write_json(str(args.out / "matrix_rule.json"), every, setting=setting, tasks=tasks)
    print("", *text, f"Table, pictures and numbers: {args.out}/", sep="\n")


def _title(task: str) -> str:
    setting = TASKS[task]
    return f"{setting.model}, {setting.steps} steps of {setting.batch} x {BLOCK} tokens"


def _subtitle(task: str, threads: int) -> str:
    about = machine()
    return (
        f"{_title(task)}   |   {about['cpu']}, {threads} thread{'s' * (threads > 1)}, "
        f"torch {about['torch']}, cosmic {about['cosmic']}"
    )


def able(names: Sequence[str]) -> list[str]:
    """The names of those that step here; of the others, why not."""
    for name in names:
        if trouble(name):
            print(f"{name}: fails here: {trouble(name)}")
    return [name for name in names if not trouble(name)]


def main() -> None:
    args = parse()
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    store = Store(args.out / "runs.jsonl")
    if args.times:
        measure(args, able(args.optimizer))
    elif not args.report:
        train(args, able(args.optimizer), store)
    report(args, store)


if __name__ == "__main__":
    main()
