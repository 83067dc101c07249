"""The parts of a saved optimizer beside those of the optimizer that it is loaded into.

Parameters may have had other names when they were saved, as a wrapper adds to them, or none. So the
saved option ``parts`` is read with the saved names and held to what each saved state has, and it
goes on under the names that the parameters have from then on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeGuard

from .entries import State, holds, prefixes
from .groups import Group, name_of, placed_params
from .members import Member, members, naming
from .slices import SEPARATOR, Slice, check_parts, cut_for, described, slices_of

__all__ = ["groups_with_loaded_parts", "with_own_parts"]


def with_own_parts(saved: Sequence[Group], groups: Sequence[Group]) -> list[Group]:
    """Saved groups, those that say nothing of parts with the optimizer's own, by the names that
    loading gives the parameters."""
    cuts: list[dict[str, Any]] = [{} for _ in groups]
    same = True
    for index, (g, k, _) in enumerate(placed_params(groups)):
        name, loaded = _called(groups[g], k, index), _called({**groups[g], **saved[g]}, k, index)
        cuts[g][loaded] = cut_for(groups[g]["parts"], name)
        same = same and name == loaded
    own = groups if same else _by_names(groups, cuts)
    return [{"parts": mine["parts"], **group} for mine, group in zip(own, saved, strict=True)]


def groups_with_loaded_parts(saved: Mapping[str, Any], groups: Sequence[Group]) -> list[Group]:
    """The saved groups, with ``parts`` by the names that loading gives the parameters: the saved
    ones or, where there are none, the optimizer's.

    Args:
        saved: a state dict with as many parameters as the groups have.

    Raises:
        ValueError: for ``parts`` of no form, and naming the parameter, whose saved state is of
            other parts than the optimizer's groups have, or whose shape the saved parts do not fit.
    """
    loaded: list[Group] = saved["param_groups"]
    for index, group in enumerate(loaded):
        check_parts(group, f"the state_dict's param_groups[{index}]")
    ids = [i for group in loaded for i in group["params"]]
    cuts: list[dict[str, Any]] = [{} for _ in groups]
    same = True
    for member, (g, k, _), saved_id in zip(
        members(groups), placed_params(groups), ids, strict=True
    ):
        name = _called({**groups[g], **loaded[g]}, k, member.index)
        state = saved["state"].get(saved_id)
        with naming(member):
            said_of = _name_said_of(member, loaded[g], k, state)
            _check_same(member, groups[g], loaded[g], said_of, state)
        told = groups[g] if said_of is None else loaded[g]
        cuts[g][name] = cut_for(told["parts"], said_of or member.param_name)
        same = same and name == said_of
    return loaded if same else _by_names(loaded, cuts)


def _called(group: Group, position: int, index: int) -> str:
    """A parameter's name, or its number as text."""
    return name_of(group, position) or str(index)


def _name_said_of(member: Member, group: Group, position: int, state: object) -> str | None:
    """The name under which the saved group speaks of a parameter; None where what it says is not
    what the state has: names may have been lost on the way.

    Raises:
        ValueError: for saved parts that do not fit the parameter.
    """
    named = name_of(group, position)
    names = [str(member.index), member.param_name] if named is None else [named]
    for name in names:
        said = slices_of(group, name, member.param)
        if _has_entries(state):
            if set(prefixes(state)) == _prefixes(said):
                return name
        elif said:
            return name
    return None if _has_entries(state) else names[0]


def _check_same(
    member: Member, own: Group, group: Group, said_of: str | None, state: object
) -> None:
    """Raise ValueError for a state of other parts than the optimizer's group has. Of a parameter
    without state nothing could be lost."""
    if not _has_entries(state):
        return
    now = slices_of(own, member.param_name, member.param)
    if said_of is not None:
        saved = slices_of(group, said_of, member.param)
        same, before = saved == now, described(saved)
    else:  # sizes are the state's own, which is held to the parameter's later
        held = prefixes(state)
        same = set(held) == _prefixes(now)
        before = ", ".join(prefix.removesuffix(SEPARATOR) for prefix in held) or "none"
    if not same:
        raise ValueError(
            f"it was saved in parts {before}, and this optimizer's group has {described(now)}; "
            "make the optimizer with the parts that were saved, or load to_adamw_state_dict() of "
            "the one that saved it"
        )


def _has_entries(state: object) -> TypeGuard[State]:
    return holds(state)


def _prefixes(slices: Iterable[Slice]) -> set[str]:
    return {part.prefix for part in slices} or {""}


def _by_names(groups: Sequence[Group], cuts: Sequence[Mapping[str, Any]]) -> list[Group]:
    """Groups whose ``parts`` go by names, with these names."""
    return [
        {**group, "parts": _named(cut) if isinstance(group["parts"], Mapping) else group["parts"]}
        for group, cut in zip(groups, cuts, strict=True)
    ]


def _named(cuts: Mapping[str, Any]) -> dict[str, Any]:
    """An option ``parts`` that gives each parameter its cut: the longest names first, as a name
    stands for what wrappers add to it, too."""
    found = {name: cut for name, cut in cuts.items() if cut is not None}
    whole = {name: None for name in cuts if name not in found and cut_for(found, name) is not None}
    return dict(sorted({**found, **whole}.items(), key=lambda item: -len(item[0])))
