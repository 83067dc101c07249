"""To and from checkpoints of torch.optim.AdamW, so that a run can change its optimizer midway."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .planner import Group, members
from .state import State, decoded_moments, recentered, state_rung

__all__ = ["exported", "imported", "is_adamw"]

#: Options of a group that mean the same in both.
_SHARED = ("lr", "betas", "eps", "weight_decay", "maximize")


def is_adamw(saved: dict[str, Any]) -> bool:
    """Whether a state dict is one of AdamW's: it says nothing of Cosmic and all states are moments
    of one number an element."""
    states = saved.get("state", {}).values()
    return "cosmic" not in saved and all(
        "rung" not in s and {"step", "exp_avg", "exp_avg_sq"} <= set(s) for s in states if s
    )


def imported(saved: dict[str, Any], groups: Sequence[Group]) -> dict[str, Any]:
    """AdamW's state dict as one of Cosmic's with fp32 moments; options that AdamW does not have
    stay as they are in ``groups``.

    Raises:
        ValueError: for another number of groups, for ``amsgrad``, and for weight decay that is not
            decoupled (Adam).
    """
    if len(saved["param_groups"]) != len(groups):
        raise ValueError(
            f"loaded state dict has {len(saved['param_groups'])} parameter groups, this optimizer "
            f"has {len(groups)}"
        )
    for g, group in enumerate(saved["param_groups"]):
        if group.get("amsgrad"):
            raise ValueError(f"param_groups[{g}] has amsgrad, whose maximum Cosmic does not keep")
        if not group.get("decoupled_weight_decay", True) and group.get("weight_decay"):
            raise ValueError(
                f"param_groups[{g}] has weight decay in the gradient (torch.optim.Adam); "
                "Cosmic's is decoupled, as AdamW's"
            )
    foreign = set(torch.optim.AdamW([torch.zeros(1)]).defaults) - set(_SHARED)
    return {
        "state": {k: _with_rung(s) for k, s in saved["state"].items() if s},
        "param_groups": [
            {
                **{k: v for k, v in own.items() if k != "params"},
                **{k: v for k, v in group.items() if k not in foreign},
            }
            for own, group in zip(groups, saved["param_groups"], strict=True)
        ],
    }


def _with_rung(state: State) -> State:
    f64 = state["exp_avg"].dtype in (torch.float64, torch.complex128)
    dtype = torch.float64 if f64 else torch.float32
    return {
        "rung": "tier2:fp64+fp64" if f64 else "tier2:fp32+fp32",
        "step": torch.tensor(int(state["step"]), dtype=torch.int64),
        **{key: _real(state[key]).to(dtype) for key in ("exp_avg", "exp_avg_sq")},
    }


def _real(moment: Tensor) -> Tensor:
    return torch.view_as_real(moment) if moment.is_complex() else moment


def exported(groups: Sequence[Group], state: Mapping[Tensor, State]) -> dict[str, Any]:
    """The optimizer's state as ``torch.optim.AdamW.load_state_dict`` takes it.

    Moments are decoded to float32 (float64 where the parameter is); AdamW casts them to the
    parameter's dtype. Parameters on tiers 0 and 1 have no moments and are left out: AdamW starts
    them anew.

    Raises:
        ValueError: for a slow average, for which AdamW has no place, and for codec ``costate``.
    """
    out: dict[int, State] = {}
    for member in members(groups):
        held = state.get(member.param)
        if not held or state_rung(held).tier < 2:
            continue
        if "exp_avg_slow" in held:
            raise ValueError(
                f"{member.label} has a slow average (beta_slow), for which AdamW has no place"
            )
        if state_rung(held).m == "costate":
            raise ValueError(
                f"{member.label} keeps its first moment as a multiple of the next gradient "
                "(costate), which is not known yet: AdamW cannot take it over"
            )
        out[member.index] = _moments(member.param, held, groups[member.group])
    return {"state": out, "param_groups": _exported_groups(groups)}


def _moments(param: Tensor, held: State, group: Group) -> State:
    moments = {key: value.clone() for key, value in decoded_moments(param, held, group).items()}
    if state_rung(held).centered:
        moments["exp_avg_sq"] = recentered(moments, held, group, 1)
    moments["exp_avg"] *= _correction(held, group)
    if param.is_complex():
        moments = {key: torch.view_as_complex(value) for key, value in moments.items()}
    return {"step": torch.tensor(float(held["step"])), **moments}


def _correction(held: State, group: Group) -> float:
    """What a first moment that started in mid-run is multiplied with, so that AdamW, which corrects
    its bias by the count of all steps, makes the same of it."""
    step, start = int(held["step"]), held.get("exp_avg_start", 0)
    if start in (0, step):  # from the first step on, or nothing yet
        return 1.0
    beta1 = float(group["betas"][0])
    return float((1.0 - beta1**step) / (1.0 - beta1 ** (step - start)))


def _exported_groups(groups: Sequence[Group]) -> list[Group]:
    plain = torch.optim.AdamW([torch.zeros(1)]).state_dict()["param_groups"][0]
    out, first = [], 0
    for group in groups:
        kept = {key: group[key] for key in (*_SHARED, "initial_lr", "param_names") if key in group}
        count = len(group["params"])
        out.append({**plain, **kept, "params": list(range(first, first + count))})
        first += count
    return out
