"""State tensors of one parameter: made, checked, laid out anew, carried to another rung."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import _core
from .rungs import Geometry, Rung

__all__ = ["build_state", "decoded_moments", "real_numel", "real_view", "state_bytes", "state_rung"]

State = dict[str, Any]
Group = dict[str, Any]

_GATE_SIZE = 4  # float64: count, mean, variance, factor
GATE_BYTES = 8 * _GATE_SIZE
SIGNAL_BYTES = 8
_MOMENTS = ("exp_avg", "exp_avg_slow", "exp_avg_sq")


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
    gate: bool,
    signal: bool,
    group: Group,
    index: int = 0,
    seed: int = 0,
) -> State:
    """State of ``param`` on ``rung``, carrying over from ``old`` what fits.

    Within tier 2 moments are carried, decoded and encoded if a codec changed; a moment that starts
    empty starts with a counter of its own, so that its bias correction is right. Tensors that fit
    are taken over as they are, not copied.

    Args:
        group: the parameter's group: codecs in update units are decoded with its options.
        index, seed: of the random bits with which moments are encoded anew.

    Raises:
        ValueError: if ``old`` has another shape than the parameter, or the parameter's dtype needs
            another arithmetic than the state was made for.
    """
    if old and ("exp_avg" in old) and rung.tier == 2:
        was_f64, is_f64 = old["exp_avg"].dtype == torch.float64, rung.m == "fp64"
        if was_f64 != is_f64:
            raise ValueError(
                f"its state is of {old['exp_avg'].dtype} and no longer fits its dtype "
                f"{param.dtype}; delete optimizer.state[param] to start it anew"
            )
    was = state_rung(old) if old else None
    carried = old if was is not None and was.tier == rung.tier else {}
    state: State = {"rung": rung.name}
    if rung.tier > 0:
        state["step"] = _scalars(1, carried.get("step"), torch.int64)
    if rung.tier == 1:
        state["magnitude"] = _scalars(2, carried.get("magnitude"))
    order = _core.walk_order(param.detach()) if rung.packed else None
    if order is not None:
        state["order"] = order
    moved = was != rung or carried.get("order") != order
    if rung.tier == 2 and carried and was is not None and moved and (was.packed or rung.packed):
        state.update(_carried_planes(param, rung, {}))
        moments = decoded_moments(param, carried, group)
        _encode(param, rung, state, moments, group, index, seed)
    elif rung.tier == 2:
        state.update(_carried_planes(param, rung, carried))
    if gate:
        state["gate"] = _scalars(_GATE_SIZE, old.get("gate"))
    if signal:
        state["signal"] = _scalars(1, old.get("signal"))
    return state


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
    """The moments of a tier-2 state as float32 tensors of the parameter's (real) shape.

    Raises:
        ValueError: if the state does not fit the parameter.
    """
    rung = state_rung(state)
    keys = rung.slots
    if not rung.packed:
        for key in keys:
            _check_shape(param, state[key])
        return {key: state[key].to(torch.float32) for key in keys}
    like = _walked_as(param, state.get("order"))
    held = {**_carried_planes(like, rung, state), "step": state["step"]}
    out = {key: _empty_moment(like, torch.float32) for key in keys}
    _row(like, rung, held, 0, 0).read_moments(group, out)
    return out


def _encode(
    param: Tensor, rung: Rung, state: State, moments: State, group: Group, index: int, seed: int
) -> None:
    if set(rung.slots) - set(moments):  # a slow average that starts now
        moments = {key: moments.get(key, torch.zeros_like(moments["exp_avg"])) for key in _MOMENTS}
    _row(real_view(param.detach()), rung, state, index, seed).write_moments(group, moments)


def _row(param: Tensor, rung: Rung, state: State, index: int, seed: int) -> _core.Plan:
    plan = _core.Plan(seed)
    plan.add_row(param, "its state", 0, index, rung.rule, rung.m, rung.m_slow, rung.v, state)
    return plan
