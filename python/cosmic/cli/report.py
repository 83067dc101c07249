"""`cosmic report`: a page of an event log."""

from __future__ import annotations

import argparse
from pathlib import Path

from cosmic.errors import UsageError
from cosmic.viewer.log import LogError, Run, read_runs
from cosmic.viewer.page import page


def run(arguments: argparse.Namespace) -> None:
    """Write the page of a log's last run, or of the one that is asked for.

    Raises:
        UsageError: for a log that cannot be shown, a run that it does not have, or a page that
            cannot be written.
    """
    log: Path = arguments.log
    out: Path = arguments.out or log.with_suffix(".html")
    _check_out(out, log)
    try:
        runs = read_runs(log)
    except LogError as error:
        raise UsageError(str(error)) from error
    text = page(log.name, runs, _index(arguments.run, runs, log))
    try:
        out.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise UsageError(f"{out} cannot be written: {error.strerror}") from error
    print(f"Report: {out}")


def _check_out(out: Path, log: Path) -> None:
    if not out.resolve().parent.is_dir():
        raise UsageError(f"{out} cannot be written: its folder does not exist")
    if out.is_dir():
        raise UsageError(f"{out} cannot be written: it is a folder")
    if out.exists() and log.exists() and out.samefile(log):
        raise UsageError(f"{out} is the log itself; give another file by -o")


def _index(wanted: int | None, runs: list[Run], log: Path) -> int:
    if wanted is None:
        return len(runs) - 1
    if not 1 <= wanted <= len(runs):
        known = "1 run" if len(runs) == 1 else f"runs 1 to {len(runs)}"
        raise UsageError(f"--run {wanted}: {log} has {known}")
    return wanted - 1
