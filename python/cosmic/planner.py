"""From parameter groups to a compiled plan: which rung for whom, and the state for it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from . import _core
from .allocation import Allocator, Candidate
from .budget import resolve_budget
from .rungs import MATRIX, PLAIN, Geometry, Rung, parse_state_dtype
from .state import (
    GATE_BYTES,
    SIGNAL_BYTES,
    State,
    build_state,
    real_view,
    state_rung,
)

__all__ = [
    "Compiled",
    "Member",
    "Transition",
    "check_param",
    "compile_plan",
    "members",
]

Group = dict[str, Any]


@dataclass(frozen=True)
class Member:
    """A parameter's place in the optimizer."""

    index: int
    group: int
    param: Tensor
    name: str  # the user's, or the index as text
    label: str  # for messages


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


def members(groups: Sequence[Group]) -> Iterator[Member]:
    """Every parameter of the groups, in order."""
    index = 0
    for g, group in enumerate(groups):
        names = group.get("param_names")
        for k, param in enumerate(group["params"]):
            name = names[k] if names else str(index)
            label = (
                f"parameter {name!r}"
                if names
                else f"parameter {index} (param_groups[{g}]['params'][{k}])"
            )
            yield Member(index, g, param, name, label)
            index += 1


def check_param(param: Tensor, label: str) -> None:
    """Refuse at once what could never be stepped.

    Raises:
        TypeError: naming the parameter.
    """
    if not (param.is_floating_point() or param.is_complex()):
        raise TypeError(f"{label} is {param.dtype}; expected a floating or complex dtype")
    if param.layout != torch.strided or param.device.type != "cpu":
        raise TypeError(
            f"{label} has layout {param.layout} on device {param.device}; COSMIC steps dense "
            "(strided) tensors on the CPU"
        )
    if param.is_conj() or param.is_neg():
        raise TypeError(
            f"{label} is a lazily conjugated or negated view, whose memory holds other values; "
            "use its resolve_conj().resolve_neg()"
        )


def _full_codecs(param: Tensor, geometry: Geometry, group: Group, old: State) -> tuple[str, str]:
    """The codecs of full history for a parameter; where they are not those of its group's
    ``state_dtype``, ``tiers()`` shows it."""
    m, v = parse_state_dtype(group["state_dtype"])
    if param.dtype in (torch.float64, torch.complex128):
        return "fp64", "fp64"  # moments in the precision of the arithmetic
    packed = m not in PLAIN or v not in PLAIN
    if packed and geometry.numel < group["min_compress_size"]:
        return "fp32", "fp32"
    if v in MATRIX and geometry.matrix is None:
        return m, "v4"  # nothing to take rows and columns of
    if v == "rowmean":
        return m, _direction(param, old)
    return m, v


def _direction(param: Tensor, old: State) -> str:
    """``"rowmean"`` or ``"colmean"``, whichever keeps more of the first gradient."""
    held = state_rung(old).v if old else "none"
    if held in ("rowmean", "colmean"):
        return held
    if param.grad is None:
        return "rowmean"
    gradient = real_view(param.grad.detach().resolve_conj())
    columns = _core.keeps_columns(real_view(param.detach()), gradient)
    return "colmean" if columns else "rowmean"


def _ladder(
    member: Member, geometry: Geometry, group: Group, old: State, budgeted: bool
) -> tuple[Rung, ...]:
    """The rungs that a parameter may have, cheap to dear; one if nothing is left to choose."""
    m, v = _full_codecs(member.param, geometry, group, old)
    full = Rung(2, m, "none" if group["beta_slow"] is None else m, v)
    tier = group["tier"]
    if tier is None:
        return (Rung(0), Rung(1), full) if budgeted else (full,)
    return (full if tier == 2 else Rung(tier),)


@dataclass
class _Live:
    """A parameter that holds state or is about to."""

    member: Member
    geometry: Geometry
    ladder: tuple[Rung, ...]
    gate: bool
    old: State
    signal: float = 0.0

    def price(self, rung: Rung) -> int:
        return rung.nbytes(self.geometry)

    @property
    def current(self) -> Rung | None:
        return state_rung(self.old) if self.old else None

    @property
    def overhead(self) -> int:
        return GATE_BYTES if self.gate else 0


def compile_plan(
    groups: Sequence[Group],
    state: Mapping[Tensor, State],
    *,
    budget: int | str | None,
    allocator: Allocator,
    seed: int,
    reallocate: bool = False,
) -> Compiled:
    """Choose a rung for every parameter that has a gradient or state, and compile the plan.

    Nothing that the caller holds is changed: new state is in the result.

    Args:
        reallocate: ask the allocator even where nothing forces a change.

    Raises:
        ValueError, TypeError: naming the parameter or the option that is wrong.
    """
    everyone = list(members(groups))
    live = [
        _alive(m, groups[m.group], dict(state.get(m.param, {})), budget is not None)
        for m in everyone
        if m.param.grad is not None or m.param in state
    ]
    limit = resolve_budget(budget, sum(x.geometry.numel for x in live))
    rungs, measured = _assign(live, limit, allocator, reallocate)
    compiled = Compiled(_core.Plan(seed), {}, len(everyone))
    rung_of = {x.member.index: (x, rung) for x, rung in zip(live, rungs, strict=True)}
    for member in everyone:
        if member.index in rung_of:
            _add_row(compiled, *rung_of[member.index], groups, seed, signal=measured)
        else:
            compiled.plan.add_idle(member.param)
    return compiled


