"""Fixtures: one process for each ISA, and thread counts that are put back."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, TypeVar

# Before OpenMP's runtime is loaded: threads that wait shall sleep. By default they hold a core, and
# where other processes want it, as other tests do, small steps take ten times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import pytest
import torch

import cosmic

T = TypeVar("T")
Runner = Callable[..., Any]

ISAS: list[str] = cosmic._core.build_info()["isa_available"]


def isa_in_use() -> str:
    """Asked of a worker process."""
    return str(cosmic._core.build_info()["isa"])


def started(isa: str) -> ProcessPoolExecutor:
    """A process that was started with COSMIC_ISA set."""
    worker = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COSMIC_ISA", isa)  # read when the worker starts, at its first task
        in_use = worker.submit(isa_in_use).result()
    assert in_use == isa, f"asked for ISA {isa}, the process runs {in_use}"
    return worker


@pytest.fixture(scope="session")
def workers() -> Iterator[dict[str, ProcessPoolExecutor]]:
    """The processes so far, by ISA."""
    found: dict[str, ProcessPoolExecutor] = {}
    yield found
    for worker in found.values():
        worker.shutdown()


@pytest.fixture(params=ISAS)
def on_isa(request: pytest.FixtureRequest, workers: dict[str, ProcessPoolExecutor]) -> Runner:
    """``on_isa(function, *arguments)`` calls a function of a test module in a process of its own
    that was started with COSMIC_ISA set. Once for each ISA of this machine."""
    isa = str(request.param)
    if isa not in workers:
        workers[isa] = started(isa)

    def run(function: Callable[..., T], *arguments: Any) -> T:
        return workers[isa].submit(function, *arguments).result()

    return run


@pytest.fixture
def set_threads() -> Iterator[Callable[[int], None]]:
    """``torch.set_num_threads``, undone after the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def one_thread(set_threads: Callable[[int], None]) -> None:
    """Small tensors gain nothing by two, and a busy machine loses much."""
    set_threads(1)
