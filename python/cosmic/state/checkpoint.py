"""Reading a ``state_dict``: checked against the parameters before anything changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from .. import _core
from ..rungs import Geometry
from .adamw import imported, is_adamw
from .building import rebuilt
from .checks import check_same_parts, checked
from .entries import (
    STATE_FORMAT,
    State,
    by_part,
    entries_of,
    foreign,
    holds,
    own,
    prefixed,
    prefixes,
    rung_of,
)
from .groups import Group
from .members import Member, members, naming, parts_of
from .saved_parts import groups_with_loaded_parts, with_own_parts
from .saved_shards import local_state, whole_member
from .shards import whole_of
from .torch_muon import muon_imported, of_muon
from .upgrade import upgraded

__all__ = ["read_saved"]

#: Options of a group that a checkpoint may lack, because they came after the format.
_NEWER_OPTIONS = (
    "min_compress_size", "stochastic_rounding", "rung", "min_tier", "max_tier", "robustness",
    "rel_floor", "exact", "role", "matrix_rule", "matrix_state_dtype", "parts", "momentum",
    "ns_steps", "matrix_every", "matrix_blocks", "lr_scale", "rule", "blend", "kappa", "blend_to",
    "blend_steps", "blend_schedule", "master_bits",
    *(option["name"] for gate in _core.parts()["gates"].values() for option in gate["options"]),
)  # fmt: skip


def read_saved(
    saved: dict[str, Any], groups: Sequence[Group], seed: int, *, summed: bool = False
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A state dict, of Cosmic, of AdamW or of torch.optim.Muon, with all options that Cosmic's
    groups have; and what ``_parsed`` finds in it.

    Raises:
        ValueError: for another number of groups, and as of ``imported`` and ``_parsed``.
    """
    if len(saved["param_groups"]) != len(groups):
        raise ValueError(
            f"loaded state dict has {len(saved['param_groups'])} parameter groups, this optimizer "
            f"has {len(groups)}"
        )
    saved = {**saved, "param_groups": with_own_parts(saved["param_groups"], groups)}
    if of_muon(saved):
        saved = muon_imported(saved, groups)
    elif is_adamw(saved):
        saved = imported(saved, groups)
    saved = _with_missing_options(saved, groups)
    found = _parsed(saved, groups, seed, summed)
    return {**saved, "param_groups": found.pop("param_groups")}, found


def _with_missing_options(saved: dict[str, Any], groups: Sequence[Group]) -> dict[str, Any]:
    """The state dict with options that an older release did not have, as ``groups`` have them."""
    filled = [
        {**{key: own[key] for key in own if key in _NEWER_OPTIONS}, **group}
        for own, group in zip(groups, saved["param_groups"], strict=False)
    ]
    return {**saved, "param_groups": filled + saved["param_groups"][len(filled) :]}


def _parsed(
    saved: dict[str, Any], groups: Sequence[Group], seed: int, summed: bool
) -> dict[str, Any]:
    """State for the parameters of ``groups`` out of a state dict.

    Args:
        seed: of the random bits, where a state must be encoded anew.
        summed: whether sums are over all shards of a parameter.

    Returns:
        ``param_groups``, ``state`` by parameter (copies), ``others``, which belongs to none of
        them, ``steps``, ``skipped``, ``gradient_norm``, ``options_changed`` and ``controllers``.

    Raises:
        ValueError: if the format is newer than this release, or a state does not fit its parameter.
    """
    about = saved.get("cosmic", {})
    if not isinstance(about, dict):
        raise ValueError(f"the state_dict's 'cosmic' is {about!r}; expected a dict")
    if _counter(about, "format", STATE_FORMAT) > STATE_FORMAT:
        raise ValueError(
            f"the state_dict has format {about['format']}, newer than this release's "
            f"{STATE_FORMAT}; upgrade cosmic-optim"
        )
    ids = [i for group in saved["param_groups"] for i in group["params"]]
    everyone = list(members(groups))
    if len(ids) != len(everyone):
        raise ValueError(
            f"loaded state dict has {len(ids)} parameters, this optimizer has {len(everyone)}"
        )
    _check_origin(saved, ids, everyone)
    loaded_groups = groups_with_loaded_parts(saved, groups)
    state: dict[Tensor, State] = {}
    for member, saved_id in zip(everyone, ids, strict=True):
        if old := saved["state"].get(saved_id):
            if not isinstance(old, dict):
                raise ValueError(f"the state of {member.label} is {old!r}; expected a dict")
            own_group = groups[member.group]
            saved_group = {**own_group, **loaded_groups[member.group], "parts": own_group["parts"]}
            state[member.param] = _restored(member, saved_group, old, seed, summed)
    parts = (part for held in state.values() for part in by_part(held))
    counts = (int(part["step"]) for part in parts if "step" in part)
    return {
        "param_groups": loaded_groups,
        "state": state,
        "others": {k: v for k, v in saved["state"].items() if k not in set(ids)},
        "steps": _counter(about, "steps", max(counts, default=0)),
        "skipped": _counter(about, "skipped", 0),
        "gradient_norm": _norm(about),
        "options_changed": about.get("options_changed", False) is True,
        "controllers": _controllers(about),
    }


