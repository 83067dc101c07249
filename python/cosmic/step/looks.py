"""What a look at the gradients says: whether a tensor is masked. Of its role they say nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from .. import _core
from ..rungs import MATRIX
from ..state.entries import MASKED, State, holds, rung_of
from ..state.groups import Group
from ..state.members import members

__all__ = ["DENSE", "is_masked", "observed", "observed_of", "plain"]

#: The share of numbers other than zero, among the rows and columns that have any, below which a
#: gradient counts as masked: a second moment by rows and columns would be this share of what it is.
DENSE = 0.6


def observed(groups: Sequence[Group], state: Mapping[Tensor, State]) -> dict[Tensor, State]:
    """What a look at the gradients says that is new: entries for the states of parameters."""
    found: dict[Tensor, State] = {}
    for member in members(groups):
        entries = observed_of(member.param, member.label, state.get(member.param, {}))
        if entries:
            found[member.param] = entries
    return found


def observed_of(param: Tensor, label: str, state: State) -> State:
    """Entries for a parameter's state after a look at its gradient: that this is masked, where the
    second moment is kept by rows and columns."""
    if param.grad is None or not holds(state):
        return {}
    return {MASKED: 1} if rung_of(state).v in MATRIX and is_masked(param, label) else {}


def is_masked(param: Tensor, label: str) -> bool:
    """Whether a parameter's gradient has zeros that its rows and columns do not explain, as under a
    mask: they are no description of its second moment then."""
    if param.grad is None or param.grad.layout != torch.strided:
        return False  # what is not dense, the step itself refuses
    return _core.density(param.detach(), plain(param.grad), label) < DENSE


def plain(gradient: Tensor) -> Tensor:
    """The gradient itself, not a lazily conjugated or negated view."""
    return gradient.detach().resolve_conj().resolve_neg()