def _alive(member: Member, group: Group, old: State, budgeted: bool) -> _Live:
    check_param(member.param, member.label)
    geometry = Geometry.of(member.param, member.label)
    ladder = _ladder(member, geometry, group, old, budgeted)
    return _Live(member, geometry, ladder, group["gate"] is not None, old)


def _add_row(
    compiled: Compiled, live: _Live, rung: Rung, groups: Sequence[Group], seed: int, *, signal: bool
) -> None:
    member = live.member
    has_signal = signal and len(live.ladder) > 1
    try:
        new = build_state(
            member.param, rung, live.old, gate=live.gate, signal=has_signal,
            group=groups[member.group], index=member.index, seed=seed,
        )  # fmt: skip
    except ValueError as error:
        raise ValueError(f"{member.label}: {error}") from None
    before = live.current
    if before != rung:
        compiled.transitions.append(
            Transition(member.name, before.name if before else None, rung.name)
        )
    compiled.states[member.param] = new
    compiled.plan.add_row(
        member.param, member.label, member.group, member.index,
        rung.rule, rung.m, rung.m_slow, rung.v, new,
    )  # fmt: skip


def _assign(
    live: list[_Live], limit: int | None, allocator: Allocator, reallocate: bool
) -> tuple[list[Rung], bool]:
    """A rung for each live parameter, and whether signals are kept to choose again later."""
    if limit is None:
        return [x.ladder[-1] for x in live], False
    fixed = [x for x in live if len(x.ladder) == 1]
    free = [x for x in live if len(x.ladder) > 1]
    demanded = sum(x.overhead for x in live) + sum(x.price(x.ladder[0]) for x in fixed)
    if demanded > limit:
        raise ValueError(
            f"the budget is {limit} bytes, but fixed tiers and gates alone need {demanded}; "
            f"give a budget of at least {demanded} bytes, or free some groups' tier"
        )
    left = limit - demanded
    # Watching signals costs bytes too: not where they could not buy anything.
    cheapest = min((x.price(x.ladder[1]) for x in free), default=0)
    if not free or left < SIGNAL_BYTES * len(free) + cheapest:
        return [x.ladder[0] for x in live], False
    settled = all(x.old and x.current in x.ladder and "signal" in x.old for x in free)
    spent = sum(x.price(x.current) for x in free if x.current)
    left -= SIGNAL_BYTES * len(free)
    if settled and spent <= left and not reallocate:
        chosen = [x.current for x in free if x.current]
    else:
        _read_signals(free)
        candidates = [
            Candidate(
                x.member.index, x.geometry.numel, x.ladder, x.current, x.signal, x.geometry.matrix
            )
            for x in free
        ]
        chosen = _allocated(allocator, candidates, left)
    by_index = {x.member.index: r for x, r in zip(free, chosen, strict=True)}
    return [by_index.get(x.member.index, x.ladder[0]) for x in live], True


def _allocated(allocator: Allocator, candidates: list[Candidate], budget: int) -> list[Rung]:
    """What an allocator chooses, held to its promises."""
    chosen = allocator.allocate(candidates, budget)
    kind = type(allocator).__name__
    if len(chosen) != len(candidates) or not all(
        rung in c.ladder for rung, c in zip(chosen, candidates, strict=False)
    ):
        raise ValueError(f"{kind}.allocate must return one rung of each candidate's ladder")
    spent = sum(c.price(r) for r, c in zip(chosen, candidates, strict=True))
    if spent > budget:
        raise ValueError(f"{kind}.allocate spent {spent} bytes of a budget of {budget}")
    return chosen


def _read_signals(free: list[_Live]) -> None:
    """Signals from state where they have been watched, else from a look at the gradients."""
    unseen = [x for x in free if not ("signal" in x.old and float(x.old["signal"]) > 0)]
    for x in free:
        x.signal = float(x.old["signal"]) if "signal" in x.old else 0.0
    unseen = [x for x in unseen if x.member.param.grad is not None]
    if not unseen:
        return
    look = _core.Plan(0)
    for x in unseen:
        look.add_row(
            x.member.param, x.member.label, 0, x.member.index, "sign", "none", "none", "none", {}
        )
    group = _looking_group([x.member.param for x in unseen])
    found = look.inspect([group], {}, torch.get_num_threads())
    means = {index: mean for index, mean, _ in found or []}
    for x in unseen:
        mean = means[x.member.index]
        x.signal = mean if math.isfinite(mean) else 0.0


def _looking_group(params: list[Tensor]) -> Group:
    """A group whose options do not matter, because nothing is stepped."""
    return {
        "params": params, "lr": 0.0, "betas": (0.9, 0.999), "eps": 0.0, "weight_decay": 0.0,
        "maximize": False, "beta_slow": None, "alpha": 0.0, "slow_warmup": None, "c_min": 0.0,
        "stochastic_rounding": False,
    }  # fmt: skip
