"""To and from checkpoints of torch.optim.Muon, so that a run can change its optimizer midway."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..parts import RULES
from ..rungs import Rung
from .entries import STATE_FORMAT, State, by_part, holds, marker, rung_of
from .groups import Group
from .joined import in_parts, read_whole
from .members import Member, members

__all__ = ["MUON_OPTIONS", "muon_exported", "muon_imported", "of_muon"]

_MOMENTUM = "momentum_buffer"
#: Of rungs of the rule that steps whole matrices, which is Muon's.
_VARIANT = next(rule.variant for rule in RULES.values() if rule.matrix)
#: Options of a group of torch.optim.Muon, which mean the same here.
MUON_OPTIONS = (
    "lr", "weight_decay", "momentum", "nesterov", "ns_coefficients", "eps", "ns_steps",
    "adjust_lr_fn",
)  # fmt: skip


def of_muon(saved: Mapping[str, Any]) -> bool:
    """Whether a state dict is one of torch.optim.Muon's: it says nothing of Cosmic, its groups have
    Muon's options, and all states of parameters are a momentum."""
    groups = saved["param_groups"]
    ids = {i for group in groups for i in group["params"]}
    states = [s for i, s in saved.get("state", {}).items() if i in ids and s]
    ours = "cosmic" in saved or any(holds(s) for s in states)
    moved = all(isinstance(s, dict) and _MOMENTUM in s for s in states)
    return not ours and moved and all(set(MUON_OPTIONS) <= set(group) for group in groups)


def muon_imported(saved: Mapping[str, Any], groups: Sequence[Group]) -> dict[str, Any]:
    """Muon's state dict as one of Cosmic's with the momentum in fp32; options that its groups do
    not have stay as they are in ``groups``.

    Raises:
        ValueError: for a momentum that is no tensor.
    """
    ids = [i for group in saved["param_groups"] for i in group["params"]]
    placed = dict(zip(ids, members(groups), strict=False))
    return {
        **saved,
        "state": {
            k: _with_rung(placed[k], s, groups) if k in placed and s else s
            for k, s in saved["state"].items()
        },
        "param_groups": [
            {**{k: v for k, v in own.items() if k != "params"}, **group}
            for own, group in zip(groups, saved["param_groups"], strict=True)
        ],
    }


def _with_rung(member: Member, state: State, groups: Sequence[Group]) -> State:
    """Muon counts no steps: the parameter's count begins anew."""
    momentum = state[_MOMENTUM]
    if not isinstance(momentum, Tensor):
        raise ValueError(
            f"{member.label}: its state has {_MOMENTUM} {momentum!r}; expected a tensor"
        )
    whole = {
        **{k: v for k, v in state.items() if k != _MOMENTUM},
        marker(Rung(2, "fp32", variant=_VARIANT)): STATE_FORMAT,
        "step": torch.zeros((), dtype=torch.int64, device="cpu"),
        "exp_avg": momentum.to(torch.float32),
    }
    return in_parts(member, whole, groups[member.group])


def muon_exported(groups: Sequence[Group], state: Mapping[Tensor, State]) -> dict[str, Any]:
    """The optimizer's state as ``torch.optim.Muon.load_state_dict`` takes it.

    Raises:
        ValueError: for a group with an option for which Muon has no place.
    """
    for index, group in enumerate(groups):
        _check_told(group, f"param_groups[{index}]")
    out: dict[int, State] = {}
    for member in members(groups):
        held = state.get(member.param, {})
        rungs = [rung_of(part) for part in by_part(held)]
        if not rungs or not all(rung.of_matrix and rung.slots for rung in rungs):
            continue
        moments = read_whole(member, held, groups[member.group])
        out[member.index] = {_MOMENTUM: moments.exp_avg}
    return {"state": out, "param_groups": _exported_groups(groups)}


def _check_told(group: Group, where: str) -> None:
    """What Muon does not know must be as Muon does it."""
    if group["maximize"]:
        raise ValueError(f"{where}['maximize'] is True, for which torch.optim.Muon has no place")
    if group["ns_coefficients"] is None:
        raise ValueError(
            f"{where}['ns_coefficients'] is None (Polar Express), whose iterations differ; "
            "torch.optim.Muon has one polynomial for all of them"
        )


def _exported_groups(groups: Sequence[Group]) -> list[Group]:
    out, first = [], 0
    for group in groups:
        kept = (*MUON_OPTIONS, "initial_lr", "param_names")
        count = len(group["params"])
        params = list(range(first, first + count))
        out.append({**{key: group[key] for key in kept if key in group}, "params": params})
        first += count
    return out
