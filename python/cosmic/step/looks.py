"""What a look at the gradients says: whether a tensor is masked. Of its role they say nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from .. import _core
from ..rungs import MATRIX
from ..state.entries import MASKED, State, entries_of, holds, rung_of
from ..state.groups import Group
from ..state.members import Member, members, parts_of

__all__ = ["DENSE", "is_masked", "observed", "observed_of", "plain", "turns"]

#: The share of numbers other than zero, among the rows and columns that have any, below which a
#: gradient counts as masked: a second moment by rows and columns would be this share of what it is.
DENSE = 0.6


def observed(groups: Sequence[Group], state: Mapping[Tensor, State]) -> dict[Tensor, State]:
    """What a look at the gradients says that is new: entries for the states of parameters."""
    found: dict[Tensor, State] = {}
    for member in members(groups):
        entries = observed_of(member, groups[member.group], state.get(member.param, {}))
        if entries:
            found[member.param] = entries
    return found


def observed_of(member: Member, group: Group, state: State) -> State:
    """Entries for a parameter's state after a look at its gradient: that this is masked, where the
    second moment is kept by rows and columns."""
    if member.param.grad is None or not holds(state) or member.shard is not None:
        return {}  # of a DTensor each process would see something else
    return {
        row.prefix + MASKED: 1
        for row in parts_of(member, group)
        if _keeps_rows(entries_of(state, row.prefix)) and is_masked(row)
    }


def _keeps_rows(state: State) -> bool:
    return holds(state) and rung_of(state).v in MATRIX


def is_masked(row: Member) -> bool:
    """Whether a tensor's gradient has zeros that its rows and columns do not explain, as under a
    mask: they are no description of its second moment then."""
    gradient = row.gradient
    if gradient is None or gradient.layout != torch.strided:
        return False  # what is not dense, the step itself refuses
    return _core.density(row.tensor.detach(), plain(gradient), row.label) < DENSE


def turns(row: Member, state: State) -> bool:
    """Whether a tensor's first gradient, which has come by now, wants its second moment kept by
    columns where it is to be by rows, or by neither."""
    gradient = row.gradient
    if gradient is None or row.shard is not None or not _keeps_rows(state):
        return False
    _core.check_memory(state["step"], f"state '{row.prefix}step' of {row.label}")
    if int(state["step"]) > 0:
        return False
    return is_masked(row) or (
        rung_of(state).v == "rowmean"
        and _core.keeps_columns(row.tensor.detach(), plain(gradient), row.label)
    )


def plain(gradient: Tensor) -> Tensor:
    """The gradient itself, not a lazily conjugated or negated view."""
    return gradient.detach().resolve_conj().resolve_neg()
