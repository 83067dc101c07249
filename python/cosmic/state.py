"""State tensors of one parameter: made, checked, laid out anew, carried to another rung."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from . import _core
from .rungs import PLAIN, Geometry, Rung

__all__ = [
    "SIGNAL_BYTES",
    "build_state",
    "decoded_moments",
    "gate_bytes",
    "gate_of",
    "gate_on",
    "held_gate",
    "is_gated",
    "real_numel",
    "real_view",
    "recentered",
    "state_bytes",
    "state_rung",
]

State = dict[str, Any]
Group = dict[str, Any]

#: Numbers in float64 that a gate keeps of a tensor. snr: count, mean, variance, factor; agar: mean;
#: calibrated agar, unless it measures before the step: mean of |m|, mean of v, factor.
_GATE_SIZES = {"none": 0, "snr": 4, "agar": 1, "exact_agar": 0, "lagged_agar": 3}
SIGNAL_BYTES = 8
_LEAST_DEVIATION = 0.1
_MOMENTS = ("exp_avg", "exp_avg_slow", "exp_avg_sq")


def gate_of(group: Mapping[str, Any]) -> str:
    """The core's name of the gate that a group asks for."""
    if group["gate"] == "calibrated_agar":
        return "exact_agar" if group["exact"] else "lagged_agar"
    return group["gate"] or "none"


def gate_on(rung: Rung, gate: str) -> str:
    """The gate that a rung has where its group asks for one: "agar" reads the moments, so that
    without full history there is none."""
    return "none" if gate == "agar" and not rung.centered else gate


def is_gated(state: State | None, group: Mapping[str, Any]) -> bool:
    """Whether a gate acts on a parameter with this state."""
    return state is not None and gate_on(state_rung(state), gate_of(group)) != "none"


def gate_bytes(rung: Rung, gate: str) -> int:
    """Bytes of the numbers of a rung's gate."""
    return 8 * _GATE_SIZES[gate_on(rung, gate)]


def held_gate(state: State) -> str:
    """The gate whose numbers a state holds, by their count.

    Raises:
        ValueError: if no gate has so many.
    """
    held = state.get("gate")
    if held is None:
        return "none"
    names = {size: name for name, size in _GATE_SIZES.items() if size}
    if not isinstance(held, Tensor) or held.numel() not in names:
        expected = " or ".join(map(str, sorted(names)))
        raise ValueError(f"it has gate {held!r}; expected {expected} numbers in float64")
    return names[held.numel()]


def real_view(tensor: Tensor) -> Tensor:
    """The tensor, or a complex one as pairs of real numbers."""
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def real_numel(param: Tensor) -> int:
    """Elements of a parameter; a complex one counts twice."""
    return 2 * param.numel() if param.is_complex() else param.numel()


def state_bytes(state: State) -> int:
    """Bytes of the tensors of one parameter's state."""
    return sum(t.numel() * t.element_size() for t in state.values() if isinstance(t, Tensor))


def state_rung(state: State) -> Rung:
    """The rung that a parameter's state belongs to."""
    return Rung.parse(state["rung"])


def _strides(tensor: Tensor) -> list[int]:
    return [stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if size > 1]


def _empty_moment(param: Tensor, dtype: torch.dtype) -> Tensor:
    """A tensor of the parameter's real shape, laid out as it is walked."""
    like = real_view(param.detach())
    fresh = torch.empty_like(like, dtype=dtype, device="cpu")
    if _strides(fresh) != _strides(like):  # gaps between elements: walked by index, not by memory
        fresh = torch.empty(like.shape, dtype=dtype, device="cpu")
    return fresh


def _check_shape(param: Tensor, old: Tensor) -> None:
    shape = real_view(param.detach()).shape
    if old.shape != shape:
        raise ValueError(
            f"its state has shape {tuple(old.shape)} and no longer fits the parameter's "
            f"{tuple(shape)}; delete optimizer.state[param] to start it anew, or give the "
            "new parameter to a new optimizer"
        )


def _slot(param: Tensor, dtype: torch.dtype, old: Tensor | None) -> Tensor:
    """A moment of one number an element: the old one where it fits, else a copy, else 0."""
    if old is not None:
        _check_shape(param, old)
    fresh = _empty_moment(param, dtype)
    if old is None:
        return fresh.zero_()
    if old.dtype == dtype and old.stride() == fresh.stride() and old.device.type == "cpu":
        return old
    return fresh.copy_(old)


