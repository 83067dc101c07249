"""From parameter groups to a compiled plan: which rung for whom, and the state for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from .. import _core
from .._core import UnsupportedTensorError
from ..capital.allocation import allocate
from ..capital.budget import resolve_budget
from ..capital.ladder import ladder_of
from ..capital.policies import Candidate, Policy
from ..rungs import MATRIX, Geometry, Rung
from ..state.building import SIGNAL_BYTES, build_state, gate_bytes, gate_of, gate_on
from ..state.checks import checked
from ..state.entries import MASKED, ROLE, SIGNAL, State, holds, own, role_number, role_of, rung_of
from ..state.groups import name_of, placed_params
from ..state.roles import Role, guessed_role, observed_role

__all__ = [
    "Choice",
    "Compiled",
    "Member",
    "Transition",
    "check_param",
    "choose",
    "chosen_state",
    "compile_plan",
    "is_masked",
    "members",
    "naming",
    "observed",
    "observed_of",
    "plain",
]

Group = dict[str, Any]

#: The share of numbers other than zero, among the rows and columns that have any, below which a
#: gradient counts as masked: a second moment by rows and columns would be this share of what it is.
DENSE = 0.6


@dataclass(frozen=True)
class Member:
    """A parameter's place in the optimizer."""

    index: int
    group: int
    param: Tensor
    name: str  # the user's, or the index as text
    label: str  # for messages

    @property
    def takes_gradients(self) -> bool:
        """Whether a gradient may come at the next step; a lazy module's parameter is made first."""
        return self.param.requires_grad and not is_lazy(self.param)


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
    """Every parameter of the groups, in order.

    Raises:
        ValueError, TypeError: for what is no parameter, naming its place.
    """
    for index, (g, k, param) in enumerate(placed_params(groups)):
        name = name_of(groups[g], k)
        if name is None:
            place = f"parameter {index} (param_groups[{g}]['params'][{k}])"
            yield Member(index, g, param, str(index), place)
        else:
            yield Member(index, g, param, name, f"parameter {name!r}")


def check_param(param: Tensor, label: str) -> None:
    """Refuse at once what could never be stepped. A lazy module's parameter that is not made yet
    is looked at when it is.

    Raises:
        UnsupportedTensorError: naming the parameter.
    """
    if is_lazy(param):
        return
    if not (param.is_floating_point() or param.is_complex()):
        raise UnsupportedTensorError(
            f"{label} is {param.dtype}; expected a floating or complex dtype"
        )
    if param.layout != torch.strided or param.device.type != "cpu":
        raise UnsupportedTensorError(
            f"{label} has layout {param.layout} on device {param.device}; COSMIC steps dense "
            "(strided) tensors on the CPU"
        )
    if param.is_conj() or param.is_neg():
        raise UnsupportedTensorError(
            f"{label} is a lazily conjugated or negated view, whose memory holds other values; "
            "use its resolve_conj().resolve_neg()"
        )


def plain(gradient: Tensor) -> Tensor:
    """The gradient itself, not a lazily conjugated or negated view."""
    return gradient.detach().resolve_conj().resolve_neg()


def _direction(member: Member, old: State) -> str:
    """``"rowmean"`` or ``"colmean"``, whichever keeps more of the first gradient."""
    held = rung_of(old).v if old else "none"
    if held in ("rowmean", "colmean"):
        return held
    param, gradient = member.param, member.param.grad
    if gradient is None:
        return "rowmean"
    columns = _core.keeps_columns(param.detach(), plain(gradient), member.label)
    return "colmean" if columns else "rowmean"


@dataclass
class _Live:
    """A parameter that holds state or is about to."""

    member: Member
    geometry: Geometry
    ladder: tuple[Rung, ...]
    gate: str
    old: State  # COSMIC's entries alone
    masked: bool

    def price(self, rung: Rung) -> int:
        """Of a rung with its gate."""
        return rung.nbytes(self.geometry) + gate_bytes(rung, self.gate)

    @property
    def current(self) -> Rung | None:
        return rung_of(self.old) if self.old else None

    @property
    def role(self) -> Role:
        return role_of(self.old) or guessed_role(self.geometry)

    @property
    def free(self) -> bool:
        return len(self.ladder) > 1

    def candidate(self) -> Candidate:
        signal = float(self.old[SIGNAL]) if SIGNAL in self.old else 0.0
        return Candidate(
            self.member.index, self.geometry.numel, self.ladder, self.current, self.role, signal,
            self.geometry.matrix, self.gate, self.geometry.dims,
        )  # fmt: skip


@dataclass(frozen=True)
class Choice:
    """A rung for a parameter, and what else it keeps."""

    live: _Live
    rung: Rung
    signal: bool

    @property
    def param(self) -> Tensor:
        return self.live.member.param

    @property
    def role(self) -> Role | None:
        """Kept where the budget may choose again."""
        return self.live.role if self.live.free else None

    @property
    def nbytes(self) -> int:
        """Of all its state."""
        watched = SIGNAL_BYTES if self.signal else 0
        return self.live.price(self.rung) + watched


def choose(
    groups: Sequence[Group],
    state: Mapping[Tensor, State],
    *,
    budget: int | str | None,
    policy: Policy,
    reallocate: bool = False,
    expecting: bool = False,
) -> list[Choice]:
    """A rung for every parameter that has a gradient or state, in the order of the parameters.

    Roles and signals are those that the state holds; gradients are not looked at.

    Args:
        reallocate: ask the policy even where nothing forces a change.
        expecting: choose for every parameter that requires grad: its gradient is still to come.

    Raises:
        ValueError, TypeError: naming the parameter or the option that is wrong.
    """
    live = []
    for m in members(groups):
        with naming(m):
            held = own(_dict_of(state, m.param))
        if m.param.grad is not None or held or (expecting and m.takes_gradients):
            live.append(_alive(m, groups[m.group], held, budget is not None))
    limit = resolve_budget(budget, sum(x.geometry.numel for x in live))
    return _assign(live, limit, policy, reallocate)


