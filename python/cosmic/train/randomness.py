"""The state of the process's random numbers: torch's, Python's and numpy's."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

try:
    import numpy as np
except ImportError:  # torch does without, too
    np = None  # type: ignore[assignment]

__all__ = ["keeping_random_state", "random_state", "seed_everything", "set_random_state"]


def random_state() -> dict[str, Any]:
    """The state of all three, of tensors and numbers alone."""
    state = {"torch": torch.get_rng_state(), "python": random.getstate(), "numpy": None}
    if np is not None:
        kind, key, *rest = tuple(np.random.get_state(legacy=True))
        state["numpy"] = (kind, torch.tensor(np.asarray(key, dtype=np.int64)), *map(_plain, rest))
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """Go on from what ``random_state`` returned."""
    torch.set_rng_state(state["torch"])
    random.setstate(state["python"])
    if np is not None and state["numpy"] is not None:
        kind, key, *rest = state["numpy"]
        np.random.set_state((kind, key.numpy().astype(np.uint32), *rest))


@contextmanager
def keeping_random_state() -> Iterator[None]:
    """What is drawn within changes nothing after it."""
    before = random_state()
    try:
        yield
    finally:
        set_random_state(before)


def seed_everything(seed: int) -> None:
    """Seed all three; numpy takes 32 bits of it."""
    torch.manual_seed(seed)
    random.seed(seed)
    if np is not None:
        np.random.seed(seed % 2**32)


def _plain(number: Any) -> Any:
    return float(number) if isinstance(number, float) else int(number)
