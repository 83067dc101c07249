"""TinyMix, the model that tiger-optim is timed on: step time and training loss, all on one thread.

    python bench/tinymix.py [--warmup 50] [--steps 200] [--json out.json] [--pictures FOLDER]

One layer of attention and a feed-forward network learn one batch of noise by heart, (16, 32, 256)
to the same, by mean squared error: 526,592 parameters in 10 tensors. AdamW has learning rate 3e-4
and weight decay 0.01, as there; where a rate is a share of a tensor's own size it is 3e-3. Nothing
is tuned, and what is learned by heart says nothing of other data: this table is of times.

`step_ms` is the median of whole steps (zero_grad, forward, backward, step) that all optimizers take
in turn, `optimizer_ms` that of the optimizer in them, `ratio` its time over AdamW's in the same
turn. `in_cache` is the ratio where nothing comes between steps of the optimizer, in pairs as in
bench/step.py. Published for tiger-optim beside AdamW on the same model (`PUBLISHED`, the
evidence that its repository keeps, on an Apple M4, 50 + 200 steps): 8.97 ms a step beside 4.05, of
which the optimizer 5.58 beside 0.78, and in the timed steps a loss of 1.036 to 0.996 beside 0.764
to 0.101, which is also what AdamW has here.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from operator import truediv
from pathlib import Path
from typing import NamedTuple

import torch

from shared.harness import machine, paired, print_table, write_json
from tiny.contestants import CONTESTANTS, YARDSTICK
from tiny.training import Course, Training, train


class Published(NamedTuple):
    """Milliseconds a step, whole and of the optimizer, and first and last loss: see above."""

    step_ms: float
    optimizer_ms: float
    losses: tuple[float, float]


PUBLISHED = {
    "tiger-optim": Published(8.97, 5.58, (1.036, 0.996)),
    "AdamW": Published(4.05, 0.78, (0.764, 0.101)),
}
REPEAT = 10  # steps of an optimizer that are timed together


@dataclass(frozen=True)
class Row:
    """One optimizer.

    Attributes:
        step_ms: a whole step, median.
        optimizer_ms: the optimizer's part of it, median.
        ratio: that over AdamW's (foreach) in the same turn, median.
        in_cache: the same of steps of the optimizer one after another, median of the pairs.
        pairs: how many pairs that rests on.
        first_loss: at the first step that is timed, as published.
        last_loss: at the last.
        losses: at every step.
    """

    name: str
    lr: float
    step_ms: float
    optimizer_ms: float
    ratio: float
    in_cache: float
    pairs: int
    first_loss: float
    last_loss: float
    losses: list[float]


def measure(names: Sequence[str], warmup: int, steps: int, pairs: int) -> list[Row]:
    """Train side by side, then time every optimizer beside AdamW's."""
    courses = train(names, warmup, steps)
    return [_row(name, courses[name], courses[YARDSTICK], warmup, pairs) for name in names]


def _row(name: str, course: Course, yardstick: Course, warmup: int, pairs: int) -> Row:
    mine, theirs = Training(name), Training(YARDSTICK)
    mine.step()  # makes gradients and state
    theirs.step()
    timed = paired(theirs.optimizer.step, mine.optimizer.step, pairs=pairs, repeat=REPEAT)
    return Row(
        name=name,
        lr=CONTESTANTS[name].lr,
        step_ms=1e3 * statistics.median(course.seconds),
        optimizer_ms=1e3 * statistics.median(course.stepping),
        ratio=statistics.median(map(truediv, course.stepping, yardstick.stepping)),
        in_cache=timed.ratio,
        pairs=timed.pairs,
        first_loss=course.losses[warmup],
        last_loss=course.losses[-1],
        losses=course.losses,
    )


def main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--warmup", type=int, default=50, help="steps that are not timed; default: %(default)s")
    add("--steps", type=int, default=200, help="steps that are; default: %(default)s")
    add("--pairs", type=int, default=15, help="pairs that must agree, a row")
    add("--threads", type=int, default=1, help="default: %(default)s")
    add("--json", help="file to write the table to")
    add("--pictures", type=Path, help="folder for tinymix_times.png and tinymix_losses.png")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    about = machine()
    print({key: about[key] for key in ("cpu", "threads", "torch", "isa")})
    rows = measure(list(CONTESTANTS), args.warmup, args.steps, args.pairs)
    print_table(
        rows,
        {
            "name": "", "lr": "g", "step_ms": ".2f", "optimizer_ms": ".3f", "ratio": ".2f",
            "in_cache": ".2f", "pairs": "d", "first_loss": ".3f", "last_loss": ".4f",
        },
    )  # fmt: skip
    ratio = PUBLISHED["tiger-optim"].optimizer_ms / PUBLISHED["AdamW"].optimizer_ms
    print(f"published for tiger-optim: {ratio:.2f} of AdamW's time")
    write_json(args.json, rows, published={name: it._asdict() for name, it in PUBLISHED.items()})
    if args.pictures:
        from plots.tinymix import draw  # matplotlib is slow to start

        draw(args.pictures, rows)


if __name__ == "__main__":
    main()
