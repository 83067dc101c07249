"""State of sharded parameters as a checkpoint has it, which other shards can be cut from.

While it runs, the state of a DTensor is of the shard that is here, in plain tensors. In a
checkpoint its entries have the same keys, and are DTensors whose first dimension is the
parameter's, whatever the number of shards:

- one number an element: of the parameter's shape;
- codes and scales whose blocks lie within rows: as bytes, so many a row;
- other codes: decoded to float32, and in the place of the scales the bytes of the shard, which are
  taken back by a shard of the same elements;
- means of rows, so many a row; means of columns, of which each shard has its own, and numbers of a
  whole tensor: tables (``saved_tables``).

What is the same on every process stays as it is: the marker, ``step``, ``exp_avg_start``, roles.
Nothing here communicates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from .checks import checked
from .entries import State, entries_of, foreign, holds, own, prefixed
from .groups import Group
from .loaded_forms import LoadedForm
from .members import Member, naming
from .saved_forms import SavedForm
from .saved_layout import Layout
from .saved_shapes import is_of_shards, saved_layout
from .shards import is_sharded

__all__ = ["local_state", "saved_state", "whole_member"]


def saved_state(rows: Sequence[Member], group: Group, state: State, *, summed: bool) -> State:
    """A state with COSMIC's entries as a checkpoint of shards has them; what others keep is left
    as it is.

    Args:
        rows: the parameter, or its parts.
        summed: whether sums are over all shards, so that all have the same means of columns.

    Raises:
        ValueError: for a state that does not fit its parameter.
    """
    if not holds(state):
        return dict(state)
    out = foreign(state)
    for row in rows:
        held = own(entries_of(state, row.prefix))
        if held:
            with naming(row):
                out.update(prefixed(SavedForm(row, group, held, summed).state(), row.prefix))
    return out


def local_state(
    rows: Sequence[Member], group: Group, saved: State, seed: int, *, summed: bool
) -> State:
    """The other way: tensors of their own, of the shard that is here, as ``optimizer.state`` has
    them. Both ways between shards and tensors that are whole: a parameter that is no DTensor takes
    all of a checkpoint of shards, and a shard its own of a checkpoint of whole ones.

    Args:
        saved: of the parts that ``rows`` are.
        seed: of the random bits, where codes must be made anew.

    Raises:
        ValueError: for entries that do not fit the parameter.
    """
    if not holds(saved):
        return _own_memory(saved)
    of_shards = is_of_shards(saved, rows)
    if not of_shards:
        if not is_sharded(rows[0].param):
            return _own_memory(saved)
        if of_shards is False:
            saved = _cut_anew(rows, group, saved)
    out = _own_memory(foreign(saved))
    for row in rows:
        held = own(entries_of(saved, row.prefix))
        if held:
            with naming(row):
                new = _local_row(row, group, held, seed, summed)
            out.update(prefixed(new, row.prefix))
    return out


def _local_row(row: Member, group: Group, held: State, seed: int, summed: bool) -> State:
    here, saved = Layout.of(row), saved_layout(row, held)
    if here.cannot_cut(saved):
        whole = whole_member(row)
        every = Layout.of(whole)
        state = LoadedForm(whole, group, held, False, every.formed_as(saved)).state(seed)
        held = SavedForm(whole, group, state, False, every.formed_as(here)).state()
        saved = here
    return LoadedForm(row, group, held, summed, saved).state(seed)


def _cut_anew(rows: Sequence[Member], group: Group, saved: State) -> State:
    """A state of whole tensors as a checkpoint of shards has it."""
    out = foreign(saved)
    for row in rows:
        whole = whole_member(row)
        held = own(entries_of(saved, row.prefix))
        if held:
            with naming(row):
                fitting = checked(whole.tensor, held)
                layout = Layout.of(whole).formed_as(Layout.of(row))
                new = SavedForm(whole, group, fitting, False, layout).state()
            out.update(prefixed(new, row.prefix))
    return out


def whole_member(row: Member) -> Member:
    """The same parameter, or part of one, in one piece, in memory that nobody has written to."""
    if not is_sharded(row.param):
        return row
    param = row.param
    whole = torch.empty_strided(tuple(param.shape), param.stride(), dtype=param.dtype, device="cpu")
    return replace(row, param=whole)


def _own_memory(state: State) -> State:
    return {k: v.detach().clone() if isinstance(v, Tensor) else v for k, v in state.items()}
