"""Bytes of storages, each counted once."""

from __future__ import annotations

import torch
from torch import Tensor

from .layout import Layout
from .owned import Pins, storage_of

__all__ = ["Extents", "bytes_of"]

_COMPRESSED = (
    torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc, torch.jagged,
)  # fmt: skip


class Extents:
    """The union of the stretches of memory, first to last element, that tensors take."""

    def __init__(self) -> None:
        self._stretches: dict[int, list[tuple[int, int]]] = {}
        self._pins = Pins()

    def add(self, tensor: Tensor, layout: Layout) -> int:
        """Add a strided tensor; bytes by which the union has grown."""
        storage, size = storage_of(tensor), tensor.element_size()
        start = layout.offset * size
        stop = start + layout.span * size
        for dead in self._pins.add(tensor):
            self._stretches.pop(dead, None)
        before = self._stretches.get(storage, [])
        apart = [(a, b) for a, b in before if b < start or a > stop]
        touched = [(a, b) for a, b in before if not (b < start or a > stop)]
        low = min([start, *(a for a, _ in touched)])
        high = max([stop, *(b for _, b in touched)])
        self._stretches[storage] = [*apart, (low, high)]
        return (high - low) - sum(b - a for a, b in touched)

    def clear(self) -> None:
        """Forget all."""
        self._stretches.clear()
        self._pins.clear()


def bytes_of(tensor: Tensor) -> int:
    """Bytes of a tensor that is not strided, or whose storage is not its own."""
    if tensor.layout == torch.sparse_coo:
        return tensor._indices().nbytes + tensor._values().nbytes
    if tensor.layout in _COMPRESSED:
        return tensor.values().nbytes
    return tensor.numel() * tensor.element_size()
