"""The copies in 16 bits that a step leaves of its parameters: what users give, by parameter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from torch import Tensor

from .. import _core
from ..state.groups import Group
from ..state.members import Member, members
from ..state.shards import local_of

__all__ = ["CopyTo", "by_position", "check_apart"]

#: A tensor of each parameter, in the order of the groups' parameters, or by parameter; None where
#: no copy is wanted.
CopyTo: TypeAlias = Sequence[Tensor | None] | Mapping[Tensor, Tensor | None]


def by_position(copy_to: CopyTo, groups: Sequence[Group]) -> list[Tensor | None]:
    """The copy of each parameter, in order, None where there is none: of a DTensor the shard that
    is here. What a tensor is like is looked at when the step binds it.

    Raises:
        TypeError, ValueError: for what is neither form of ``copy_to``, naming the place.
    """
    owners = list(members(groups))
    if isinstance(copy_to, Mapping):
        given = [copy_to.get(owner.param) for owner in owners]
        asked = {id(param) for param in copy_to}
        if len(asked - {id(owner.param) for owner in owners}):
            raise ValueError(
                "copy_to has a key that is no parameter of this optimizer; expected tensors of "
                "its param_groups as keys"
            )
    elif isinstance(copy_to, Sequence) and not isinstance(copy_to, str | bytes):
        given = list(copy_to)
        if len(given) != len(owners):
            raise ValueError(
                f"copy_to has {len(given)} entries; expected {len(owners)}: one, or None, for each "
                "parameter in the order of param_groups"
            )
    else:
        raise TypeError(
            f"copy_to is of type {type(copy_to).__name__}; expected a sequence of tensors (or "
            "None) in the order of the groups' parameters, or a mapping of parameters to tensors"
        )
    for owner, copy in zip(owners, given, strict=True):
        if copy is not None and not isinstance(copy, Tensor):
            raise TypeError(
                f"{owner.label}: its copy in copy_to is of type {type(copy).__name__}; expected a "
                "bfloat16 or float16 tensor, or None"
            )
    return [None if copy is None else local_of(copy) for copy in given]


def check_apart(copies: Sequence[Tensor | None], owners: Sequence[Member]) -> None:
    """Raise ValueError, UnsupportedTensorError for copies that do not fit their parameters, or that
    share memory with each other or with a parameter: for a step that meets them one at a time."""
    given = [(o, copy) for o, copy in zip(owners, copies, strict=True) if copy is not None]
    _core.check_copies([(owner.label, copy, local_of(owner.param)) for owner, copy in given],
                       [(owner.label, local_of(owner.param)) for owner in owners])  # fmt: skip
