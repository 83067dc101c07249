"""A checkpoint of Tiger's own as one of AdamW's, whose moments are the same averages."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .groups import take_in
from .literal import COMPAT, GATE
from .options import OPTIONS, check_options, derived, one_of

__all__ = ["as_adamw", "is_tigers", "with_own_options"]

_FACTORS = ("vr", "vc")
#: Keys of Tiger's groups that mean something only where they were made.
_OF_ONE_PROCESS = ("qkv_rules", "qkv_trust_split", "qkv_lr_scales", "block_trust_chunks")
_LEAST = 1e-30  # of rows and columns, under a mean that is divided by
#: Below half a unit of the last place of 1 in float64.
_VANISHED = 2.0**-54


def is_tigers(saved: Mapping[str, Any]) -> bool:
    """Whether a state dict is one of Tiger's: it says nothing of Cosmic, and all states of
    parameters have a momentum ``m`` and a second moment, whole or by rows and columns."""
    ids = {i for group in saved["param_groups"] for i in group["params"]}
    states = [state for i, state in saved.get("state", {}).items() if i in ids and state]
    return "cosmic" not in saved and bool(states) and all(map(_has_moments, states))


def _has_moments(state: Any) -> bool:
    return (
        isinstance(state, dict) and "m" in state and ("v" in state or set(_FACTORS) <= set(state))
    )


def as_adamw(saved: Mapping[str, Any], steps: int | None) -> dict[str, Any]:
    """Tiger's state dict with AdamW's entries.

    Its moments are averages from zero that nothing corrects, and it saves no count of steps. With
    the count their bias is corrected as if it had been counted; without one they are taken as they
    are, by a count at which ``beta^t`` is nothing beside 1.

    Args:
        steps: taken before the checkpoint; None: not known.

    Raises:
        ValueError: for a count that is none, and for a moment that is no tensor.
    """
    if steps is not None and (type(steps) is not int or steps < 1):
        raise ValueError(f"steps is {steps!r}; expected None or an int >= 1")
    counts = {
        i: steps or _settled(group) for group in saved["param_groups"] for i in group["params"]
    }
    state = {
        i: _moments(i, held, counts[i]) if i in counts and held else held
        for i, held in saved["state"].items()
    }
    return {**saved, "state": state}


def _settled(group: Mapping[str, Any]) -> int:
    """The first count at which no average of a group is corrected any more, at least 1."""
    rates = [float(beta) for beta in group["betas"] if 0 < float(beta) < 1]
    return max((math.ceil(math.log(_VANISHED) / math.log(rate)) for rate in rates), default=1)


def _moments(index: Any, state: Mapping[str, Any], count: int) -> dict[str, Any]:
    for key in ("m", "v", *_FACTORS):
        if key in state and not isinstance(state[key], Tensor):
            raise ValueError(
                f"the state of parameter {index} has {key} {state[key]!r}; expected a tensor"
            )
    first = state["m"].to(torch.float32)
    known = {"m", "v", *_FACTORS}
    return {
        **{key: value for key, value in state.items() if key not in known},
        "step": torch.tensor(float(count), device="cpu"),
        "exp_avg": first,
        "exp_avg_sq": _second(index, state, first).reshape(first.shape),
    }


def _factor(means: Tensor) -> Tensor:
    return means.to(torch.float64).flatten().clamp(min=_LEAST)


def _second(index: Any, state: Mapping[str, Any], first: Tensor) -> Tensor:
    if "v" in state:
        whole: Tensor = state["v"].to(torch.float32)
        return whole
    rows, columns = (_factor(state[key]) for key in _FACTORS)
    if rows.numel() * columns.numel() != first.numel():
        raise ValueError(
            f"the state of parameter {index} has {rows.numel()} rows and {columns.numel()} columns "
            f"beside a momentum of shape {tuple(first.shape)}"
        )
    return (torch.outer(rows, columns) / rows.mean()).to(torch.float32)


def with_own_options(
    saved: Mapping[str, Any], groups: Sequence[dict[str, Any]], compat: str | None
) -> list[dict[str, Any]]:
    """Groups of a state dict, checked, with the options that they lack as ``groups`` have them.

    Raises:
        ValueError: for an option of Tiger's that is out of range, and for groups of the other
            formulas.
    """
    found, out = saved["param_groups"], []
    for index, (own, group) in enumerate(zip(groups, found, strict=False)):
        where = f"the state_dict's param_groups[{index}]"
        asked = {name: own[name] for name in OPTIONS}
        if "cosmic" not in saved:  # Tiger's own, or AdamW's
            kept = {k: v for k, v in group.items() if k not in _OF_ONE_PROCESS}
            if compat is None and "sign_tau" in kept:
                _leave_width(kept.pop("sign_tau"), own["sign_tau"], where)
            group = {**asked, **kept}
            take_in(group, where, compat)
            if own["parts"] is not None:
                group["lr_scale"] = own["lr_scale"]
            check_options(group, where, compat)
            group.update(derived(group, compat))
        elif not set(OPTIONS) <= set(group):  # of Cosmic or another preset
            group = {**group, **asked, **derived(asked, compat)}
        else:
            _check_formulas(group, where, compat)
        check_options(group, where, compat)
        out.append(group)
    return [*out, *found[len(out) :]]


def _leave_width(theirs: Any, own: Any, where: str) -> None:
    """Say that a soft sign's width stays as it is here, where the package's differs."""
    if not one_of(own)(theirs):
        warnings.warn(
            f"{where} has sign_tau {theirs!r}, in units of the momentum; it stays {own!r} here, in "
            f"units of Adam's update (compat={COMPAT!r} takes it as it is)",
            UserWarning,
            stacklevel=4,
        )


def _check_formulas(group: Mapping[str, Any], where: str, compat: str | None) -> None:
    literal = one_of(GATE)(group.get("gate"))
    if literal != (compat is not None):
        saved, here = (f"compat={COMPAT!r}", "no compat")[:: 1 if literal else -1]
        raise ValueError(
            f"{where} was saved with {saved}, and this optimizer has {here}; expected the same: "
            f"load it into Tiger(params{f', {saved}' if literal else ''})"
        )
