"""Validation loss against bytes of state: Cosmic under budgets, beside other optimizers.

    python bench/frontier.py [--peers] [--budgets 1% 3% ...] [--jobs N] [--out runs/frontier]

Tuned as in bench/quality.py: every optimizer on one grid of learning rates, relative to its usual
one, the best point of the first seed repeated with the others; a `*` says that it lies on the edge
of the grid. Budgets are shares of AdamW's state, two fp32 moments. Below the table stand verdicts:
each of Cosmic's points against the best other optimizer of as many bytes or fewer, with the rule
that decides, and the floors under Cosmic's loss.

A finished run is kept in OUT/runs.jsonl and not run again, not after a change of the code either:
give another --out then. Left there as well: frontier.json, frontier.png.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import peers
from cosmic.finetune.config import RunConfig
from plots.frontier import draw
from shared import setting
from shared.harness import print_table, write_json
from shared.tuning import Row, compare
from shared.variants import BUDGETED, YARDSTICK, budgeted
from shared.verdicts import floor_verdicts, noise_of, point_verdict, rule

BUDGETS = (*("0%", "0.1%", "0.5%", "1%", "1.7%", "3%", "6.5%", "10%", "12.9%", "25%", "100%"),)
PEERS = (
    *("AdEMAMix", "Lion", "AdaFactor", "AdaFactor, no momentum", "CAME", "SGD momentum"),
    "TurboAdam",
)
COLUMNS = {
    "name": "", "loss": ".4f", "deviation": ".4f", "difference": "+.4f", "percent": "+.2f",
    "state_bytes": ",", "bits_per_param": ".3f", "state_percent": ".3f", "lr": "g", "factor": "g",
    "edge": "", "step_ms": ".2f",
}  # fmt: skip


def parse() -> argparse.Namespace:
    parser = setting.parser(
        __doc__,
        "runs/frontier",
        lrs=[5e-3, 1e-2, 2e-2],
        factors=[0.03],
        seeds=2,
        batch_size=4,
        model="small-gpt2",
    )
    add = parser.add_argument
    add("--budgets", nargs="+", default=BUDGETS, help="Cosmic's; default: %(default)s")
    add("--peers", nargs="*", metavar="NAME", help=f"of bench/peers.py; default: {PEERS}")
    add("--only", nargs="+", metavar="NAME", help="names as in the table, and nothing else")
    return parser.parse_args()


def chosen(args: argparse.Namespace) -> list[str]:
    """Names of the variants to compare."""
    cosmic = [budgeted(budget) for budget in args.budgets]
    others = [] if args.peers is None else args.peers or PEERS
    return setting.present(args.only or [YARDSTICK, *cosmic, *others])


def judge(rows: Sequence[Row]) -> list[str]:
    """The verdicts, line by line."""
    noise = noise_of(rows)
    cosmic = [row for row in rows if row.name.startswith(BUDGETED)]
    others = [row for row in rows if row.name in peers.PEERS or row.name == YARDSTICK]
    lines = rule(noise).splitlines()
    lines += [point_verdict(point, others, noise) for point in cosmic]
    return lines + floor_verdicts(rows, noise)


def report(rows: Sequence[Row], failed: dict[str, str], base: RunConfig, out: Path) -> None:
    print()
    print_table(rows, COLUMNS)
    for name, reason in failed.items():
        print(f"{name}: fails here: {reason}")
    verdicts = judge(rows)
    print("", *verdicts, sep="\n")
    write_json(str(out / "frontier.json"), rows, setting=base.to_dict(), verdicts=verdicts)
    if any(math.isfinite(row.loss) for row in rows):
        draw(out / "frontier.png", rows, setting.subtitle(rows, base))
    print(f"\nPicture and numbers: {out}/")


def main() -> None:
    args = parse()
    store, tuning = setting.prepare(args)
    rows = compare(chosen(args), store, tuning, args.jobs)
    report(rows, store.failed, tuning.base, args.out)


if __name__ == "__main__":
    main()
