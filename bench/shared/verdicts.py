"""What a comparison says: noise, each peer against Cosmic, and the floors under Cosmic's loss."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from shared.tuning import Row
from shared.variants import budgeted

NEAR = 5.0  # percent: losses further above the least do not count into the noise
SHARE = 0.3  # percent of a loss: a difference that matters, where the noise is smaller
#: Budget, bits a parameter that it stands for, and percent of AdamW's loss that it may lose.
FLOORS = (("12.9%", 8.25, 0.3), ("6.5%", 4.2, 0.3), ("3%", 2.0, 1.0), ("1.7%", 1.1, 3.0))


@dataclass(frozen=True)
class Noise:
    """How far a run's loss strays from what its optimizer and its seed explain.

    Weights and batches depend on the seed alone: what a seed does to every optimizer is no noise
    in a comparison on the same seeds.

    Attributes:
        deviation: standard deviation of one run, pooled over all rows; nan with a single seed.
        seeds: runs behind every mean.
        rows: optimizers that it was pooled over.
    """

    deviation: float
    seeds: int
    rows: int

    @property
    def margin(self) -> float:
        """Twice the standard deviation of the difference of two means."""
        return 2 * self.deviation * math.sqrt(2 / self.seeds)

    def __str__(self) -> str:
        if math.isnan(self.deviation):
            return "noise: unknown (it takes two seeds and two optimizers)"
        return (
            f"noise: margin {self.margin:.4f}, twice the standard deviation of the difference of "
            f"two means of {self.seeds} seeds ({self.deviation:.4f} a run, pooled over {self.rows} "
            "rows after their own mean and the seed's are taken off)"
        )


def noise_of(rows: Sequence[Row]) -> Noise:
    """The noise of rows that were run with the same seeds."""
    least = min((row.loss for row in rows), default=math.nan)
    # once each: equal losses mean that two names stand for one and the same training
    near = list({tuple(r.losses): r for r in rows if r.loss <= least * (1 + NEAR / 100)}.values())
    seeds = len(near[0].losses) if near else 0
    if seeds < 2 or len(near) < 2:
        return Noise(math.nan, max(seeds, 1), len(near))
    whole = statistics.fmean(row.loss for row in near)
    by_seed = [statistics.fmean(row.losses[s] for row in near) - whole for s in range(seeds)]
    squares = sum(
        (loss - row.loss - by_seed[s]) ** 2 for row in near for s, loss in enumerate(row.losses)
    )
    freedom = (len(near) - 1) * (seeds - 1)
    return Noise(math.sqrt(squares / freedom), seeds, len(near))


def rule(noise: Noise) -> str:
    """How `point_verdict` decides, for above its lines."""
    return (
        f"{noise}\nA peer is BETTER where its loss is lower by more than the margin and by at "
        f"least {SHARE:g} %."
    )


def point_verdict(point: Row, others: Sequence[Row], noise: Noise) -> str:
    """One line: a point of Cosmic's against the best peer of as many bytes or fewer."""
    head = f"{point.name} ({point.state_percent:.3f} % of AdamW's bytes, loss {point.loss:.4f})"
    within = [row for row in others if row.state_bytes <= point.state_bytes]
    if not within:
        return f"{head}: no peer has as few bytes"
    best = min(within, key=lambda row: row.loss)
    name = f"{best.name} ({best.state_percent:.2f} %, loss {best.loss:.4f})"
    return f"{head}: the best peer of no more bytes, {name}, is {_judge(best, point, noise)}"


def _judge(peer: Row, point: Row, noise: Noise) -> str:
    lower = point.loss - peer.loss
    if not math.isfinite(lower):
        return "diverged"
    share = 100 * lower / point.loss
    by = f"{abs(lower):.4f} ({abs(share):.2f} %)"
    beyond = not lower <= noise.margin  # an unknown margin excuses nothing
    if lower <= 0:
        return f"not better, higher by {by}"
    if beyond and share >= SHARE:
        return f"BETTER by {by}"
    return f"not better, lower by {by}, " + (
        f"beyond noise but less than {SHARE:g} %" if beyond else "within noise"
    )


def floor_verdicts(rows: Sequence[Row], noise: Noise) -> list[str]:
    """One line a floor; the noise is named beside the verdicts, which make no allowance for it."""
    by_name = {row.name: row for row in rows}
    lines = []
    for budget, bits, allowed in FLOORS:
        row = by_name.get(budgeted(budget))
        head = f"floor at {bits:g} bits ({budget}): at most {allowed:g} % above AdamW"
        if row is None or math.isnan(row.percent):
            lines.append(f"{head}: not measured")
            continue
        kept = "held" if row.percent <= allowed else "MISSED"
        about = 100 * noise.margin / row.loss
        lines.append(
            f"{head}: {kept}, {row.percent:+.2f} % (noise {about:.2f} %) at "
            f"{row.bits_per_param:.3f} bits"
        )
    return lines
