"""State tensors of one parameter: made, checked, laid out anew, carried to another rung."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import _core
from ..parts import RULES, Numbers
from ..rungs import PLAIN, Rung
from .entries import (
    MASKED,
    MASTER,
    ROLE,
    SIGNAL,
    STATE_FORMAT,
    TRAINED,
    State,
    marker,
    role_number,
    role_of,
    rung_of,
)
from .gates import held_numbers
from .geometries import geometry_here, placed
from .groups import Group
from .places import order_of, place_of, real_view, walked_as
from .roles import Role
from .shards import Shard

__all__ = ["MOMENTS", "build_state", "decoded_moments", "encode", "rebuilt", "recentered"]

_LEAST_DEVIATION = 0.1
_SIGNAL = Numbers(SIGNAL, ("mean of |g|",), (0.0,), torch.float64)
#: Names of the moments, as `decoded_moments` gives them.
MOMENTS = ("exp_avg", "exp_avg_slow", "exp_avg_sq")


def _strides(tensor: Tensor) -> list[int]:
    return [stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if size > 1]


def _empty_moment(param: Tensor, dtype: torch.dtype) -> Tensor:
    """A tensor of the parameter's real shape, laid out as it is walked."""
    like = real_view(param.detach())
    fresh = torch.empty_like(like, dtype=dtype, device="cpu")
    if _strides(fresh) != _strides(like):  # gaps between elements: walked by index, not by memory
        fresh = torch.empty(like.shape, dtype=dtype, device="cpu")
    return fresh


def _slot(param: Tensor, dtype: torch.dtype, old: Tensor | None) -> Tensor:
    """A moment of one number an element: the old one where it fits, else a copy, else 0."""
    fresh = _empty_moment(param, dtype)
    if old is None:
        return fresh.zero_()
    if old.dtype == dtype and old.stride() == fresh.stride():
        return old
    return fresh.copy_(old.detach())


def _count(old: Tensor | None) -> Tensor:
    if old is None:
        return torch.zeros((), dtype=torch.int64, device="cpu")
    return old.detach().to(dtype=torch.int64, device="cpu").reshape(()).contiguous()


def _kept(numbers: Numbers, old: Tensor | None) -> Tensor:
    """The numbers of a part: the old ones, or where they start."""
    if old is None:
        fresh = torch.tensor(numbers.initial, dtype=numbers.dtype, device="cpu")
        return fresh.reshape(numbers.shape)
    return old.detach().to(dtype=numbers.dtype, device="cpu").reshape(numbers.shape).contiguous()


def _packed_plane(plane: _core.Plane, old: Tensor | None) -> Tensor:
    _, name, count, _, _ = plane
    if old is None:
        return torch.zeros(count, dtype=getattr(torch, name), device="cpu")
    return old.detach().contiguous()


def build_state(
    param: Tensor,
    rung: Rung,
    old: State,
    *,
    gates: Sequence[Numbers],
    signal: bool,
    role: Role | None = None,
    masked: bool = False,
    trained: bool = False,
    master: bool = False,
    group: Group,
    index: int = 0,
    seed: int = 0,
    shard: Shard | None = None,
) -> State:
    """State of ``param`` on ``rung``, carrying over from ``old`` what fits.

    Between rungs that hold a second moment it is carried and counted on, decoded and encoded if
    its codec changed; a first moment is carried where there is one, and else starts empty with
    ``exp_avg_start``, the count from which its bias correction runs. Who gives up a second moment
    for scalars starts them from it; who gives it up for a rule of whole matrices keeps the first.
    Tensors that fit are taken over as they are, not copied.

    Args:
        old: COSMIC's entries alone, checked; empty where there are none.
        gates: what its gates keep.
        role: what the tensor is to the model, where the budget may choose its rung again.
        masked: rows and columns do not describe where the gradients are not zero.
        trained: its weights had been trained before its first step.
        master: it has eight bits more an element, zeros at first: the weights as they are.
        group: the parameter's group: codecs in update units are decoded with its options.
        index, seed: of the random bits with which moments are encoded anew.
        shard: which part of a larger tensor ``param`` is; None: it is whole.
    """
    was = rung_of(old) if old else Rung(0)
    carried = old if _carries(was, rung) else {}
    state: State = {marker(rung): STATE_FORMAT}
    state.update(_carried_scalars(param, rung, carried, was, group, shard))
    if rung.packed:
        state.update(place_of(param))
    same_order = order_of(carried) == order_of(state)
    if rung.slots and carried and _encodes(rung, was, same_order):
        state.update(_carried_planes(param, rung, {}, shard))
        moments = dict(decoded_moments(param, carried, group, shard))
        if _recentres(rung, was):
            sign = 1 if was.centered else -1
            moments["exp_avg_sq"] = recentered(moments, carried, group, sign)
        if rung.f64:
            state.update(_carried_planes(param, rung, _by_slot(rung, moments), shard))
        else:
            encode(param, rung, state, moments, group, index, seed, shard)
    elif rung.slots:
        state.update(_carried_planes(param, rung, _renamed(carried, was, rung), shard))
    for numbers in (*gates, *((_SIGNAL,) if signal else ())):
        state[numbers.key] = _kept(numbers, old.get(numbers.key))
    if role is not None:
        state[ROLE] = role_number(role)
    if master:
        state[MASTER] = _slot(param, torch.int8, old.get(MASTER))
    state.update({key: 1 for key, has in ((MASKED, masked), (TRAINED, trained)) if has})
    return state


