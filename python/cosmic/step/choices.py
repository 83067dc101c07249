"""Which rung for whom: what each parameter may have, and what the budget gives it of that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from .. import _core
from ..capital.allocation import allocate
from ..capital.budget import resolve_budget
from ..capital.ladder import OFF, ladder_of
from ..capital.policies import Candidate, Policy
from ..rungs import MATRIX, Geometry, Rung
from ..state.checks import check_same_parts, checked
from ..state.entries import (
    MASKED,
    SIGNAL,
    SIGNAL_BYTES,
    TRAINED,
    State,
    entries_of,
    marker,
    own,
    role_of,
    rung_of,
)
from ..state.gates import GateUse, gate_bytes, gate_of, rule_read
from ..state.geometries import geometries_of, geometry_here, geometry_of_whole
from ..state.groups import Group
from ..state.members import Member, check_param, members, naming, parts_of
from ..state.roles import Role, given_role, is_hidden_matrix, structural_role
from ..state.shards import whole_of
from ..state.structure import Structure
from ..state.trained import is_trained
from .looks import is_masked, plain
from .options import MATRIX_RULES
from .reasons import Reason

__all__ = ["Choice", "choose", "scratch_bytes"]

#: Options that ask for elementwise moments, where a policy may not choose a rule for matrices.
_WITHOUT_RULE = ("rung", "tier", "state_dtype", "beta_slow", "rule")


def _direction(member: Member, old: State) -> str:
    """``"rowmean"`` or ``"colmean"``, whichever keeps more of the first gradient."""
    held = rung_of(old).v if old else "none"
    if held in ("rowmean", "colmean"):
        return held
    gradient = member.gradient
    if gradient is None or member.shard:  # processes would see different ones
        return "rowmean"
    columns = _core.keeps_columns(member.tensor.detach(), plain(gradient), member.label)
    return "colmean" if columns else "rowmean"


@dataclass
class _Live:
    """A row of the plan: a parameter, or a part of one, that holds state or is about to."""

    member: Member
    geometry: Geometry  # of all its shards together
    shards: tuple[tuple[int, Geometry], ...]  # how many there are of each; none: it is no DTensor
    whole: Geometry  # of the parameter: what it is to the model, its parts are
    ladder: tuple[Rung, ...]
    gate: GateUse
    old: State  # COSMIC's entries alone
    masked: bool
    trained: bool  # before its first step, where the policy wants to know
    given: Role | None  # by its group
    structure: Structure  # of all parameters, with gradients or without
    lr_scale: float | Mapping[str, float] | None  # the group's, or the policy's

    def price(self, rung: Rung) -> int:
        """Of a rung with its gate, of all shards."""
        of_gate, shards = gate_bytes(rung, self.gate), self.shards or ((1, self.geometry),)
        return sum(times * (rung.nbytes(shard) + of_gate) for times, shard in shards)

    @property
    def here(self) -> Geometry:
        """Of what is laid out here."""
        if not self.shards:
            return self.geometry
        return geometry_here(self.member.tensor, self.member.shard, self.member.label)

    @property
    def current(self) -> Rung | None:
        return rung_of(self.old) if self.old else None

    @cached_property
    def role(self) -> Role:
        found = self.given or role_of(self.old)  # what is held stays, whatever groups come later
        return found or structural_role(
            self.member.param, self.whole, self.member.param_name, self.structure
        )

    @property
    def free(self) -> bool:
        return len(self.ladder) > 1

    def candidate(self) -> Candidate:
        signal = float(self.old[SIGNAL]) if SIGNAL in self.old else 0.0
        return Candidate(
            self.member.index, self.geometry.numel, self.ladder, self.current, self.role, signal,
            self.geometry.matrix, self.gate.name, self.geometry.dims, self.shards,
        )  # fmt: skip


@dataclass(frozen=True)
class Choice:
    """A rung for a parameter or a part of one, and what else it keeps."""

    live: _Live
    rung: Rung
    signal: bool
    policy: Policy | None  # None without a budget

    @property
    def reason(self) -> Reason:
        """What led to the rung."""
        live = self.live
        seen = live.masked, live.trained and not self.rung.of_matrix and self.policy is not None
        return Reason(self.rung, self.policy, live.candidate(), *seen, self.lr_scale)

    @property
    def param(self) -> Tensor:
        return self.live.member.param

    @property
    def marker(self) -> str:
        """The key that the rung has in its parameter's state."""
        return self.live.member.prefix + marker(self.rung)

    @property
    def role(self) -> Role | None:
        """Kept where the budget may choose again and the group does not say it."""
        return self.live.role if self.live.free and self.live.given is None else None

    @property
    def lr_scale(self) -> float:
        """The factor on its group's learning rate."""
        asked, part = self.live.lr_scale, self.live.member.part
        if asked is None:
            return 1.0
        if not isinstance(asked, Mapping):
            return float(asked)
        of_part = asked.get(part.name, 1.0) if part else 1.0
        return float(asked.get(self.live.role, 1.0)) * float(of_part)

    @property
    def nbytes(self) -> int:
        """Of all its state that is here."""
        watched = SIGNAL_BYTES if self.signal else 0
        live, rung = self.live, self.rung
        return rung.nbytes(live.here) + gate_bytes(rung, live.gate) + watched


