"""State tensors of one parameter: made, checked, laid out anew, carried to another rung."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .rungs import CODEC_DTYPES, Rung

__all__ = ["build_state", "real_numel", "state_bytes", "state_rung"]

State = dict[str, Any]

_GATE_SIZE = 4  # float64: count, mean, variance, factor
GATE_BYTES = 8 * _GATE_SIZE
SIGNAL_BYTES = 8


def _real_view(param: Tensor) -> Tensor:
    return torch.view_as_real(param) if param.is_complex() else param


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


def _slot(param: Tensor, codec: str, old: Tensor | None) -> Tensor:
    """A moment in the layout of its parameter: the old one where it fits, else a copy, else 0."""
    like, dtype = _real_view(param.detach()), CODEC_DTYPES[codec]
    if old is not None and old.shape != like.shape:
        raise ValueError(
            f"its state has shape {tuple(old.shape)} and no longer fits the parameter's "
            f"{tuple(like.shape)}; delete optimizer.state[param] to start it anew, or give the "
            "new parameter to a new optimizer"
        )
    fresh = torch.empty_like(like, dtype=dtype, device="cpu")
    if _strides(fresh) != _strides(like):  # gaps between elements: walked by index, not by memory
        fresh = torch.empty(like.shape, dtype=dtype, device="cpu")
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


def build_state(param: Tensor, rung: Rung, old: State, *, gate: bool, signal: bool) -> State:
    """State of ``param`` on ``rung``, carrying over from ``old`` what fits.

    Within tier 2 moments are carried, converted if their codec changed; a moment that starts
    empty starts with a counter of its own, so that its bias correction is right. Tensors that fit
    are taken over as they are, not copied.

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
    same_tier = bool(old) and state_rung(old).tier == rung.tier
    carried = old if same_tier else {}
    state: State = {"rung": rung.name}
    if rung.tier > 0:
        state["step"] = _scalars(1, carried.get("step"), torch.int64)
    if rung.tier == 1:
        state["magnitude"] = _scalars(2, carried.get("magnitude"))
    for key, codec in rung.slots.items():
        state[key] = _slot(param, codec, carried.get(key))
    if gate:
        state["gate"] = _scalars(_GATE_SIZE, old.get("gate"))
    if signal:
        state["signal"] = _scalars(1, old.get("signal"))
    return state
