"""Which form a saved state is in, and empty ones for a checkpoint to be loaded into."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..rungs import MATRIX, PLAIN
from .entries import State, entries_of, own, rung_of
from .members import Member
from .saved_forms import ANY, PLACE, numbers_by_key
from .saved_layout import Layout
from .shard_tensors import as_saved, box_of
from .shards import is_sharded

__all__ = ["empty_state", "is_of_shards", "saved_layout"]


def empty_state(rows: Sequence[Member], described: State) -> State:
    """Zeros in the place of tensors that a checkpoint is described by, for it to be loaded into.

    Args:
        described: the state of the parameter, or parts of one, that ``rows`` are.
    """
    param, tables = rows[0].param, tables_of(described, rows)
    of_shards = is_of_shards(described, rows) is not False
    wholes = tuple(row.prefix for row in rows if _is_taken_whole(row, described))
    out: State = {}
    for key, value in described.items():
        if not isinstance(value, Tensor):
            out[key] = value
            continue
        shape = tuple(value.shape)
        cut = of_shards and not key.endswith(PLACE) and shape[:1] == param.shape[:1]
        cut = cut and not key.startswith(wholes)
        if not is_sharded(param) or not cut:
            out[key] = torch.zeros(shape, dtype=value.dtype, device="cpu")
            continue
        _, local = box_of(param, shape, table=key in tables)
        zeros = torch.zeros(local, dtype=value.dtype, device="cpu")
        out[key] = as_saved(zeros, param, shape, table=key in tables)
    return out


def tables_of(state: State, rows: Sequence[Member]) -> set[str]:
    """Keys of what is a table of a checkpoint of shards."""
    out: set[str] = set()
    for row in rows:
        held = own(entries_of(state, row.prefix))
        if not held:
            continue
        rung = rung_of(held)
        found = set(numbers_by_key(rung))
        for slot, codec in rung.slots.items():
            first, *rest = [slot + plane[0] for plane in rung.layout(slot, ANY)]
            decoded = codec not in PLAIN and _is_decoded(held.get(first), saved_layout(row, held))
            found |= set(rest) if decoded else {k for k in (first, *rest) if k.endswith("_col")}
        sheets = {key for key, value in held.items() if getattr(value, "ndim", 0) == 2}
        out |= {row.prefix + key for key in found & sheets}
    return out


def saved_layout(row: Member, held: State) -> Layout:
    """A row's layout with the forms that its entries of a checkpoint have, which shards that were
    cut along other dimensions have saved; what the entries do not say is as its own."""
    found, rung = Layout.of(row), rung_of(held)
    firsts = {slot: held.get(slot + rung.layout(slot, ANY)[0][0]) for slot in rung.slots}
    along = None if row.part is None else row.part.dimension
    for laid in {None, along} - {found.laid} if along else ():
        other = replace(found, laid=laid)
        if any(_is_decoded(first, other) for first in firsts.values()):
            found = other
    for slot, codec in rung.slots.items():
        if codec in PLAIN or firsts[slot] is None:
            continue
        packed = not _is_decoded(firsts[slot], found)
        if codec in MATRIX:
            found = replace(found, by_rows=packed)
        else:
            found = replace(found, whole_blocks=packed)
    return found


def _is_decoded(first: Any, layout: Layout) -> bool:
    """Whether a slot's first tensor has one number an element."""
    numbers = isinstance(first, Tensor) and first.is_floating_point()
    return numbers and tuple(first.shape) == layout.whole_shape


def _is_taken_whole(row: Member, described: State) -> bool:
    held = own(entries_of(described, row.prefix))
    return bool(held) and Layout.of(row).cannot_cut(saved_layout(row, held))


def is_of_shards(saved: State, rows: Sequence[Member]) -> bool | None:
    """Whether a state is as a checkpoint of shards has it; None where all its tensors are the same
    in both forms."""
    found = None
    for row in rows:
        held = own(entries_of(saved, row.prefix))
        if not held:
            continue
        rung = rung_of(held)
        planes = {key for key, plane in rung.planes(ANY).items() if not plane[3]}
        flat = [held[key] for key in (planes | set(numbers_by_key(rung))) & set(held)]
        if any(map(is_sharded, flat)):
            return True
        tables = [t for t in flat if isinstance(t, Tensor) and t.dim() > 1]
        first = row.param.shape[0] if row.param.dim() else 1
        if tables and (is_sharded(row.param) or all(t.shape[0] == first for t in tables)):
            return True
        found = False if flat else found
    return found
