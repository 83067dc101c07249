"""Fixtures of the clients' tests."""

from __future__ import annotations

from collections.abc import Callable

import pytest


@pytest.fixture(autouse=True)
def one_thread(set_threads: Callable[[int], None]) -> None:
    """Models as small as these are slower with more; and torch's own sums depend on it."""
    set_threads(1)