def _scalars(size: int, old: Tensor | None, dtype: torch.dtype = torch.float64) -> Tensor:
    shape = (size,) if size > 1 else ()
    if old is None:
        return torch.zeros(shape, dtype=dtype, device="cpu")
    if old.shape != shape:
        raise ValueError(f"a state of shape {tuple(old.shape)} stands where {shape} is expected")
    return old.detach().to(dtype=dtype, device="cpu").contiguous()


def _packed_plane(plane: _core.Plane, key: str, old: Tensor | None) -> Tensor:
    _, name, count, _, _ = plane
    dtype = getattr(torch, name)
    if old is None:
        return torch.zeros(count, dtype=dtype, device="cpu")
    if old.dtype != dtype or old.shape != (count,):
        raise ValueError(
            f"its state has {key} of {old.dtype} and shape {tuple(old.shape)}; its rung needs "
            f"{dtype} and shape {(count,)}; delete optimizer.state[param] to start it anew"
        )
    return old.detach().to(device="cpu").contiguous()


def build_state(
    param: Tensor,
    rung: Rung,
    old: State,
    *,
    gate: str,
    signal: bool,
    role: str | None = None,
    group: Group,
    index: int = 0,
    seed: int = 0,
) -> State:
    """State of ``param`` on ``rung``, carrying over from ``old`` what fits.

    Between rungs that hold a second moment it is carried and counted on, decoded and encoded if
    its codec changed; a first moment is carried where there is one, and else starts empty with
    ``exp_avg_start``, the count from which its bias correction runs. Who gives up a second moment
    for scalars starts them from it. Tensors that fit are taken over as they are, not copied.

    Args:
        gate: the core's name of the gate, or ``"none"``.
        role: what the tensor is to the model, where the budget may choose its rung again.
        group: the parameter's group: codecs in update units are decoded with its options.
        index, seed: of the random bits with which moments are encoded anew.

    Raises:
        ValueError: if ``old`` has another shape than the parameter, or the parameter's dtype needs
            another arithmetic than the state was made for.
    """
    was = state_rung(old) if old else Rung(0)
    carried = old if _carries(was, rung) else {}
    if carried:
        _check_arithmetic(param, rung, was)
    state: State = {"rung": rung.name, **_carried_scalars(param, rung, carried, was, group)}
    order = _core.walk_order(param.detach()) if rung.packed else None
    if order is not None:
        state["order"] = order
    if rung.v != "none" and carried and _encodes(rung, was, carried.get("order") == order):
        state.update(_carried_planes(param, rung, {}))
        moments = dict(decoded_moments(param, carried, group))
        if _recentres(rung, was):
            sign = 1 if was.centered else -1
            moments["exp_avg_sq"] = recentered(moments, carried, group, sign)
        if rung.v == "fp64":
            state.update(_carried_planes(param, rung, moments))
        else:
            _encode(param, rung, state, moments, group, index, seed)
    elif rung.v != "none":
        state.update(_carried_planes(param, rung, carried))
    if size := _GATE_SIZES[gate]:
        held = old.get("gate")
        fits = held is not None and held.numel() == size  # else it is another gate's
        state["gate"] = _scalars(size, held if fits else None)
    if signal:
        state["signal"] = _scalars(1, old.get("signal"))
    if role is not None:
        state["role"] = role
    return state


def _carries(was: Rung, rung: Rung) -> bool:
    """Whether anything of one rung's state has a meaning on another: all that hold a second moment
    share it, and scalars can be made of it; but they cannot give it back."""
    if was.v != "none":
        return rung.tier > 0
    return rung.tier == was.tier and rung.v == "none"


def _check_arithmetic(param: Tensor, rung: Rung, was: Rung) -> None:
    """A second moment is carried in the arithmetic that it was made in."""
    is_f64 = rung.v == "fp64"
    if rung.v == "none":  # scalars go with any arithmetic
        is_f64 = param.dtype in (torch.float64, torch.complex128)
    if was.v != "none" and (was.v == "fp64") != is_f64:
        dtype = torch.float64 if was.v == "fp64" else torch.float32
        raise ValueError(
            f"its state is of {dtype} and no longer fits its dtype {param.dtype}; delete "
            "optimizer.state[param] to start it anew"
        )


