"""What the comparison says about each published claim, with an allowance for noise."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from noisy.optimizers import COMPRESSED, COORDINATE, SCALAR, STRONG, YARDSTICK
from noisy.tasks import DIGITS, GRADIENTS, GROKKING, LABELS

Wanted = Literal["higher", "lower", "equal"]


@dataclass(frozen=True)
class Claim:
    """What `optimizer`'s test accuracy in `task` should be, held against `other`'s."""

    text: str
    task: str
    optimizer: str
    wanted: Wanted
    other: str = YARDSTICK


CLAIMS = (
    Claim("CASMO 90.3 % against AdamW's 24.0 %", GROKKING, SCALAR, "higher"),
    Claim("the same of the per-coordinate gate", GROKKING, COORDINATE, "higher"),
    Claim("no robustness of the scalar gate's own (0.680, 0.679)", LABELS, SCALAR, "equal"),
    Claim("per-coordinate 0.810 against Adam's 0.675", LABELS, COORDINATE, "higher"),
    Claim("the same with compressed state", LABELS, COMPRESSED, "equal", COORDINATE),
    Claim("a higher robustness hurts", GRADIENTS, STRONG, "lower", COORDINATE),
    Claim("the gate hurts", GRADIENTS, COORDINATE, "lower"),
    Claim("long tail: CASMO 28.9 % against AdamW's 23.9 %", DIGITS, SCALAR, "higher"),
)


def margin(accuracies: Sequence[Sequence[float]]) -> float:
    """Twice the standard deviation of the difference of two means over the same seeds.

    Data and weights depend on the seed alone: what a seed does to every optimizer is no noise in a
    comparison on the same seeds. So the deviation of a run is pooled over the optimizers after
    their own means and the seeds' are taken off. Infinite where there is nothing to pool.

    Args:
        accuracies: by optimizer, by seed.
    """
    rows = list({tuple(row) for row in accuracies})
    seeds = len(rows[0]) if rows else 0
    if seeds < 2 or len(rows) < 2:
        return math.inf
    whole = statistics.fmean(x for row in rows for x in row)
    of_seed = [statistics.fmean(row[s] for row in rows) - whole for s in range(seeds)]
    squares = sum(
        (x - statistics.fmean(row) - of_seed[s]) ** 2 for row in rows for s, x in enumerate(row)
    )
    return 2 * math.sqrt(squares / ((len(rows) - 1) * (seeds - 1)) * 2 / seeds)


def verdict(wanted: Wanted, difference: float, noise: float) -> str:
    """ "holds", "does not hold" or "within noise".

    Args:
        wanted: what the difference should be.
        difference: test accuracy, less the other's.
        noise: the margin. What should be equal holds within it.
    """
    if wanted == "equal":
        return "holds" if abs(difference) <= noise else "does not hold"
    if abs(difference) <= noise:
        return "within noise"
    return "holds" if (difference > 0) == (wanted == "higher") else "does not hold"