def rebuilt(
    param: Tensor, held: State, group: Group, index: int, seed: int, shard: Shard | None = None
) -> State:
    """A checked state on its own rung, laid out as the parameter is now."""
    return build_state(
        param, rung_of(held), held, gates=held_numbers(held), signal=SIGNAL in held,
        role=role_of(held), masked=MASKED in held, trained=TRAINED in held,
        master=MASTER in held,
        group=group, index=index, seed=seed, shard=shard,
    )  # fmt: skip


def _carries(was: Rung, rung: Rung) -> bool:
    """Whether anything of one rung's state has a meaning on another: all that hold a second moment
    share it, and scalars or a first moment alone can be made of it; but they cannot give it back.
    Rules of whole matrices go on counting, with momentum and without.
    """
    if was.v != "none":
        return rung.tier > 0
    if was.of_matrix or rung.of_matrix:
        return was.of_matrix and rung.of_matrix
    return was.tier == rung.tier and rung.v == "none"


def _carried_scalars(
    param: Tensor, rung: Rung, carried: State, was: Rung, group: Group, shard: Shard | None
) -> State:
    """Everything but the moments."""
    out: State = {}
    if rung.counts:
        out["step"] = _count(carried.get("step"))
    for numbers in rung.numbers:
        out[numbers.key] = _kept(numbers, carried.get(numbers.key))
    rule = RULES[rung.rule]
    if rule.starts and rule.numbers and carried and was.v != "none":
        held = _about_zero(param, carried, group, shard) if was.centered else carried
        started = _held(param, held, shard).started_numbers(rule.name, group)
        out[rule.numbers.key] = torch.tensor(started, dtype=rule.numbers.dtype, device="cpu")
    if rung.m != "none" and carried:
        start = carried.get("exp_avg_start", 0) if was.m != "none" else int(carried["step"])
        if start:
            out["exp_avg_start"] = start
    return out


def _encodes(rung: Rung, was: Rung, same_order: bool) -> bool:
    """Whether moments must be decoded and encoded to be carried."""
    if not was.slots:
        return False
    if _recentres(rung, was):
        return True
    if not (was.packed or rung.packed) or (was.slots == rung.slots and same_order):
        return False
    only_v = was.m == "none" or rung.m == "none"
    return not (only_v and was.v == rung.v and (rung.v in PLAIN or same_order))


def _recentres(rung: Rung, was: Rung) -> bool:
    """Whether a second moment is about another centre; without a first moment that was zero."""
    return rung.centered != was.centered and was.m != "none" and rung.v != "none"


