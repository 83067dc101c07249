"""Who gets the bytes: Cosmic's default policy against others, at equal budgets.

    python bench/policies.py [--budgets 1% 3% ...] [--lrs 0.01] [--jobs N] [--out runs/policies]

The others: `uniform` treats all tensors alike; `signal` goes by the gradients; `random N` gives
each tensor a weight drawn by lot, `random` is the mean of the draws; `reversed` is the default with
the roles turned round. All have the same seeds, the same weights and batches by seed, and the same
learning rates; of several, each takes the best of the first seed. A verdict says how the default
does: `beats`, `loses`, or `ties` where the difference is within the noise named below it.

A finished run is kept in OUT/runs.jsonl and not run again, not after a change of the code either:
give another --out then. Left there as well: policies.json, policies.png.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cosmic.finetune.config import RunConfig
from plots.policies import Panel, draw
from shared import setting
from shared.harness import print_table, write_json
from shared.policy_variants import BUILT_IN, RANDOM, REVERSED
from shared.run_store import Store
from shared.tuning import Row, Tuning, against, compare
from shared.variants import budgeted
from shared.verdicts import Noise, noise_of

COLUMNS = {
    "name": "", "loss": ".4f", "deviation": ".4f", "difference": "+.4f", "percent": "+.2f",
    "state_bytes": ",", "state_percent": ".3f", "lr": "g", "factor": "g", "edge": "",
}  # fmt: skip
DEFAULT = "default"


@dataclass(frozen=True)
class Contest:
    """The rows of one budget by policy; differences are to the default's."""

    budget: str
    rows: dict[str, Row]


def parse() -> argparse.Namespace:
    parser = setting.parser(
        __doc__,
        "runs/policies",
        lrs=[1e-2],
        factors=[0.03],
        seeds=3,
        batch_size=4,
        model="small-gpt2",
    )
    add = parser.add_argument
    budgets = ("1%", "2%", "3%", "10%")
    add("--budgets", nargs="+", default=budgets, help="default: %(default)s")
    add("--draws", type=int, default=3, help="of the random policy; default: %(default)s")
    return parser.parse_args()


def contest(budget: str, draws: int, store: Store, tuning: Tuning, jobs: int) -> Contest:
    """Every policy under one budget."""
    lots = [f"{RANDOM} {draw}" for draw in range(1, draws + 1)]
    names = {DEFAULT: budgeted(budget)}
    names |= {policy: budgeted(budget, policy) for policy in (*BUILT_IN, REVERSED, *lots)}
    rows = compare(list(names.values()), store, tuning, jobs, yardstick=names[DEFAULT])
    by_name = {row.name: row for row in rows}
    found = {policy: by_name[name] for policy, name in names.items() if name in by_name}
    drawn = [found[lot] for lot in lots if lot in found]
    if drawn and DEFAULT in found:
        mean = mean_of(drawn, budgeted(budget, RANDOM))
        found[RANDOM] = against([found[DEFAULT], mean], names[DEFAULT])[1]
    return Contest(budget, found)


def mean_of(drawn: Sequence[Row], name: str) -> Row:
    """One row for all draws: losses seed by seed, the most bytes."""
    losses = [statistics.fmean(seed) for seed in zip(*(r.losses for r in drawn), strict=True)]
    finite = len(losses) > 1 and all(map(math.isfinite, losses))
    return replace(
        max(drawn, key=lambda row: row.state_bytes),
        name=name,
        loss=statistics.fmean(losses),
        deviation=statistics.stdev(losses) if finite else math.nan,
        losses=losses,
        grid=[],
    )


def noise_within(contest: Contest) -> Noise:
    """The noise of one budget's rows, the mean of the draws left aside."""
    return noise_of([row for policy, row in contest.rows.items() if policy != RANDOM])


def judge(contest: Contest) -> list[str]:
    """The verdicts on one budget, and the noise that they are held against."""
    noise = noise_within(contest)
    words = [
        f"{verdict(contest.rows[policy].difference, noise)} {policy} "
        f"({contest.rows[policy].percent:+.2f} %)"
        for policy in (*BUILT_IN, REVERSED, RANDOM)
        if policy in contest.rows
    ]
    return [f"{contest.budget}: the default {', '.join(words) or 'stands alone'}", f"  {noise}"]


def verdict(difference: float, noise: Noise) -> str:
    """What the default does to a policy whose loss is so much higher; an unknown margin is 0."""
    margin = 0.0 if math.isnan(noise.margin) else noise.margin
    if math.isnan(difference):
        return "cannot be held against"
    return "beats" if difference > margin else "loses to" if difference < -margin else "ties with"


def report(contests: Sequence[Contest], failed: dict[str, str], base: RunConfig, out: Path) -> None:
    rows = [row for contest in contests for row in contest.rows.values()]
    print()
    print_table(rows, COLUMNS)
    for name, reason in failed.items():
        print(f"{name}: fails here: {reason}")
    verdicts = [line for contest in contests for line in judge(contest)]
    print("", *verdicts, sep="\n")
    write_json(str(out / "policies.json"), rows, setting=base.to_dict(), verdicts=verdicts)
    shown = [
        Panel(contest.budget, contest.rows, noise_within(contest).margin)
        for contest in contests
        if DEFAULT in contest.rows
    ]
    if shown:
        draw(out / "policies.png", shown, setting.subtitle(rows, base))
    print(f"\nPicture and numbers: {out}/")


def main() -> None:
    args = parse()
    store, tuning = setting.prepare(args)
    contests = [contest(b, args.draws, store, tuning, args.jobs) for b in args.budgets]
    report(contests, store.failed, tuning.base, args.out)


if __name__ == "__main__":
    main()