def _check_origin(saved: dict[str, Any], ids: list[Any], everyone: list[Member]) -> None:
    """A state dict that says nothing of Cosmic may come through a checkpointer that keeps no more
    than states and groups; one whose states are all another optimizer's does not."""
    states = {i: saved["state"].get(i) for i in ids}
    ours = any(holds(s) or (isinstance(s, dict) and "rung" in s) for s in states.values())
    first = next((k for k, i in enumerate(ids) if states[i]), None)
    if "cosmic" not in saved and first is not None and not ours:
        raise ValueError(
            f"{everyone[first].label}: its state has no rung: neither Cosmic nor AdamW has saved it"
        )


def _norm(about: dict[str, Any]) -> float | None:
    norm = about.get("gradient_norm")
    if norm is not None and not (isinstance(norm, float) and 0 <= norm < float("inf")):
        raise ValueError(
            f"the state_dict's 'cosmic' has gradient_norm {norm!r}; expected a float >= 0"
        )
    return norm


def _controllers(about: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Kind and numbers of each controller by its name."""
    saved = about.get("controllers", {})
    whole = isinstance(saved, dict) and all(
        isinstance(one, dict) and set(one) == {"kind", "numbers"} for one in saved.values()
    )
    if not whole:
        raise ValueError(
            f"the state_dict's 'cosmic' has controllers {saved!r}; expected a dict with 'kind' and "
            "'numbers' of each by name"
        )
    return dict(saved)


def _counter(about: dict[str, Any], key: str, default: int) -> int:
    value = about.get(key, default)
    if not isinstance(value, int) or not 0 <= value < 2**62:
        raise ValueError(f"the state_dict's 'cosmic' has {key} {value!r}; expected an int >= 0")
    return value


def _restored(member: Member, group: Group, saved: State, seed: int, summed: bool) -> State:
    """COSMIC's entries of a saved state, if it has any, and whatever others have put there.

    Args:
        group: the saved one, with the parts of the optimizer's.
    """
    param = member.param
    with naming(member):
        if holds(saved) or "rung" in saved:
            Geometry.of(whole_of(param))  # refuses what has no shape yet
            saved = upgraded(whole_member(member).param, saved, group)
        if not holds(saved):
            return local_state((member,), group, _of_others(saved), seed, summed=summed)
        parts = parts_of(member, group)
        check_same_parts(parts, saved)
        for prefix in prefixes(saved):
            rung_of(saved, prefix)  # refuses what is none
    saved = local_state(parts, group, saved, seed, summed=summed)
    state = foreign(saved)
    for part in parts:
        with naming(part):
            entries = own(entries_of(saved, part.prefix))
            held = checked(part.tensor, entries, param, part.shard)
            new = rebuilt(part.tensor, held, group, part.index, seed, part.shard)
        state.update(prefixed(new, part.prefix))
    return state


def _of_others(saved: State) -> State:
    if found := [key for key in saved if key == "rung" or str(key).startswith("exp_avg")]:
        raise ValueError(
            f"its state has {found[0]!r} and no rung: it was not saved by Cosmic, or not as a whole"
        )
    return saved
