"""Compiled plans: of the rungs that were chosen, with the state for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from torch import Tensor

from .. import _core
from ..state.building import build_state
from ..state.entries import State
from ..state.gates import gate_on
from ..state.groups import Group, parts_of
from ..state.members import members, naming
from .choices import Choice
from .reasons import Reason

__all__ = ["Compiled", "StatisticsRow", "Transition", "chosen_state", "compile_plan"]

#: Parameter's index, its group, mean of |g|, RMS of the update, gate factor; from the plan.
StatisticsRow: TypeAlias = tuple[int, int, float, float, float]


@dataclass(frozen=True)
class Transition:
    """A parameter that changed its rung; ``before`` is None where it had none."""

    name: str
    before: str | None
    after: str


@dataclass
class Compiled:
    """A plan, and the state that it was made for and that holds once its step has succeeded."""

    plan: _core.Plan
    states: dict[Tensor, State]
    members: int  # parameters of the groups that it was made for
    transitions: list[Transition] = field(default_factory=list)
    reasons: dict[Tensor, Reason] = field(default_factory=dict)  # of the rungs that were chosen


def compile_plan(groups: Sequence[Group], choices: Sequence[Choice], seed: int) -> Compiled:
    """The plan for what ``choose`` has chosen for these groups.

    Nothing that the caller holds is changed: new state is in the result.
    """
    chosen = {choice.live.member.index: choice for choice in choices}
    everyone = list(members(groups))
    compiled = Compiled(_core.Plan(seed), {}, len(everyone))
    for member in everyone:
        if member.index in chosen:
            _add_row(compiled, chosen[member.index], groups[member.group], seed)
        else:
            compiled.plan.add_idle(member.param)
    return compiled


def chosen_state(choice: Choice, group: Group, seed: int) -> State:
    """The state of a parameter on its chosen rung, with what it held before.

    Raises:
        ValueError: if that does not fit the parameter.
    """
    live, rung = choice.live, choice.rung
    return build_state(
        live.member.param, rung, live.old, gate=gate_on(rung, live.gate).numbers,
        signal=choice.signal, role=choice.role, masked=live.masked, trained=live.trained,
        group=group, index=live.member.index, seed=seed,
    )  # fmt: skip


def _add_row(compiled: Compiled, choice: Choice, group: Group, seed: int) -> None:
    member, rung, live = choice.live.member, choice.rung, choice.live
    with naming(member):
        new = chosen_state(choice, group, seed)
    before = live.current
    if before != rung:
        compiled.transitions.append(
            Transition(member.name, before.name if before else None, rung.name)
        )
    compiled.states[member.param] = new
    compiled.reasons[member.param] = choice.reason
    gate = gate_on(rung, live.gate)
    along, stack = parts_of(group)
    compiled.plan.add_row(
        member.param, member.label, member.group, member.index,
        rung.rule, rung.m, rung.m_slow, rung.v, gate.name, gate.exact, new, along, stack,
        choice.lr_scale,
    )  # fmt: skip