def _dict_of(state: Mapping[Tensor, State], param: Tensor) -> State:
    """What is kept of a parameter; others may have put None there."""
    held = state.get(param)
    if held is not None and not isinstance(held, dict):
        raise TypeError(f"optimizer.state[param] is a {type(held).__name__}; expected a dict")
    return held or {}


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


def observed(groups: Sequence[Group], state: Mapping[Tensor, State]) -> dict[Tensor, State]:
    """What a look at the gradients says that is new: entries for the states of parameters."""
    found: dict[Tensor, State] = {}
    for member in members(groups):
        entries = observed_of(member.param, member.label, state.get(member.param, {}))
        if entries:
            found[member.param] = entries
    return found


def observed_of(param: Tensor, label: str, state: State) -> State:
    """Entries for a parameter's state after a look at its gradient: a role, where a budget may
    choose its rung and the role is another one than it has; that the gradient is masked, where the
    second moment is kept by rows and columns."""
    gradient = param.grad
    if gradient is None or not holds(state):
        return {}
    out: State = {}
    held = role_of(state)
    if held in ("table", "matrix"):
        seen = observed_role(held, _core.participation(param.detach(), plain(gradient), label))
        if seen != held:
            out[ROLE] = role_number(seen)
    if rung_of(state).v in MATRIX and is_masked(param, label):
        out[MASKED] = 1
    return out


def is_masked(param: Tensor, label: str) -> bool:
    """Whether a parameter's gradient has zeros that its rows and columns do not explain, as under a
    mask: they are no description of its second moment then."""
    if param.grad is None or param.grad.layout != torch.strided:
        return False  # what is not dense, the step itself refuses
    return _core.density(param.detach(), plain(param.grad), label) < DENSE


def _alive(member: Member, group: Group, old: State, budgeted: bool) -> _Live:
    if member.param.device.type != "meta":  # an estimate is of tensors without memory
        check_param(member.param, member.label)
    geometry = Geometry.of(member.param, member.label)
    if old:
        with naming(member):
            old = checked(member.param, old)

    def ladder() -> tuple[Rung, ...]:
        return ladder_of(
            geometry, member.param.dtype, group, budgeted=budgeted,
            direction=lambda: _direction(member, old), label=member.label,
        )  # fmt: skip

    masked = MASKED in old
    if not old and not budgeted and any(rung.v in MATRIX for rung in ladder()):
        masked = is_masked(member.param, member.label)
    if masked:
        geometry = geometry._replace(matrix=None)
    return _Live(member, geometry, ladder(), gate_of(group), old, masked)


def chosen_state(choice: Choice, group: Group, seed: int) -> State:
    """The state of a parameter on its chosen rung, with what it held before.

    Raises:
        ValueError: if that does not fit the parameter.
    """
    live, rung = choice.live, choice.rung
    return build_state(
        live.member.param, rung, live.old, gate=gate_on(rung, live.gate), signal=choice.signal,
        role=choice.role, masked=live.masked, group=group, index=live.member.index, seed=seed,
    )  # fmt: skip


@contextmanager
def naming(member: Member) -> Iterator[None]:
    """Errors of what is done within name the parameter."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise type(error)(f"{member.label}: {error}") from None


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
    compiled.plan.add_row(
        member.param, member.label, member.group, member.index,
        rung.rule, rung.m, rung.m_slow, rung.v, gate_on(rung, live.gate), new,
    )  # fmt: skip


def _assign(live: list[_Live], limit: int | None, policy: Policy, reallocate: bool) -> list[Choice]:
    if limit is None:
        return [Choice(x, x.ladder[-1], signal=False) for x in live]
    floor = sum(x.price(x.ladder[0]) for x in live)
    if floor > limit:
        raise ValueError(
            f"the budget is {limit} bytes, but gates, fixed rungs and the least that each "
            f"parameter may have (tier, rung, min_tier) need {floor}; give a budget of at least "
            f"{floor} bytes, or free some groups"
        )
    free = [x for x in live if x.free]
    left = limit - sum(0 if x.free else x.price(x.ladder[0]) for x in live)
    watched = policy.uses_signal and _can_watch(free, left)
    if watched:
        left -= SIGNAL_BYTES * len(free)
    candidates = [x.candidate() for x in free]
    settled = all(x.current in x.ladder and (SIGNAL in x.old) >= watched for x in free)
    held = [x.current for x in free if x.current]
    if (
        settled
        and not reallocate
        and sum(x.price(r) for x, r in zip(free, held, strict=True)) <= left
    ):
        rungs = held
    else:
        rungs = allocate(policy, candidates, left)
    by_index = {x.member.index: r for x, r in zip(free, rungs, strict=True)}
    return [
        Choice(x, by_index.get(x.member.index, x.ladder[0]), signal=watched and x.free)
        for x in live
    ]


def _can_watch(free: Sequence[_Live], left: int) -> bool:
    """Whether watching signals leaves enough to buy anything with."""
    base = sum(x.price(x.ladder[0]) for x in free)
    cheapest = min((x.price(x.ladder[1]) - x.price(x.ladder[0]) for x in free), default=0)
    return bool(free) and left >= base + SIGNAL_BYTES * len(free) + cheapest
