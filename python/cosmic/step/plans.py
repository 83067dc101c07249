"""Compiled plans: of the rungs that were chosen, with the state for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from torch import Tensor

from .. import _core
from ..state.building import build_state
from ..state.entries import State, prefixed
from ..state.gates import gate_of, gate_on
from ..state.geometries import placed
from ..state.groups import Group, placed_params
from ..state.master import has_master
from ..state.members import naming, plan_rows
from ..state.shards import on_several_ranks
from ..state.slices import Slice
from .choices import Choice
from .reasons import Reason
from .sums import exchange_of

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
    sharded: bool = False  # whether one of them is, over several ranks
    transitions: list[Transition] = field(default_factory=list)
    #: Of the rungs that were chosen, by parameter and part.
    reasons: dict[tuple[Tensor, Slice | None], Reason] = field(default_factory=dict)


def compile_plan(
    groups: Sequence[Group], choices: Sequence[Choice], seed: int, *, global_sums: bool = False
) -> Compiled:
    """The plan for what ``choose`` has chosen for these groups.

    Nothing that the caller holds is changed: new state is in the result.

    Args:
        global_sums: sums of a tensor whose shards are on several ranks are those of all of it.
    """
    chosen = {choice.live.member.index: choice for choice in choices}
    params = [param for _, _, param in placed_params(groups)]
    compiled = Compiled(_core.Plan(seed), {}, len(params), any(map(on_several_ranks, params)))
    if compiled.sharded and not global_sums:
        _check_shared_gates(groups)
    added = []
    for row in plan_rows(groups):
        if row.index in chosen:
            _add_row(compiled, chosen[row.index], groups[row.group], seed)
            added.append(row.param)
        elif row.is_first:
            compiled.plan.add_idle(row.param)
    if compiled.sharded and global_sums:
        compiled.plan.set_exchange(exchange_of(added))
    return compiled


def _check_shared_gates(groups: Sequence[Group]) -> None:
    """Refuse gates that remember what a whole group was like where each rank sees its shards
    alone: their factors, and the steps that they refuse, would differ from rank to rank."""
    for index, group in enumerate(groups):
        found = [gate.name for gate in gate_of(group).gates if gate.remembers]
        if found and any(map(on_several_ranks, group["params"])):
            raise ValueError(
                f"gate {found[0]!r} of param_groups[{index}] has one factor for what all of the "
                "group's tensors are like, and their shards are on several ranks; set "
                "optimizer.global_sums = True"
            )


def chosen_state(choice: Choice, group: Group, seed: int) -> State:
    """The state of a parameter, or of a part of one, on its chosen rung, with what it held before.

    Raises:
        ValueError: if that does not fit the parameter.
    """
    live, rung = choice.live, choice.rung
    return build_state(
        live.member.tensor, rung, live.old, gates=gate_on(rung, live.gate).numbers,
        signal=choice.signal, role=choice.role, masked=live.masked, trained=live.trained,
        master=has_master(live.member.param, group),
        group=group, index=live.member.index, seed=seed, shard=live.member.shard,
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
    place, matrix = placed(member.tensor, member.shard, rung)
    compiled.plan.add_row(
        member.param, member.label, member.group, member.index,
        rung.rule, rung.m, rung.m_slow, rung.v, gate.name, gate.exact, new,
        choice.lr_scale, member.part_here, member.prefix, place, matrix,
    )  # fmt: skip
