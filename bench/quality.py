"""Validation loss of a small GPT-2 by optimizer and by what its state costs.

    python bench/quality.py [--only adamw u4+v4 ...] [--peers] [--jobs N] [--out runs/quality]

Every optimizer is tuned on the same grid: everything but the hidden matrices takes the learning
rate, the hidden matrices of the transformer's blocks that times a factor. All grid points are run
with the first seed, the best of them with the others; table and picture have the mean and the
standard deviation at that point over all seeds. The first seed's loss is the least of the grid,
which flatters every optimizer by about the same. A `*` says that the best point lies on the edge of
the grid: the optimizer may do better beyond it. Weights and batches depend on the seed alone.

Each run is a process of its own with one thread. A finished run is kept in OUT/runs.jsonl and not
run again, not after a change of the code either: give another --out then. Left there as well:
quality.json, quality.png.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import peers
from cosmic.finetune.config import RunConfig
from plots.quality import draw
from shared import setting
from shared.harness import print_table, write_json
from shared.tuning import Row, compare
from shared.variants import STATES, YARDSTICK

COLUMNS = {
    "name": "", "loss": ".4f", "deviation": ".4f", "difference": "+.4f", "lr": "g",
    "factor": "g", "edge": "", "bits_per_param": ".2f", "step_ms": ".2f",
}  # fmt: skip


def parse() -> argparse.Namespace:
    parser = setting.parser(
        __doc__,
        "runs/quality",
        lrs=[5e-3, 1e-2, 2e-2],
        factors=[0.03, 0.06, 0.12],
        seeds=3,
        batch_size=8,
        model="tiny-gpt2",
    )
    add = parser.add_argument
    add("--only", nargs="+", metavar="NAME", help="adamw, a state_dtype, or a peer's name")
    add("--peers", action="store_true", help="other packages' optimizers too, where installed")
    return parser.parse_args()


def chosen(args: argparse.Namespace) -> list[str]:
    """Names of the variants to compare."""
    return setting.present(
        [*(args.only or (YARDSTICK, *STATES)), *(peers.PEERS if args.peers else ())]
    )


def report(rows: Sequence[Row], failed: dict[str, str], base: RunConfig, out: Path) -> None:
    print()
    print_table(rows, COLUMNS)
    for name, reason in failed.items():
        print(f"{name}: fails here: {reason}")
    write_json(str(out / "quality.json"), rows)
    if any(math.isfinite(row.loss) for row in rows):
        subtitle = setting.subtitle(rows, base)
        draw(out / "quality.png", rows, YARDSTICK, frozenset(peers.PEERS), subtitle)
    print(f"\nPicture and numbers: {out}/")


def main() -> None:
    args = parse()
    store, tuning = setting.prepare(args)
    rows = compare(chosen(args), store, tuning, args.jobs)
    report(rows, store.failed, tuning.base, args.out)


if __name__ == "__main__":
    main()