def _carried_scalars(param: Tensor, rung: Rung, carried: State, was: Rung, group: Group) -> State:
    """Everything but the moments."""
    out: State = {}
    if "step" in rung.scalars:
        out["step"] = _scalars(1, carried.get("step"), torch.int64)
    if "update_rms" in rung.scalars:
        out["update_rms"] = _scalars(1, carried.get("update_rms"))
    if "exp_avg_steps" in rung.scalars:
        out["exp_avg_steps"] = _scalars(2, carried.get("exp_avg_steps"), torch.float32)
    if "exp_avg_alpha" in rung.scalars:
        out["exp_avg_alpha"] = _scalars(1, carried.get("exp_avg_alpha"), torch.float32)
    if "magnitude" in rung.scalars:
        if carried and was.v != "none":
            held = _about_zero(param, carried, group) if was.centered else carried
            averages = _held(param, held).start_of_magnitude(group)
            out["magnitude"] = torch.tensor(averages, dtype=torch.float64, device="cpu")
        else:
            out["magnitude"] = _scalars(2, carried.get("magnitude"))
    if rung.m != "none" and carried:
        start = carried.get("exp_avg_start", 0) if was.m != "none" else int(carried["step"])
        if start:
            out["exp_avg_start"] = start
    return out


def _encodes(rung: Rung, was: Rung, same_order: bool) -> bool:
    """Whether moments must be decoded and encoded to be carried."""
    if _recentres(rung, was):
        return True
    if not (was.packed or rung.packed) or (was == rung and same_order):
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


def _about_zero(param: Tensor, held: State, group: Group) -> State:
    """A state with a second moment about the first as a plain one with one about zero."""
    moments = dict(decoded_moments(param, held, group))
    moments["exp_avg_sq"] = recentered(moments, held, group, 1)
    codec = "fp64" if state_rung(held).v == "fp64" else "fp32"
    return {"rung": Rung(2, codec, v=codec).name, "step": held["step"], **moments}


def _carried_planes(param: Tensor, rung: Rung, old: State) -> State:
    out: State = {}
    for key, plane in rung.planes(Geometry.of(param)).items():
        if plane[3]:
            out[key] = _slot(param, getattr(torch, plane[1]), old.get(key))
        else:
            out[key] = _packed_plane(plane, key, old.get(key))
    return out


def _walked_as(param: Tensor, order: tuple[int, ...] | None) -> Tensor:
    """A stand-in for ``param``, walked in the order that its state was made in."""
    like = real_view(param.detach())
    if order == _core.walk_order(param.detach()):
        return like
    long = [d for d, n in enumerate(like.shape) if n != 1]
    if order is not None and (
        not isinstance(order, tuple) or len(order) != len(long) or set(order) != set(long)
    ):
        raise ValueError(f"its state has order {order!r}; expected an order of dimensions {long}")
    dims = list(order) if order is not None else [d for d, n in enumerate(like.shape) if n > 1]
    rest = [d for d in range(like.dim()) if d not in dims]
    walk = rest + dims
    back = [walk.index(d) for d in range(like.dim())]
    return torch.empty([like.shape[d] for d in walk], device="cpu").permute(back)


def decoded_moments(param: Tensor, state: State, group: Group) -> State:
    """The moments of a state as tensors of the parameter's (real) shape: in float64 where the state
    is, else in float32. Those that need no decoding are the state's own.

    Raises:
        ValueError: if the state does not fit the parameter.
    """
    rung = state_rung(state)
    keys = rung.slots
    if not rung.packed:
        for key in keys:
            _check_shape(param, state[key])
        dtype = torch.float64 if rung.v == "fp64" else torch.float32
        return {key: state[key].to(dtype) for key in keys}
    like = _walked_as(param, state.get("order"))
    out = {key: _empty_moment(like, torch.float32) for key in keys}
    _held(param, state).read_moments(group, out)
    return out


def _held(param: Tensor, state: State) -> _core.Plan:
    """A plan whose row is a state as it was made, whatever the layout of ``param`` is by now."""
    rung = state_rung(state)
    like = _walked_as(param, state.get("order")) if rung.packed else real_view(param.detach())
    scalars = {key: state[key] for key in rung.scalars}
    if "exp_avg_start" in state:
        scalars["exp_avg_start"] = state["exp_avg_start"]
    return _row(like, rung, {**_carried_planes(like, rung, state), **scalars}, 0, 0)


def _encode(
    param: Tensor, rung: Rung, state: State, moments: State, group: Group, index: int, seed: int
) -> None:
    if set(rung.slots) - set(moments):  # an average that starts now
        zeros = torch.zeros_like(moments["exp_avg_sq"])
        moments = {key: moments.get(key, zeros) for key in _MOMENTS}
    _row(real_view(param.detach()), rung, state, index, seed).write_moments(group, moments)


def _row(param: Tensor, rung: Rung, state: State, index: int, seed: int) -> _core.Plan:
    plan = _core.Plan(seed)
    about = (rung.rule, rung.m, rung.m_slow, rung.v, "none")
    plan.add_row(param, "its state", 0, index, *about, state)
    return plan
