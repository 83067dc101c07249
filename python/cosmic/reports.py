"""What an optimizer tells about itself: its tiers, and what its last step saw."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from .rungs import Rung
from .state.entries import State, entries_of, holds, role_of, rung_of, state_bytes
from .state.gates import is_gated
from .state.groups import Group
from .state.members import Member, plan_rows
from .state.places import real_numel
from .state.roles import Role, given_role
from .state.slices import Slice
from .step.plans import StatisticsRow
from .step.reasons import Reason

__all__ = ["TierInfo", "gate_factors", "group_statistics", "tier_table"]


class TierInfo(NamedTuple):
    """What one parameter holds, or a part of one.

    Attributes:
        name: the parameter's name, or its index as text; of a part with its name in brackets, such
            as ``attn.c_attn.weight[q]``.
        tier: 0, 1 or 2.
        rung: tier and codecs, such as ``"tier2:bf16+bf16"``.
        codecs: codec of every moment, by its name.
        role: ``"table"``, ``"matrix"`` or ``"vector"`` where a budget may choose its rung, or the
            group's ``role`` says it.
        numel: its real elements.
        nbytes: bytes of COSMIC's own tensors in its state, counters included.
        why: what led to its rung, in a few words; empty where nothing is to be said.
    """

    name: str
    tier: int
    rung: str
    codecs: dict[str, str]
    role: Role | None
    numel: int
    nbytes: int
    why: str = ""


def tier_table(
    groups: Sequence[Group],
    state: Mapping[Tensor, State],
    reasons: Mapping[tuple[Tensor, Slice | None], Reason],
) -> list[TierInfo]:
    """One row for every parameter that has state, or for each of its parts, in the order of the
    parameters.

    Args:
        reasons: of the rungs that the newest plan has chosen, by parameter and part.
    """
    out = []
    for member in plan_rows(groups):
        held = _held(member, state)
        if holds(held):
            rung, numel = rung_of(held), real_numel(member.tensor)
            out.append(
                TierInfo(
                    member.name,
                    rung.tier,
                    rung.name,
                    rung.slots,
                    given_role(groups[member.group]) or role_of(held),
                    numel,
                    state_bytes(held),
                    _why(rung, reasons.get((member.param, member.part))),
                )
            )
    return out


def _why(rung: Rung, reason: Reason | None) -> str:
    """Nothing where the rung is not the newest plan's, as after loading a checkpoint."""
    return reason.text if reason is not None and reason.rung == rung else ""


def group_statistics(
    groups: Sequence[Group], rows: Sequence[StatisticsRow]
) -> list[dict[str, float]]:
    """Means over the elements of each group; see ``Cosmic.stats``."""
    seen = {index for index, *_ in rows}
    numel = {m.index: real_numel(m.tensor) for m in plan_rows(groups) if m.index in seen}
    out = []
    for g in range(len(groups)):
        mine = [(numel[i], a, u, c) for i, group, a, u, c, _ in rows if group == g and numel[i]]
        n = sum(size for size, *_ in mine)
        out.append(
            {
                "gate": sum(s * c for s, _, _, c in mine) / n if n else 1.0,
                "gate_min": min((c for *_, c in mine), default=1.0),
                "update_rms": math.sqrt(sum(s * u * u for s, _, u, _ in mine) / n) if n else 0.0,
                "gradient_abs": sum(s * a for s, a, _, _ in mine) / n if n else 0.0,
            }
        )
    return out


def gate_factors(
    groups: Sequence[Group], state: Mapping[Tensor, State], rows: Sequence[StatisticsRow]
) -> dict[str, float]:
    """The factor of every gated parameter or part of one; see ``Cosmic.gate_factors``."""
    everyone = {row.index: row for row in plan_rows(groups)}
    return {
        everyone[index].name: factor
        for index, group, _, _, factor, _ in rows
        if is_gated(_held(everyone[index], state), groups[group])
    }


def _held(row: Member, state: Mapping[Tensor, State]) -> State:
    return entries_of(state.get(row.param) or {}, row.prefix)
