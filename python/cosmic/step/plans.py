"""Compiled plans: of the rungs that were chosen, with the state for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from torch import Tensor

from .. import _core
from ..state.building import build_state
from ..state.entries import State, prefixed
from ..state.gates import gate_on
from ..state.groups import Group, placed_params
from ..state.members import naming, plan_rows
from ..state.slices import Slice
from .choices import Choice
from .reasons import Reason

__all__ = ["Compiled", "StatisticsRow", "Transition", "chosen_state", "compile_plan"]

#: A row's index, its group, mean of |g|, RMS of the update, product of the gates' factors, RMS of
#: the parameter (NaN where no gate asks for it); from the plan.
StatisticsRow: TypeAlias = tuple[int, int, float, float, float, float]


@dataclass(frozen=True)
class Transition:
    """A parameter, or part of one, that changed its rung; ``before`` is None where it had none."""

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
    #: Of the rungs that were chosen, by parameter and part.
    reasons: dict[tuple[Tensor, Slice | None], Reason] = field(default_factory=dict)


def compile_plan(groups: Sequence[Group], choices: Sequence[Choice], seed: int) -> Compiled:
    """The plan for what ``choose`` has chosen for these groups.

    Nothing that the caller holds is changed: new state is in the result.
    """
    chosen = {choice.live.member.index: choice for choice in choices}
    compiled = Compiled(_core.Plan(seed), {}, sum(1 for _ in placed_params(groups)))
    for row in plan_rows(groups):
        if row.index in chosen:
            _add_row(compiled, chosen[row.index], groups[row.group], seed)
        elif row.is_first:
            compiled.plan.add_idle(row.param)
    return compiled


def chosen_state(choice: Choice, group: Group, seed: int) -> State:
    """The state of a parameter, or of a part of one, on its chosen rung, with what it held before.

    Raises:
        ValueError: if that does not fit the parameter.
    """
    live, rung = choice.live, choice.rung
    return build_state(
        live.member.tensor, rung, live.old, gates=gate_on(rung, live.gate).numbers,
        signal=choice.signal, role=choice.role, masked=live.masked, trained=live.trained,
        group=group, index=live.member.index, seed=seed,
    )  # fmt: skip


def _add_row(compiled: Compiled, choice: Choice, group: Group, seed: int) -> None:
    member, rung, live = choice.live.member, choice.rung, choice.live
    with naming(member):
        new = prefixed(chosen_state(choice, group, seed), member.prefix)
    before = live.current
    if before != rung:
        compiled.transitions.append(
            Transition(member.name, before.name if before else None, rung.name)
        )
    compiled.states.setdefault(member.param, {}).update(new)
    compiled.reasons[member.param, member.part] = choice.reason
    gate = gate_on(rung, live.gate)
    part = member.part and (member.part.dimension, member.part.start, member.part.size)
    compiled.plan.add_row(
        member.param, member.label, member.group, member.index,
        rung.rule, rung.m, rung.m_slow, rung.v, gate.name, gate.exact, new,
        choice.lr_scale, part, member.prefix,
    )  # fmt: skip
