"""What a step takes, keeps and sends where one, two and three processes share a model out.

    python bench/ranks.py                                # 12.6 million parameters
    python bench/ranks.py --millions 100 --ranks 1 2 --json ranks.json

A model of square matrices is sharded by FSDP2, in processes of one thread each that meet over
loopback by gloo. Each optimizer steps the shards. Times are medians of the slowest rank, and of the
process's own time, which does not depend on the others; bytes that travel are those that the
loopback device has counted (Linux), so that nothing else should use it meanwhile.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from sharded.processes import OPTIMIZERS, Row, rows_of
from shared.harness import machine, print_table, write_json

COLUMNS = {
    "ranks": "d",
    "optimizer": "s",
    "step_ms": ".1f",
    "cpu_ms": ".1f",
    "most": ".3f",
    "least": ".3f",
    "whole": ".3f",
    "collectives": ".1f",
    "step_bytes": ".0f",
    "first_bytes": ".0f",
    "train_bytes": ".0f",
}


def measured(ranks: int, millions: float, steps: int) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        return rows_of(ranks, millions, steps, list(OPTIMIZERS), Path(folder))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--millions", type=float, default=12.6)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--json")
    args = parser.parse_args()
    rows = [row for ranks in args.ranks for row in measured(ranks, args.millions, args.steps)]
    print(machine())
    print_table(rows, COLUMNS)
    write_json(args.json, rows)


if __name__ == "__main__":
    main()
