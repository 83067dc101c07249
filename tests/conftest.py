"""Fixtures: one process for each ISA, and thread counts that are put back."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, TypeVar

import pytest
import torch

import cosmic

T = TypeVar("T")
Runner = Callable[..., Any]

ISAS: list[str] = cosmic._core.build_info()["isa_available"]


def isa_in_use() -> str:
    """Asked of a worker process."""
    return str(cosmic._core.build_info()["isa"])


@pytest.fixture(scope="session", params=ISAS)
def on_isa(request: pytest.FixtureRequest) -> Iterator[Runner]:
    """``on_isa(function, *arguments)`` calls a function of a test module in a process of its own
    that was started with COSMIC_ISA set. Once for each ISA of this machine."""
    name = request.param
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as worker:

        def run(function: Callable[..., T], *arguments: Any) -> T:
            return worker.submit(function, *arguments).result()

        before = os.environ.get("COSMIC_ISA")
        os.environ["COSMIC_ISA"] = name  # read when the worker starts, at its first task
        try:
            in_use = run(isa_in_use)
        finally:
            if before is None:
                del os.environ["COSMIC_ISA"]
            else:
                os.environ["COSMIC_ISA"] = before
        assert in_use == name, f"asked for ISA {name}, the process runs {in_use}"
        yield run


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
