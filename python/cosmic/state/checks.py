"""Whether a state is what its rung and its parameter need, whoever has touched it since."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import _core
from ..parts import GATES
from ..rungs import Geometry, Rung
from .entries import MASKED, MASTER, ROLE, SIGNAL, TRAINED, State, prefixes, rung_of
from .geometries import geometry_here
from .members import Member
from .places import order_of, real_view, walked_as
from .roles import ROLES, possible_roles
from .shards import Shard, whole_of
from .slices import SEPARATOR

__all__ = ["check_same_parts", "checked", "whole_step"]

_ANEW = "optimizer.reset(param) starts it anew"


def checked(
    param: Tensor, state: State, whole: Tensor | None = None, shard: Shard | None = None
) -> State:
    """COSMIC's entries of a state, held to what the parameter needs.

    A ``step`` that is a whole number of another kind (a number, a float32 tensor) becomes the
    tensor that it should be: that others set it is common.

    Args:
        whole: the parameter that ``param`` is a part of, or the shard that is here, if it is one.
        shard: which part of a larger tensor ``param`` is.

    Raises:
        ValueError: naming the entry that is missing or does not fit, and what was expected.
    """
    rung = rung_of(state)
    state = {k: _without_graph(v) for k, v in state.items()}
    _check_arithmetic(param, rung)
    like = _stand_in(param, state) if rung.packed else real_view(param.detach())
    loaded = like.dtype  # torch's loader of state gives all numbers the parameter's
    for key, plane in rung.planes(geometry_here(like, shard)).items():
        shape = tuple(like.shape) if plane[3] else (plane[2],)
        value = _entry(state, key, rung)
        state[key] = _taken(value, key, getattr(torch, plane[1]), shape, loaded)
    if rung.counts:
        state["step"] = whole_step(_entry(state, "step", rung))
    for numbers in rung.numbers:
        value = _entry(state, numbers.key, rung)
        state[numbers.key] = _taken(value, numbers.key, numbers.dtype, numbers.shape, loaded)
    _check_start(state, rung)
    _take_numbers(state, loaded)
    _take_master(param, state)
    _check_role(param if whole is None else whole_of(whole), state)
    return state


def check_same_parts(rows: Sequence[Member], held: State) -> None:
    """Raise ValueError for a state of other parts than the parameter has now: what it holds of them
    would be lost."""
    found = prefixes(held)
    given = [row.prefix for row in rows]
    if found and set(found) != set(given):
        raise ValueError(
            f"its group's parts are {_listed(given)}, and its state is of parts {_listed(found)}; "
            f"{_ANEW}"
        )


def _listed(prefixes: Sequence[str]) -> str:
    return ", ".join(prefix.removesuffix(SEPARATOR) or "none" for prefix in prefixes)


def _check_arithmetic(param: Tensor, rung: Rung) -> None:
    """Moments are carried in the arithmetic that they were made in."""
    is_f64 = param.dtype in (torch.float64, torch.complex128)
    if rung.slots and rung.f64 != is_f64:
        made = torch.float64 if rung.f64 else torch.float32
        raise ValueError(
            f"its state is of {made} and does not fit its dtype {param.dtype}; {_ANEW}"
        )


def _without_graph(value: Any) -> Any:
    """The same memory, if somebody has made a parameter of it."""
    return value.detach() if isinstance(value, Tensor) and value.requires_grad else value


def _entry(state: State, key: str, rung: Rung) -> Any:
    if key not in state:
        raise ValueError(f"its state has no {key!r}, which {rung.name} needs; {_ANEW}")
    return state[key]


def _taken(
    value: object, key: str, dtype: torch.dtype, shape: tuple[int, ...], loaded: torch.dtype
) -> Tensor:
    """The tensor, if it is what its rung needs, or that with the dtype which torch's own loader
    gives: wrappers that load through it hand on state of the parameter's dtype."""
    if isinstance(value, Tensor) and dtype.is_floating_point and value.dtype == loaded != dtype:
        _check_tensor(value, key, loaded, shape)
        value = value.to(dtype)
    return _check_tensor(value, key, dtype, shape)


