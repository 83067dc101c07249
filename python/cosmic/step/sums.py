"""Sums of a whole tensor whose shards are on several ranks: option ``global_sums``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from .collectives import collective

__all__ = ["Exchange", "exchange_of"]

#: What a plan calls with its sums, a writable buffer of doubles, and of each row that is a shard,
#: in order, its position in the plan and how many of the sums are its own.
Exchange = Callable[[Any, Sequence[tuple[int, int]]], None]


def exchange_of(params: Sequence[Tensor]) -> Exchange:
    """Adds sums up over the ranks that hold shards of the same tensor, in their order in the mesh,
    so that all of them have the same bits.

    Args:
        params: the parameter of each row of the plan.
    """

    def exchange(sums: Any, rows: Sequence[tuple[int, int]]) -> None:
        mine = torch.frombuffer(sums, dtype=torch.float64)
        for (mesh, placements), places in _by_layout(params, rows).items():
            at = torch.cat([torch.arange(first, last) for first, last in places])
            mine[at] = _added(mine[at], mesh, placements)

    return exchange


def _by_layout(
    params: Sequence[Tensor], rows: Sequence[tuple[int, int]]
) -> dict[tuple[Any, tuple[Any, ...]], list[tuple[int, int]]]:
    """Where the sums of tensors lie that are cut alike."""
    found: dict[tuple[Any, tuple[Any, ...]], list[tuple[int, int]]] = {}
    first = 0
    for row, count in rows:
        param: Any = params[row]
        layout = param.device_mesh, tuple(param.placements)
        found.setdefault(layout, []).append((first, first + count))
        first += count
    return found


def _added(own: Tensor, mesh: Any, placements: Sequence[Any]) -> Tensor:
    for dimension, placement in reversed(list(enumerate(placements))):
        if placement.is_replicate() or mesh.size(dimension) == 1:
            continue
        parts = [torch.empty_like(own) for _ in range(mesh.size(dimension))]
        gather = partial(dist.all_gather, parts, own)
        collective(mesh, dimension, gather, "global_sums=True adds up over all ranks")
        own = parts[0].clone()
        for part in parts[1:]:
            own += part
    return own
