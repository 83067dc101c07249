"""Reading a ``state_dict``: checked against the parameters before anything changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from .planner import Group, Member, members
from .roles import ROLES, guessed_role
from .rungs import Geometry, Rung
from .state import State, build_state, held_gate

__all__ = ["STATE_FORMAT", "parse_saved", "with_missing_options"]

#: Options of a group that a checkpoint may lack, because they came after the format.
_NEWER_OPTIONS = (
    "min_compress_size", "stochastic_rounding", "rung", "min_tier", "max_tier", "robustness",
    "rel_floor",
)  # fmt: skip

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
        ``state`` by parameter (copies), ``steps``, ``skipped`` and ``gradient_norm``.

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
        "gradient_norm": _norm(about),
    }


def _norm(about: dict[str, Any]) -> float | None:
    norm = about.get("gradient_norm")
    if norm is not None and not (isinstance(norm, float) and 0 <= norm < float("inf")):
        raise ValueError(
            f"the state_dict's 'cosmic' has gradient_norm {norm!r}; expected a float >= 0"
        )
    return norm


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
    if rung.m != "none":
        _check_start(saved, label)
    _check_role(saved, Geometry.of(param, label), label)
    copied = {k: v.clone() if isinstance(v, Tensor) else v for k, v in saved.items()}
    try:
        return build_state(
            param, rung, copied, gate=held_gate(saved), signal="signal" in saved,
            role=saved.get("role"), group=group, index=member.index, seed=seed,
        )  # fmt: skip
    except ValueError as error:
        raise ValueError(f"{label}: {error}") from None


def _check_start(saved: State, label: str) -> None:
    """Of the first moment, which cannot lie behind the tensor's own count."""
    start = saved.get("exp_avg_start", 0)
    if type(start) is not int or start < 0 or (saved["step"] < start).any():
        raise ValueError(
            f"the state of {label} has exp_avg_start {start!r}; expected an int from 0 to its step"
        )


def _check_role(saved: State, geometry: Geometry, label: str) -> None:
    guessed = guessed_role(geometry)
    role = saved.get("role", guessed)
    if role not in ROLES or (role == "vector") != (guessed == "vector"):
        allowed = ("vector",) if guessed == "vector" else ("table", "matrix")
        raise ValueError(
            f"the state of {label} has role {role!r}; expected {' or '.join(map(repr, allowed))}"
        )
    if "signal" not in saved:
        return
    signal = saved["signal"]
    if not isinstance(signal, Tensor) or not (signal.isfinite() & (signal >= 0)).all():
        raise ValueError(f"the state of {label} has signal {signal!r}; expected a number >= 0")