def _check_tensor(value: object, key: str, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    if not isinstance(value, Tensor):
        raise ValueError(f"its state has {key} {value!r}; expected a tensor of {dtype}; {_ANEW}")
    if value.layout != torch.strided or value.device.type != "cpu":
        raise ValueError(
            f"its state has {key} of layout {value.layout} on device {value.device}; expected a "
            "dense tensor on the CPU"
        )
    if value.dtype != dtype or tuple(value.shape) != shape:
        raise ValueError(
            f"its state has {key} of {value.dtype} and shape {tuple(value.shape)}; its rung needs "
            f"{dtype} and shape {shape}; {_ANEW}"
        )
    _core.check_memory(value, f"state {key!r}")
    return value


def _stand_in(param: Tensor, state: State) -> Tensor:
    """The parameter as it was walked when its state was made, which must have had its shape."""
    rung = rung_of(state)
    shape = tuple(real_view(param.detach()).shape)
    held = _entry(state, "packed_shape", rung)
    for key in {"packed_shape", "packed_order"} & set(state):
        size = len(state[key]) if isinstance(state[key], Tensor) and state[key].dim() == 1 else 1
        _check_tensor(state[key], key, torch.int64, (size,))
    if tuple(held.tolist()) != shape:
        raise ValueError(
            f"its state is of packed_shape {tuple(held.tolist())} and does not fit the parameter's "
            f"{shape}; {_ANEW}, and optimizer.moments() and set_moments() carry what is to be kept"
        )
    return walked_as(param, order_of(state))


def whole_step(step: object) -> Tensor:
    """The count that a state's ``step`` is, in whatever form others have put it there."""
    number: object = step
    if isinstance(step, Tensor):
        _core.check_memory(step, "state 'step'")
        number = step.item() if step.numel() == 1 and not step.is_complex() else step
    if (
        isinstance(number, bool)
        or not isinstance(number, int | float)
        or not 0 <= number < 2**62
        or number != int(number)
    ):
        raise ValueError(
            f"its state has step {number!r}; expected an int64 tensor of one number, 0 or more"
        )
    if isinstance(step, Tensor) and step.dtype == torch.int64 and step.dim() == 0:
        return step
    return torch.tensor(int(number), dtype=torch.int64, device="cpu")


def _check_start(state: State, rung: Rung) -> None:
    """Of the first moment, which cannot lie behind the tensor's own count."""
    start = state.get("exp_avg_start", 0)
    if rung.m != "none" and (type(start) is not int or not 0 <= start <= int(state["step"])):
        raise ValueError(
            f"its state has exp_avg_start {start!r}; expected an int from 0 to its step, "
            f"{int(state['step'])}"
        )


def _take_numbers(state: State, loaded: torch.dtype) -> None:
    for numbers in (gate.numbers for gate in GATES.values()):
        if numbers and (key := numbers.key) in state:
            state[key] = _taken(state[key], key, numbers.dtype, numbers.shape, loaded)
    if SIGNAL not in state:
        return
    signal = state[SIGNAL] = _taken(state[SIGNAL], SIGNAL, torch.float64, (), loaded)
    if not (math.isfinite(signal) and signal >= 0):
        raise ValueError(f"its state has {SIGNAL} {signal!r}; expected a number >= 0")


def _take_master(param: Tensor, state: State) -> None:
    """Lower bits of the weights, which only a parameter in bfloat16 has a use for."""
    if param.dtype != torch.bfloat16:
        state.pop(MASTER, None)
    if MASTER not in state:
        return
    value, shape = state[MASTER], tuple(param.shape)
    if isinstance(value, Tensor) and value.dtype == param.dtype:  # by torch's loader; exact
        value = _check_tensor(value, MASTER, param.dtype, shape).to(torch.int8)
    state[MASTER] = _check_tensor(value, MASTER, torch.int8, shape)


def _check_role(param: Tensor, state: State) -> None:
    for key in (MASKED, TRAINED):
        if state.get(key, 1) != 1:
            raise ValueError(f"its state has {key} {state[key]!r}; expected 1 or no such entry")
    if ROLE not in state:
        return
    number, possible = state[ROLE], possible_roles(Geometry.of(param))
    if type(number) is not int or not 0 <= number < len(ROLES) or ROLES[number] not in possible:
        expected = " or ".join(f"{ROLES.index(role)} ({role})" for role in possible)
        raise ValueError(f"its state has {ROLE} {number!r}; expected {expected}")