def choose(
    groups: Sequence[Group],
    state: Mapping[Tensor, State],
    *,
    budget: int | str | None,
    policy: Policy,
    reallocate: bool = False,
    expecting: bool = False,
) -> list[Choice]:
    """A rung for every parameter that has a gradient or state, in the order of the parameters, and
    for each of its parts.

    Signals and roles are those that the state holds, roles of others those that structure says;
    gradients are not looked at for them.

    Args:
        reallocate: ask the policy even where nothing forces a change.
        expecting: choose for every parameter that requires grad: its gradient is still to come.

    Raises:
        ValueError, TypeError: naming the parameter or the option that is wrong.
    """
    live = []
    structure = Structure((m.name, m.param) for m in members(groups))
    asked = policy if budget is not None else None
    for m in members(groups):
        rows = parts_of(m, groups[m.group])
        with naming(m):
            held = own(_dict_of(state, m.param))
            check_same_parts(rows, held)
        if m.param.grad is not None or held or (expecting and m.takes_gradients):
            live += [
                _alive(row, groups[m.group], entries_of(held, row.prefix), asked, structure)
                for row in rows
            ]
    limit = resolve_budget(budget, sum(x.geometry.numel for x in live))
    return _assign(live, limit, policy, reallocate)


def _dict_of(state: Mapping[Tensor, State], param: Tensor) -> State:
    """What is kept of a parameter; others may have put None there."""
    held = state.get(param)
    if held is not None and not isinstance(held, dict):
        raise TypeError(f"optimizer.state[param] is a {type(held).__name__}; expected a dict")
    return held or {}


def _alive(
    member: Member, group: Group, old: State, policy: Policy | None, structure: Structure
) -> _Live:
    """``policy``: None without a budget."""
    tensor = member.tensor
    if tensor.device.type != "meta":  # an estimate is of tensors without memory
        check_param(member.param, member.label)
    geometry = geometry_of_whole(member.whole, member.shards, member.label)
    shards = geometries_of(member.whole, member.shards, member.label)
    if old:
        with naming(member):
            old = checked(tensor, old, member.param, member.shard)
    whole = Geometry.of(whole_of(member.param), member.label) if member.part else geometry

    budgeted, left_open = policy is not None, group["matrix_rule"] is None
    rule = _matrix_rule(group, geometry, policy)
    hidden = rule is not None and _is_hidden(member, whole, group, old, structure)
    trained = TRAINED in old
    if hidden and left_open and not (old and (trained or rung_of(old).of_matrix)):
        # before the rule has stepped it; shards would say it each for themselves
        trained = member.shard is None and is_trained(tensor, member.label)
    hidden = hidden and not (left_open and trained)
    group = {**group, "matrix_rule": rule}

    def ladder() -> tuple[Rung, ...]:
        return ladder_of(
            geometry, tensor.dtype, group, budgeted=budgeted,
            direction=lambda: _direction(member, old), is_matrix=hidden,
            is_table=_is_table(member, whole, group, old, structure), label=member.label,
        )  # fmt: skip

    masked = MASKED in old
    if not (old or budgeted or member.shard) and any(rung.v in MATRIX for rung in ladder()):
        masked = is_masked(member)
    if masked:
        geometry = geometry._replace(matrix=None)
    rungs, scale = ladder(), group["lr_scale"]
    if scale is None and len(rungs) > 1:
        scale = getattr(policy, "lr_scale", None)
    live = _Live(
        member, geometry, shards, whole, rungs, gate_of(group), old, masked, trained,
        given_role(group), structure, scale,
    )  # fmt: skip
    if shards and live.free:  # shards of few elements are priced in another order than all
        live.ladder = tuple(sorted(rungs, key=live.price))
    return live


