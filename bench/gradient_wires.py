"""What compressing the gradients of several ranks saves, and what it costs in loss.

    python bench/gradient_wires.py [--ranks 2 3] [--seeds 3] [--steps 400] [--out runs/wires]

Trains a Llama of two layers x 96 on bytes of Python's standard library, in processes of one thread
that exchange gradients over loopback by gloo: as they are, by torch's own hooks, and by COSMIC's.
Every way trains at the rate that is best without compression, and at the one that is best for it,
both found by the first seed. Finished runs are kept in OUT/runs.jsonl. The network is free here:
times show what encoding costs, bytes what it saves.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.harness import machine, print_table
from shared.lines import Lines
from wires.ranks import Course, key, run
from wires.ways import WAYS

#: Where the search for a rate begins; it goes on by factors of two while the best is at an end.
RATES = (1e-3, 2e-3, 4e-3)
UNCOMPRESSED = "none"


@dataclass
class Row:
    """One way on so many ranks, over seeds.

    Attributes:
        ranks: processes.
        way: its name.
        message: bytes that a rank gives to a step's collectives.
        bits: of that, an element.
        sent: bytes that leave a rank in a step, in a ring.
        state: bytes a parameter that are held between steps.
        loss: at the rate that is best without compression, nats a byte, mean over seeds.
        above: mean of that less the loss without compression with the same seed.
        deviation: standard deviation of that over seeds; 0 of one.
        own: the rate that is best for it.
        own_loss: mean over seeds at that rate.
        own_above: as `above`, at that rate.
        cpu_ms: that one rank's process takes for a step, median.
    """

    ranks: int
    way: str
    message: float
    bits: float
    sent: float
    state: float
    loss: float
    above: float
    deviation: float
    own: float
    own_loss: float
    own_above: float
    cpu_ms: float


class Runs:
    """Trainings, none done twice."""

    def __init__(self, out: Path, steps: int) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self._path, self._steps = out / "runs.jsonl", steps
        self._lines = Lines(self._path)
        self._done: dict[tuple[Any, ...], dict[str, float]] = {}

    def finish(self, ranks: int, points: list[tuple[str, float, int]]) -> None:
        """Do what is missing of (way, rate, seed), in one group of processes."""
        courses = [Course(*point, self._steps) for point in points]
        missing = [course for course in courses if not self._find(course, ranks)]
        if missing:
            run(missing, ranks, self._path)

    def of(self, ranks: int, way: str, lr: float, seed: int) -> dict[str, float]:
        found = self._find(Course(way, lr, seed, self._steps), ranks)
        if found is None:
            raise RuntimeError(f"no result of {way} at {lr} on {ranks} ranks, seed {seed}")
        return found

    def best_rates(self, ranks: int, ways: Sequence[str]) -> dict[str, float]:
        """Of each way by the first seed; both neighbours of a rate are worse."""
        rates = {way: list(RATES) for way in ways}
        best: dict[str, float] = {}
        while len(best) < len(ways):
            open_ways = [way for way in ways if way not in best]
            self.finish(ranks, [(way, lr, 0) for way in open_ways for lr in rates[way]])
            for way in open_ways:
                losses = [self.of(ranks, way, lr, 0)["loss"] for lr in rates[way]]
                at = losses.index(min(losses))
                if at == 0:
                    rates[way].insert(0, rates[way][0] / 2)
                elif at == len(losses) - 1:
                    rates[way].append(rates[way][-1] * 2)
                else:
                    best[way] = rates[way][at]
        return best

    def _find(self, course: Course, ranks: int) -> dict[str, float] | None:
        for line in self._lines.new():
            self._done[tuple(line["key"])] = line
        return self._done.get(tuple(key(course, ranks)))


def summary(runs: Runs, ranks: int, way: str, rates: dict[str, float], seeds: int) -> Row:
    def found(name: str, lr: float) -> list[dict[str, float]]:
        return [runs.of(ranks, name, lr, seed) for seed in range(seeds)]

    def losses(name: str, lr: float) -> list[float]:
        return [each["loss"] for each in found(name, lr)]

    common = rates[UNCOMPRESSED]
    plain, at_common, at_own = (
        losses(UNCOMPRESSED, common),
        losses(way, common),
        losses(way, rates[way]),
    )
    gaps = [a - b for a, b in zip(at_common, plain, strict=True)]
    first = found(way, common)[0]
    return Row(
        ranks,
        way,
        first["message"],
        8 * first["message"] / first["parameters"],
        first["sent"],
        first["state"] / first["parameters"],
        statistics.mean(at_common),
        statistics.mean(gaps),
        statistics.stdev(gaps) if seeds > 1 else 0.0,
        rates[way],
        statistics.mean(at_own),
        statistics.mean(at_own) - statistics.mean(plain),
        statistics.median(each["cpu_ms"] for each in found(way, common)),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--ranks", type=int, nargs="+", default=[2, 3], help="default: 2 3")
    add("--seeds", type=int, default=3, help="default: %(default)s")
    add("--steps", type=int, default=400, help="default: %(default)s")
    add("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="default: all")
    add("--out", type=Path, default=Path("runs/wires"), help="default: %(default)s")
    args = parser.parse_args()
    runs, rows = Runs(args.out, args.steps), []
    ways = list(dict.fromkeys([UNCOMPRESSED, *args.ways]))
    for ranks in args.ranks:
        rates = runs.best_rates(ranks, ways)
        points = [
            (way, lr, seed)
            for seed in range(args.seeds)
            for way in ways
            for lr in dict.fromkeys((rates[UNCOMPRESSED], rates[way]))
        ]
        runs.finish(ranks, points)
        rows += [summary(runs, ranks, way, rates, args.seeds) for way in ways]
    print(machine()["cpu"], "torch", machine()["torch"])
    columns = {"ranks": "", "way": "", "message": ".0f", "bits": ".3f", "sent": ".0f"}
    common = {"state": ".2f", "loss": ".4f", "above": "+.4f", "deviation": ".4f"}
    own = {"own": "g", "own_loss": ".4f", "own_above": "+.4f", "cpu_ms": ".1f"}
    print_table(rows, {**columns, **common, **own})


if __name__ == "__main__":
    main()