def recentered(moments: State, carried: State, group: Group, sign: int) -> Tensor:
    """Of moments about zero the second about the first (``sign`` -1), or the other way: they differ
    by the square of the first, once all are corrected for their bias. A tensor of its own where
    anything differs. Of one about zero a tenth is left at least: the averages look back differently
    far, their difference may be below zero, and a first moment in units of its root would be lost.
    """
    v: Tensor = moments["exp_avg_sq"]
    t, start = int(carried["step"]), carried.get("exp_avg_start", 0)
    if "exp_avg" not in moments or t == start:
        return v
    beta1, beta2 = (float(beta) for beta in group["betas"])
    mean: Tensor = moments["exp_avg"] / (1 - beta1 ** (t - start))
    # one rounding an operation: addcmul is fused on some processors
    return torch.maximum(v + mean * mean * (sign * (1 - beta2**t)), v * _LEAST_DEVIATION)


def _about_zero(param: Tensor, held: State, group: Group, shard: Shard | None) -> State:
    """A state with a second moment about the first as a plain one with one about zero."""
    moments = dict(decoded_moments(param, held, group, shard))
    moments["exp_avg_sq"] = recentered(moments, held, group, 1)
    codec = "fp64" if rung_of(held).v == "fp64" else "fp32"
    return {marker(Rung(2, codec, v=codec)): STATE_FORMAT, "step": held["step"], **moments}


def _carried_planes(param: Tensor, rung: Rung, old: State, shard: Shard | None) -> State:
    out: State = {}
    for key, plane in rung.planes(geometry_here(param, shard)).items():
        if plane[3]:
            out[key] = _slot(param, getattr(torch, plane[1]), old.get(key))
        else:
            out[key] = _packed_plane(plane, old.get(key))
    return out


def decoded_moments(param: Tensor, state: State, group: Group, shard: Shard | None = None) -> State:
    """The moments of a state as tensors of the parameter's (real) shape: in float64 where the state
    is, else in float32. Those that need no decoding are the state's own. The second moment goes by
    ``exp_avg_sq``, whatever it is taken about.

    Raises:
        ValueError: if the state does not fit the parameter.
    """
    rung = rung_of(state)
    keys = {"exp_avg_sq" if key == rung.second else key: key for key in rung.slots}
    if not rung.packed:
        dtype = torch.float64 if rung.f64 else torch.float32
        return {name: state[key].to(dtype) for name, key in keys.items()}
    like = walked_as(param, order_of(state))
    out = {name: _empty_moment(like, torch.float32) for name in keys}
    _held(param, state, shard).read_moments(group, out)
    return out


def _by_slot(rung: Rung, moments: State) -> State:
    """Moments by the names of a rung's slots."""
    return {rung.second if key == "exp_avg_sq" else key: value for key, value in moments.items()}


def _renamed(carried: State, was: Rung, rung: Rung) -> State:
    """Where there was no first moment, a second one is about zero by either name."""
    if was.second == rung.second:
        return carried
    start = was.second
    return {
        rung.second + k.removeprefix(start) if k.startswith(start) else k: v
        for k, v in carried.items()
    }


def _held(param: Tensor, state: State, shard: Shard | None) -> _core.Plan:
    """A plan whose row is a state as it was made, whatever the layout of ``param`` is by now."""
    rung = rung_of(state)
    like = walked_as(param, order_of(state)) if rung.packed else real_view(param.detach())
    scalars = {key: state[key] for key in rung.scalars}
    if "exp_avg_start" in state:
        scalars["exp_avg_start"] = state["exp_avg_start"]
    planes = _carried_planes(like, rung, state, shard)
    return _row(like, rung, {**planes, **scalars}, 0, 0, shard)


def encode(
    param: Tensor,
    rung: Rung,
    state: State,
    moments: State,
    group: Group,
    index: int,
    seed: int,
    shard: Shard | None = None,
) -> None:
    """Encode moments into the tensors of a state; an average that is not among them is zero."""
    if set(rung.slots) - set(_by_slot(rung, moments)):  # an average that starts now
        zeros = _empty_moment(param, torch.float32).zero_()
        moments = {key: moments.get(key, zeros) for key in MOMENTS}
    row = _row(real_view(param.detach()), rung, state, index, seed, shard)
    row.write_moments(group, moments)


def _row(
    param: Tensor, rung: Rung, state: State, index: int, seed: int, shard: Shard | None
) -> _core.Plan:
    plan = _core.Plan(seed)
    about = (rung.rule, rung.m, rung.m_slow, rung.v, "none", False)
    place, matrix = placed(param, shard, rung)
    plan.add_row(param, "its state", 0, index, *about, state, place=place, matrix=matrix)
    return plan
