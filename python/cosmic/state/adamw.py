"""To and from checkpoints of torch.optim.AdamW, so that a run can change its optimizer midway."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..rungs import Rung
from .checks import whole_step
from .entries import STATE_FORMAT, State, by_part, holds, marker, rung_of
from .groups import Group
from .joined import in_parts, read_whole
from .members import Member, members, naming

__all__ = ["exported", "imported", "is_adamw"]

_MOMENTS = {"exp_avg", "exp_avg_sq"}
#: Options of a group that mean the same in both.
_SHARED = ("lr", "betas", "eps", "weight_decay", "maximize")


def is_adamw(saved: dict[str, Any]) -> bool:
    """Whether a state dict is one of AdamW's: it says nothing of Cosmic, and all states of
    parameters are moments of one number an element. Wrappers may keep entries of their own beside
    them, and at the top."""
    ids = {i for group in saved["param_groups"] for i in group["params"]}
    states = [s for i, s in saved.get("state", {}).items() if i in ids and isinstance(s, dict)]
    ours = any("rung" in s or holds(s) for s in states)
    unfinished = any(_MOMENTS & set(s) and not _moved(s) for s in states)
    moved = not any(states) or any(map(_moved, states))
    return "cosmic" not in saved and moved and not ours and not unfinished


def _moved(state: object) -> bool:
    """Whether this is a state that AdamW has stepped with."""
    return isinstance(state, dict) and set(state) >= {"step", *_MOMENTS}


def imported(saved: dict[str, Any], groups: Sequence[Group]) -> dict[str, Any]:
    """AdamW's state dict as one of Cosmic's with fp32 moments; options that its groups do not have
    stay as they are in ``groups``: Cosmic's own, and those that other packages' AdamWs lack.

    Raises:
        ValueError: for ``amsgrad``, and for weight decay that is not decoupled (Adam).
    """
    for g, group in enumerate(saved["param_groups"]):
        if group.get("amsgrad"):
            raise ValueError(f"param_groups[{g}] has amsgrad, whose maximum Cosmic does not keep")
        if not group.get("decoupled_weight_decay", True) and group.get("weight_decay"):
            raise ValueError(
                f"param_groups[{g}] has weight decay in the gradient (torch.optim.Adam); "
                "Cosmic's is decoupled, as AdamW's"
            )
    params = {}
    for member, saved_id in zip(
        members(groups), (i for g in saved["param_groups"] for i in g["params"]), strict=False
    ):
        params[saved_id] = member
    foreign = set(torch.optim.AdamW([torch.zeros(1)]).defaults) - set(_SHARED)
    return {
        "state": {
            k: _with_rung(params[k], s, groups) if k in params and _moved(s) else s
            for k, s in saved["state"].items()
        },
        "param_groups": [
            {
                **{k: v for k, v in own.items() if k != "params"},
                **{k: v for k, v in group.items() if k not in foreign},
            }
            for own, group in zip(groups, saved["param_groups"], strict=True)
        ],
    }


def _with_rung(member: Member, state: State, groups: Sequence[Group]) -> State:
    """In the arithmetic of the parameter, to which AdamW's own loader casts, too; in its parts."""
    f64 = member.param.dtype in (torch.float64, torch.complex128)
    dtype, codec = (torch.float64, "fp64") if f64 else (torch.float32, "fp32")
    with naming(member):
        whole = {
            **state,
            marker(Rung(2, codec, v=codec)): STATE_FORMAT,
            "step": whole_step(state["step"]),
            **{key: _real(state[key], key).to(dtype) for key in ("exp_avg", "exp_avg_sq")},
        }
    return in_parts(member, whole, groups[member.group])


def _real(moment: object, key: str) -> Tensor:
    if not isinstance(moment, Tensor):
        raise ValueError(f"its state has {key} {moment!r}; expected a tensor")
    return torch.view_as_real(moment) if moment.is_complex() else moment


def exported(groups: Sequence[Group], state: Mapping[Tensor, State]) -> dict[str, Any]:
    """The optimizer's state as ``torch.optim.AdamW.load_state_dict`` takes it.

    Moments are decoded to float32 (float64 where the parameter is); AdamW casts them to the
    parameter's dtype. Parameters on tiers 0 and 1, and those stepped as whole matrices, have no
    second moment and are left out: AdamW starts them anew. Parts are joined.

    Raises:
        ValueError: for a slow average, for which AdamW has no place, and for codecs such
            as ``costate``, whose first moment is a multiple of the next gradient.
    """
    out: dict[int, State] = {}
    for member in members(groups):
        held = state.get(member.param, {})
        rungs = [rung_of(part) for part in by_part(held)]
        if not rungs or any(rung.tier < 2 or rung.of_matrix for rung in rungs):
            continue
        if any(rung.m_slow != "none" for rung in rungs):
            raise ValueError(
                f"{member.label} has a slow average (beta_slow), for which AdamW has no place"
            )
        moments = read_whole(member, held, groups[member.group])
        out[member.index] = {
            "step": torch.tensor(float(moments.step), device="cpu"),
            "exp_avg": moments.exp_avg,
            "exp_avg_sq": moments.exp_avg_sq,
        }
    return {"state": out, "param_groups": _exported_groups(groups)}


def _exported_groups(groups: Sequence[Group]) -> list[Group]:
    plain = torch.optim.AdamW([torch.zeros(1)]).state_dict()["param_groups"][0]
    out, first = [], 0
    for group in groups:
        kept = {key: group[key] for key in (*_SHARED, "initial_lr", "param_names") if key in group}
        count = len(group["params"])
        out.append({**plain, **kept, "params": list(range(first, first + count))})
        first += count
    return out
