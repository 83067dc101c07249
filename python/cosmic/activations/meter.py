"""What compressing activations has brought, and what it cost."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

__all__ = ["ActivationMeter"]


@dataclass
class ActivationMeter:
    """Sums over all forward passes since the start or the last ``reset``.

    Attributes:
        saved_bytes: that autograd would have held: each piece of memory once in each ``with``
            block, whatever the model owns left out.
        packed_bytes: that are held instead: codes, scales, padding, and tensors kept as they are.
        tensors: how often an operation saved a tensor.
        packed: how many pieces of memory were packed.
        shared: how often an operation saved what was packed for another already.
        kept: how often a tensor was kept as it is, by reason: ``"parameter"`` (all that the model
            owns), ``"small"``, ``"dtype"`` (integers, booleans, complex and double numbers),
            ``"statistic"``, ``"exact"`` (what backward divides by, compares or takes the
            exponential of), ``"checkpoint"``, ``"not finite"``, ``"overlapping"``, ``"subclass"``,
            ``"layout or device"``.
        pack_seconds: spent by deciding and packing.
        unpack_seconds: spent by unpacking.
    """

    saved_bytes: int = 0
    packed_bytes: int = 0
    tensors: int = 0
    packed: int = 0
    shared: int = 0
    kept: Counter[str] = field(default_factory=Counter)
    pack_seconds: float = 0.0
    unpack_seconds: float = 0.0

    @property
    def ratio(self) -> float:
        """``packed_bytes`` over ``saved_bytes``; 1 if nothing was saved."""
        return self.packed_bytes / self.saved_bytes if self.saved_bytes else 1.0

    @property
    def seconds(self) -> float:
        """Spent by packing and unpacking."""
        return self.pack_seconds + self.unpack_seconds

    def reset(self) -> None:
        """All sums to zero."""
        vars(self).update(vars(ActivationMeter()))

    @contextmanager
    def packing(self) -> Iterator[None]:
        """Adds the block's time."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.pack_seconds += time.perf_counter() - start

    @contextmanager
    def unpacking(self) -> Iterator[None]:
        """Adds the block's time."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.unpack_seconds += time.perf_counter() - start
