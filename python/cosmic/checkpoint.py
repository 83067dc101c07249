"""Reading a ``state_dict``: checked against the parameters before anything changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from .planner import Group, Member, members
from .rungs import Geometry, Rung
from .state import State, build_state

__all__ = ["STATE_FORMAT", "parse_saved", "with_missing_options"]

#: Options of a group that a checkpoint may lack, because they came after the format.
_NEWER_OPTIONS = ("min_compress_size", "stochastic_rounding")

#: Format of `state_dict()`, raised whenever its meaning changes.
STATE_FORMAT = 1


def with_missing_options(saved: dict[str, Any], groups: Sequence[Group]) -> dict[str, Any]:
    """The state dict with options that an older release did not have, as ``groups`` have them."""
    filled = [
        {**{key: own[key] for key in own if key in _NEWER_OPTIONS}, **group}
        for own, group in zip(groups, saved["param_groups"], strict=False)
    ]
    return {**saved, "param_groups": filled + saved["param_groups"][len(filled) :]}


def parse_saved(saved: dict[str, Any], groups: Sequence[Group], seed: int) -> dict[str, Any]:
    """State for the parameters of ``groups`` out of a state dict.

    Args:
        seed: of the random bits, where a state must be encoded anew.

    Returns:
        ``state`` by parameter (copies), ``steps`` and ``skipped``.

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
    own = list(members(groups))
    if len(ids) != len(own):
        raise ValueError(
            f"loaded state dict has {len(ids)} parameters, this optimizer has {len(own)}"
        )
    state: dict[Tensor, State] = {}
    for member, saved_id in zip(own, ids, strict=True):
        if old := saved["state"].get(saved_id):
            saved_group = {**groups[member.group], **saved["param_groups"][member.group]}
            state[member.param] = _restored(member, saved_group, old, seed)
    counts = (int(s["step"]) for s in state.values() if "step" in s)
    return {
        "state": state,
        "steps": _counter(about, "steps", max(counts, default=0)),
        "skipped": _counter(about, "skipped", 0),
    }


def _counter(about: dict[str, Any], key: str, default: int) -> int:
    value = about.get(key, default)
    if not isinstance(value, int) or value < 0:
        raise ValueError(f"the state_dict's 'cosmic' has {key} {value!r}; expected an int >= 0")
    return value


def _restored(member: Member, group: Group, saved: State, seed: int) -> State:
    param, label = member.param, member.label
    if "rung" not in saved:
        raise ValueError(f"the state of {label} has no 'rung': it was not saved by Cosmic")
    try:
        rung = Rung.parse(saved["rung"])
    except ValueError as error:
        raise ValueError(f"the state of {label}: {error}") from None
    try:
        entries = rung.entries(Geometry.of(param, label))
    except ValueError as error:
        raise ValueError(f"{label}: {error}") from None
    for key in entries:
        if key not in saved:
            raise ValueError(f"the state of {label} has no {key!r}, which {rung.name} needs")
        if not isinstance(saved[key], Tensor):
            raise ValueError(f"the state of {label} has {key} {saved[key]!r}; expected a tensor")
    if "step" in entries and not (saved["step"] >= 0).all():
        raise ValueError(f"the state of {label} has step {saved['step']}; expected 0 or more")
    copied = {k: v.clone() if isinstance(v, Tensor) else v for k, v in saved.items()}
    try:
        return build_state(
            param, rung, copied, gate="gate" in saved, signal="signal" in saved, group=group,
            index=member.index, seed=seed,
        )  # fmt: skip
    except ValueError as error:
        raise ValueError(f"{label}: {error}") from None
