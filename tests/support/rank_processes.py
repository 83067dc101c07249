"""Ranks: processes that exchange tensors by gloo over loopback, and what each of them finds."""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import timedelta
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

#: A function of a module that processes can import: from a rank to named findings, one by one, of
#: plain values and NumPy arrays. An exception that it raises is the rank's last finding, "error".
Checks = Callable[[int], Iterator[tuple[str, Any]]]
Findings = dict[str, Any]

#: After so many seconds no rank is waited for any more, and no collective waits for another rank.
PATIENCE = 240.0
COLLECTIVE = timedelta(seconds=60)


def findings_of(checks: Checks, ranks: int, folder: Path) -> list[Findings]:
    """What every rank finds. A rank that hangs is killed, and has found what it had until then.

    Args:
        checks: run by every rank, on one thread.
        ranks: how many there are.
        folder: where they meet, empty.
    """
    context = get_context("spawn")
    found: list[Findings] = [{} for _ in range(ranks)]
    reading: dict[Connection, int] = {}
    processes = []
    for rank in range(ranks):
        end, other = context.Pipe(duplex=False)
        process = context.Process(target=_run, args=(checks, rank, ranks, folder, other))
        process.start()
        other.close()
        processes.append(process)
        reading[end] = rank
    try:
        _collect(reading, found)
    finally:
        for process in processes:
            process.kill()
            process.join()
    return found


def found_by_all(checks: Checks, ranks: int, folder: Path) -> list[Findings]:
    """As ``findings_of``, where no rank may fail."""
    found = findings_of(checks, ranks, folder)
    errors = [findings["error"] for findings in found if "error" in findings]
    assert not errors, "\n".join(errors)
    return found


def same_on(found: list[Findings], name: str) -> Any:
    """A finding that all ranks that have it have alike."""
    findings = [one[name] for one in found if name in one]
    assert findings and all(finding == findings[0] for finding in findings[1:]), (
        f"{name}: {findings}"
    )
    return findings[0]


def _collect(reading: dict[Connection, int], found: list[Findings]) -> None:
    deadline = time.monotonic() + PATIENCE
    while reading and (left := deadline - time.monotonic()) > 0:
        for end in wait(list(reading), left):
            assert isinstance(end, Connection)
            try:
                name, finding = end.recv()
                found[reading[end]][name] = finding
            except EOFError:  # the process has ended
                del reading[end]


def _run(checks: Checks, rank: int, ranks: int, folder: Path, to: Connection) -> None:
    torch.set_num_threads(1)
    if sys.platform == "linux":
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"  # a host's name need not resolve
    try:
        dist.init_process_group(
            "gloo",
            init_method=f"file://{folder / 'meeting'}",
            rank=rank,
            world_size=ranks,
            timeout=COLLECTIVE,
        )
        for finding in checks(rank):
            to.send(finding)
    except Exception:
        to.send(("error", traceback.format_exc()))
    to.close()
    os._exit(0)  # where another rank is gone, taking the group down would wait for it
