"""Forked processes and threads: no step waits for ever, and bits are those of one after another."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from cosmic import Cosmic
from helpers import digest, parameter
from optimizers import Row, each, stepped

HERE = Path(__file__).parent
THREADS = 4

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")


@pytest.fixture(scope="module")
def forked() -> dict[str, dict[str, str]]:
    """What a process with children found, by optimizer."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", str(HERE / "forking.py")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parent), *sys.path])},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {line["row"]: line for line in lines}


@forks
@each
def test_a_forked_child_steps(row: Row, forked: dict[str, dict[str, str]]) -> None:
    """After its parent has stepped on several threads, which do not live on in the child; torch's
    own AdamW waits for them for ever. With the bits of the parent's own next steps."""
    assert forked[row.name]["child"] == forked[row.name]["parent"]


@forks
@each
def test_a_forked_child_makes_state_and_steps(row: Row, forked: dict[str, dict[str, str]]) -> None:
    """The first step makes state with torch's operators, which hang there in their turn."""
    assert forked[row.name]["first in child"] == forked[row.name]["first in parent"]


@forks
@each
def test_a_dataloader_s_workers_are_forked_between_steps(
    row: Row, forked: dict[str, dict[str, str]]
) -> None:
    assert forked[row.name]["workers"] == forked[row.name]["no workers"]


@each
def test_threads_step_their_own_optimizers(row: Row, set_threads: Callable[[int], None]) -> None:
    """All at once, each on several threads of its own."""
    set_threads(2)

    def made(number: int) -> Cosmic:
        return row.make([parameter(10 * number + k, 100, 401) for k in range(2)])

    def run(number: int) -> str:
        optimizer = made(number)
        together.wait()
        return digest(stepped(optimizer, number, number + 4))

    together = Barrier(THREADS)
    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(run, range(THREADS)))
    serial = [digest(stepped(made(n), n, n + 4)) for n in range(THREADS)]
    assert found == serial
    assert len(set(serial)) == THREADS


@each
def test_a_step_may_come_from_another_thread(row: Row) -> None:
    """As where a trainer steps from a thread of its own; every step from another one."""
    optimizer = row.make([parameter(k, 100, 401) for k in range(2)])
    twin = row.make([parameter(k, 100, 401) for k in range(2)])
    for step in range(3):
        with ThreadPoolExecutor(1) as pool:
            pool.submit(stepped, optimizer, step, step + 1).result()
    assert digest(optimizer) == digest(stepped(twin, 0, 3))
