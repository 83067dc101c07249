"""States of format 1 (release 0.1.0) as ones of today's format."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import _core
from ..parts import GATES
from ..rungs import Geometry, Rung
from ..threads import thread_count
from .entries import ROLE, SIGNAL, STATE_FORMAT, State, holds, marker
from .places import order_of, place_of, walked_as
from .roles import ROLES

__all__ = ["is_of_format_1", "upgraded"]

_RENAMED = {
    "exp_avg_steps": "exp_avg_ustate_steps", "exp_avg_alpha": "exp_avg_costate_alpha",
    "signal": SIGNAL,
}  # fmt: skip


def upgraded(param: Tensor, saved: State, group: dict[str, Any]) -> State:
    """The state as it is in today's format; one that is so already is returned as it is.

    Format 1 named the rung, the order and the role in words, gave codes the names of moments, told
    gates by how many numbers they keep, and had another codec ``q8``: what that held is decoded to
    float32 here, and encoded as the group's options say by the next step.

    Raises:
        ValueError: for a state that does not fit the parameter.
    """
    if "rung" not in saved or holds(saved):  # where it is somebody else's
        return saved
    rung = Rung.parse(saved["rung"])
    out: State = {marker(rung): STATE_FORMAT}
    out.update({_RENAMED.get(k, k): v for k, v in saved.items() if not _is_old(k, rung)})
    if rung.packed:
        out.update(_place(param, saved.get("order")))
    for plane in _planes(rung):
        if plane.old in saved:
            out[plane.new] = saved[plane.old]
    if "gate" in saved:
        out[_gate_key(saved["gate"])] = saved["gate"]
    if "role" in saved:
        if saved["role"] not in ROLES:
            raise ValueError(f"its state has role {saved['role']!r}; expected one of {ROLES}")
        out[ROLE] = ROLES.index(saved["role"])
    return _without_old_q8(param, rung, out, group) if "q8" in rung.slots.values() else out


def is_of_format_1(state: object) -> bool:
    """Whether this is a state of release 0.1.0, and not one that somebody has put a "rung" into."""
    if not isinstance(state, dict) or holds(state) or not isinstance(state.get("rung"), str):
        return False
    try:
        Rung.parse(state["rung"])
    except ValueError:
        return False
    return True


def _is_old(key: str, rung: Rung) -> bool:
    return key in ("rung", "order", "role", "gate") or any(
        key == plane.old for plane in _planes(rung)
    )


class _Plane(NamedTuple):
    """A tensor of a moment whose key has changed."""

    old: str
    new: str


@functools.cache
def _planes(rung: Rung) -> tuple[_Plane, ...]:
    out = []
    for key, codec in rung.slots.items():
        was = "exp_avg_sq" if key == rung.second else key
        for suffix, _, _, shaped, _ in rung.layout(key, Geometry(1, (2, 16))):
            # "exp_avg_u4_codes" was "exp_avg", "exp_avg_u4_scale" was "exp_avg_scale"
            old = "" if shaped else suffix.removeprefix(f"_{codec}").removesuffix("_codes")
            out.append(_Plane(was + old, key + suffix))
    return tuple(out)


def _place(param: Tensor, order: object) -> dict[str, Tensor]:
    """Format 1 did not say the shape: any parameter with as many blocks was taken for it."""
    out = {"packed_shape": place_of(param)["packed_shape"]}
    if order is None:
        return out
    if not isinstance(order, tuple) or not all(type(d) is int for d in order):
        raise ValueError(f"its state has order {order!r}; expected None or a tuple of dimensions")
    return {**out, "packed_order": torch.tensor(order, dtype=torch.int64, device="cpu")}


def _gate_key(numbers: object) -> str:
    keys = {len(n.names): n.key for n in (gate.numbers for gate in GATES.values()) if n}
    if not isinstance(numbers, Tensor) or numbers.numel() not in keys:
        expected = " or ".join(map(str, sorted(keys)))
        raise ValueError(f"its state has gate {numbers!r}; expected {expected} numbers in float64")
    return keys[numbers.numel()]


# ---- q8 as it was -----------------------------------------------------------------------------


def _without_old_q8(param: Tensor, rung: Rung, state: State, group: dict[str, Any]) -> State:
    """The same moments in float32: a first moment was signed integers under the block's largest
    magnitude, a second one steps between the bits of floats, which plain codecs still are."""
    like = walked_as(param, order_of(state))
    moments = _decoded(like, rung, state, group)
    plain = Rung(2, "fp32", "fp32" if rung.m_slow != "none" else "none", "fp32", rung.variant)
    keeps_v = rung.v != "q8" and _is_known(replace(plain, v=rung.v))
    if keeps_v:
        plain = replace(plain, v=rung.v)
    gone = {marker(rung), *rung.keys} - {*rung.scalars}
    if keeps_v:
        gone -= {plane.new for plane in _planes(rung) if plane.new.startswith(rung.second)}
        moments.pop(rung.second)
    elif not plain.packed:
        gone |= {"packed_shape", "packed_order"}
    rest = {key: value for key, value in state.items() if key not in gone}
    return {marker(plain): STATE_FORMAT, **rest, **moments}


def _is_known(rung: Rung) -> bool:
    try:
        return Rung.parse(rung.name) == rung
    except ValueError:
        return False


def _decoded(like: Tensor, rung: Rung, state: State, group: dict[str, Any]) -> dict[str, Tensor]:
    """Of format 1, by the names of its slots."""
    v = _second_moment(like, rung, state)
    out = {rung.second: v}
    for key, codec in rung.slots.items():
        if key != rung.second:
            out[key] = _unpacked(like, key, codec, codec, state)
            if codec == "u4":  # in units of the update
                beta2, eps = float(group["betas"][1]), float(group["eps"])
                correction = 1 - beta2 ** max(int(_plane(state, "step")), 1)
                out[key] *= v.sqrt() / correction**0.5 + eps
    return out


def _second_moment(like: Tensor, rung: Rung, state: State) -> Tensor:
    if rung.v != "factored":
        plain = "v8" if rung.v == "q8" else rung.v
        return _unpacked(like, rung.second, rung.v, plain, state)
    row, column = state[f"{rung.second}_row"], state[f"{rung.second}_col"]
    flat = torch.outer(row, column).flatten() / row.mean().clamp(min=1e-30)
    return torch.as_strided(flat, like.shape, like.stride()).contiguous()


def _unpacked(like: Tensor, key: str, codec: str, plain: str, state: State) -> Tensor:
    """A moment in the order of indices, out of codes in the order of the walk."""
    flat = torch.empty(like.numel(), device="cpu")
    codes, scales = (_plane(state, f"{key}_{codec}_{what}") for what in ("codes", "scale"))
    _core.unpack(codes, scales, plain, flat, thread_count())
    return torch.as_strided(flat, like.shape, like.stride()).contiguous()


def _plane(state: State, key: str) -> Tensor:
    value = state.get(key)
    if not isinstance(value, Tensor):
        raise ValueError(f"its state has {key} {value!r}; expected a tensor")
    return value
