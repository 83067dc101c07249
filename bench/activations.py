"""What holding less of what autograd saves costs, in time and in loss.

    python bench/activations.py loss [--steps 400] [--seeds 3] [--out runs/activations]
    python bench/activations.py step [--rounds 5]
    python bench/activations.py speed

`loss` trains two small language models on bytes, all ways at the rate that is best with everything
kept, by the first seed; finished runs are kept in OUT/losses.jsonl. `step` times forward
and backward of two models of 6 layers x 256 at 8 x 256 tokens, by the process's own seconds on one
thread, and measures resident memory in processes of their own. `speed` is that of the codecs alone.
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cosmic.models.configs import silence_transformers
from saved import timing, training
from saved.models import MODELS, WAYS
from shared.harness import print_table
from shared.lines import Lines

#: Where the search for a rate begins; it goes on by factors of two while the best is at an end.
RATES = (5e-4, 1e-3, 2e-3)
#: Ways that `loss` compares unless told otherwise.
TRAINED = ("kept", "q8", "u4+q8", "u4")


@dataclass
class Loss:
    """Of one way, over seeds.

    Attributes:
        model: its name.
        way: its name.
        lr: that is best with everything kept.
        loss: mean over seeds, nats a byte.
        deviation: standard deviation over seeds.
        above: mean over seeds of the loss less that of `kept` with the same seed.
        error: standard error of that.
    """

    model: str
    way: str
    lr: float
    loss: float
    deviation: float
    above: float = 0.0
    error: float = 0.0


class Runs:
    """Trainings, none done twice."""

    def __init__(self, out: Path, steps: int) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self._lines, self._steps = Lines(out / "losses.jsonl"), steps
        self._done: dict[tuple[Any, ...], float] = {
            tuple(line["key"]): line["loss"] for line in self._lines.new()
        }

    def best_rate(self, model: str) -> float:
        """With everything kept, by the first seed; both of its neighbours are worse."""
        rates = list(RATES)
        while True:
            best = min(rates, key=lambda lr: self.loss(model, "kept", lr, 0))
            if best == rates[0]:
                rates.insert(0, best / 2)
            elif best == rates[-1]:
                rates.append(best * 2)
            else:
                return best

    def loss(self, model: str, way: str, lr: float, seed: int) -> float:
        key = (model, way, lr, seed, self._steps)
        if key not in self._done:
            self._done[key] = training.train(model, way, lr, seed, self._steps)
            self._lines.append({"key": key, "loss": self._done[key]})
            print(*key, f"{self._done[key]:.4f}", flush=True)
        return self._done[key]


def losses(args: argparse.Namespace) -> None:
    runs = Runs(args.out, args.steps)
    rows = []
    for model in args.models:
        kept: list[float] = []
        best = runs.best_rate(model)
        for way in args.ways or TRAINED:
            found = [runs.loss(model, way, best, seed) for seed in range(args.seeds)]
            kept = kept or found
            gaps = [a - b for a, b in zip(found, kept, strict=True)]
            rows.append(
                Loss(
                    model,
                    way,
                    best,
                    statistics.mean(found),
                    statistics.stdev(found),
                    statistics.mean(gaps),
                    statistics.stdev(gaps) / len(gaps) ** 0.5,
                )
            )
    columns = {"model": "", "way": "", "lr": "g", "loss": ".4f", "deviation": ".4f"}
    print_table(rows, {**columns, "above": "+.4f", "error": ".4f"})


def step(args: argparse.Namespace) -> None:
    for model in args.models:
        print(model)
        columns = {"way": "", "time": ".3f", "seconds": ".3f", "packing": ".3f", "held": ".4f"}
        rows = timing.steps(model, args.ways or WAYS, args.rounds)
        print_table(rows, {**columns, "peak_mb": ".0f"})


def speed(args: argparse.Namespace) -> None:
    rows = timing.speeds(("q8", "u4", "u2", "u1"), (1, 2))
    print_table(rows, {"what": "", "threads": "", "pack": ".2f", "unpack": ".2f"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("what", choices=("loss", "step", "speed"))
    add("--steps", type=int, default=400, help="of a training; default: %(default)s")
    add("--seeds", type=int, default=3, help="default: %(default)s")
    add("--rounds", type=int, default=5, help="of timing; default: %(default)s")
    add("--models", nargs="+", default=MODELS, choices=MODELS)
    add("--ways", nargs="+", choices=WAYS, help="default: those of the documentation")
    add("--out", type=Path, default=Path("runs/activations"), help="default: %(default)s")
    args = parser.parse_args()
    torch.set_num_threads(1)
    silence_transformers()
    {"loss": losses, "step": step, "speed": speed}[args.what](args)


if __name__ == "__main__":
    main()