def _matrix_rule(group: Group, geometry: Geometry, policy: Policy | None) -> str | None:
    """The rule that steps the group's hidden matrices: the option's, or, where that is None, the
    policy's, unless the group asks for something that the rule has not."""
    asked: str | None = group["matrix_rule"]
    if asked is not None:
        return None if asked == OFF else asked
    rule_of = getattr(policy, "matrix_rule", None)
    fixed = any(group[option] is not None for option in _WITHOUT_RULE) or group["min_tier"] == 2
    if rule_of is None or geometry.sides is None or fixed or rule_read(group["gate"]):
        return None
    rule = rule_of(geometry.sides)
    if rule is not None and rule not in MATRIX_RULES:
        raise ValueError(
            f"policy {getattr(policy, 'name', None)!r}: matrix_rule gave {rule!r}; expected None "
            f"or {', '.join(map(repr, MATRIX_RULES))}"
        )
    return None if rule is None else str(rule)


def _is_table(
    member: Member, whole: Geometry, group: Group, old: State, structure: Structure
) -> bool:
    """Whether codecs that the group does not name are a table's: what is held stays."""
    if group["state_dtype"] is not None or group["rung"] is not None:
        return False
    if old:
        return rung_of(old).v == "v4"
    role = given_role(group) or structural_role(member.param, whole, member.param_name, structure)
    return role == "table"


def _is_hidden(
    member: Member, whole: Geometry, group: Group, old: State, structure: Structure
) -> bool:
    """Whether the group's ``matrix_rule`` steps it: what has been stepped so stays so, whatever
    groups come later, unless its own says what it is."""
    if group["role"] is None and old and (rung_of(old).of_matrix or role_of(old) == "table"):
        return rung_of(old).of_matrix
    return is_hidden_matrix(member.param, whole, member.param_name, group, structure)


def _assign(live: list[_Live], limit: int | None, policy: Policy, reallocate: bool) -> list[Choice]:
    if limit is None:
        return [Choice(x, x.ladder[-1], signal=False, policy=None) for x in live]
    floor = sum(x.price(x.ladder[0]) for x in live)
    if floor > limit:
        raise ValueError(
            f"the budget is {limit} bytes, but gates, fixed rungs and the least that each "
            f"parameter may have (tier, rung, min_tier) need {floor}; give a budget of at least "
            f"{floor} bytes, or free some groups"
        )
    free = [x for x in live if x.free]
    if policy.uses_signal:
        _refuse_shards(free, policy)
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
        Choice(x, by_index.get(x.member.index, x.ladder[0]), watched and x.free, policy)
        for x in live
    ]


def _refuse_shards(free: Sequence[_Live], policy: Policy) -> None:
    """What each process has seen of gradients must not decide what all of them do."""
    sharded = next((x.member.label for x in free if x.member.shard is not None), None)
    if sharded is not None:
        raise ValueError(
            f"policy {policy.name!r} goes by the size of gradients, of which {sharded}, a DTensor, "
            "has only a part here; expected a policy that does not look at them, such as "
            "'calibrated' or 'role'"
        )


def scratch_bytes(choices: Sequence[Choice], groups: Sequence[Group], threads: int) -> int:
    """What a step takes besides for the matrices that are stepped as a whole."""
    whole = [c for c in choices if c.rung.of_matrix and c.live.here.sides is not None]
    if not whole:
        return 0
    given, of = [], []
    for choice in whole:
        group = groups[choice.live.member.group]
        given.append(choice.live.here.sides or (0, 0))
        of.append(group)
    return _core.scratch_of_matrices(whole[0].rung.rule, given, of, threads)


def _can_watch(free: Sequence[_Live], left: int) -> bool:
    """Whether watching signals leaves enough to buy anything with."""
    base = sum(x.price(x.ladder[0]) for x in free)
    cheapest = min((x.price(x.ladder[1]) - x.price(x.ladder[0]) for x in free), default=0)
    return bool(free) and left >= base + SIGNAL_BYTES * len(free) + cheapest
