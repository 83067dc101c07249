"""Rules, gates and codecs as they describe themselves in the compiled core."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import torch

from . import _core

__all__ = [
    "CODECS",
    "GATES",
    "HISTORY_RULES",
    "RULES",
    "Codec",
    "Gate",
    "Numbers",
    "Rule",
    "rule_for",
]


class Numbers(NamedTuple):
    """What a part keeps of a tensor from step to step: one tensor of a few numbers.

    Attributes:
        key: of the entry in ``optimizer.state``.
        names: what the numbers are.
        initial: where they start.
        dtype: of the tensor.
    """

    key: str
    names: tuple[str, ...]
    initial: tuple[float, ...]
    dtype: torch.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.names),) if len(self.names) > 1 else ()

    @property
    def nbytes(self) -> int:
        return len(self.names) * self.dtype.itemsize

    @staticmethod
    def of(part: Mapping[str, Any], prefix: str = "") -> Numbers | None:
        if part["key"] is None:
            return None
        names, initial = zip(*part["numbers"], strict=True)
        return Numbers(prefix + part["key"], names, initial, getattr(torch, part["dtype"]))


class Rule(NamedTuple):
    """How parameter, gradient and decoded slots make the update.

    Attributes:
        tier, first, second, variant: which rungs it steps: their tier, whether they keep a first
            and a second moment, and what their names end with.
        slow: whether it may have a slow average.
        second_name: the second moment's name in the state.
        gate: the one that it goes with, or ``"none"``.
        counts: whether it keeps the tensor's own count of steps.
        numbers: what it keeps, or None.
        matrix: whether it steps whole matrices, and nothing else.
        starts: whether numbers for it can be made of a second moment that is given up.
    """

    name: str
    tier: int
    first: bool
    second: bool
    variant: str
    slow: bool
    second_name: str
    gate: str
    counts: bool
    numbers: Numbers | None
    starts: bool
    matrix: bool


class Gate(NamedTuple):
    """A factor on updates.

    Attributes:
        rule: whose moments it reads, or ``"none"``: of other rules it is no gate.
        remembers: whether it keeps something of each parameter group.
        keeps_if_exact: whether it keeps numbers of a tensor where it measures before the step.
        implied_by: the option that asks for it where it is not None; None: its name does.
    """

    name: str
    rule: str
    remembers: bool
    keeps_if_exact: bool
    implied_by: str | None
    numbers: Numbers | None

    @property
    def by_name(self) -> bool:
        """Whether a group may ask for it by its name: those that keep something of a group are of
        presets, which hold it, and others have an option of their own."""
        return not (self.remembers or self.implied_by)


class Codec(NamedTuple):
    """How a slot is stored between steps.

    Attributes:
        first, second: which moments it can be the codec of.
        plain: one number an element, and no blocks.
        matrix: means of rows or columns.
        of_next_gradient: what it keeps cannot be read without the next step's gradient.
        numbers: what it keeps of a whole tensor's first moment, or None.
    """

    name: str
    first: bool
    second: bool
    plain: bool
    matrix: bool
    of_next_gradient: bool
    numbers: Numbers | None


def _rule(part: dict[str, Any]) -> Rule:
    fields = {key: part[key] for key in Rule._fields if key != "numbers"}
    return Rule(**fields, numbers=Numbers.of(part))


def _gate(part: dict[str, Any]) -> Gate:
    fields = {key: part[key] for key in Gate._fields if key != "numbers"}
    return Gate(**fields, numbers=Numbers.of(part))


def _codec(part: dict[str, Any]) -> Codec:
    fields = {key: part[key] for key in Codec._fields if key != "numbers"}
    return Codec(**fields, numbers=Numbers.of(part, "exp_avg_"))


_PARTS = _core.parts()
RULES: Mapping[str, Rule] = MappingProxyType({k: _rule(v) for k, v in _PARTS["rules"].items()})
GATES: Mapping[str, Gate] = MappingProxyType({k: _gate(v) for k, v in _PARTS["gates"].items()})
CODECS: Mapping[str, Codec] = MappingProxyType({k: _codec(v) for k, v in _PARTS["codecs"].items()})


#: Rules of full history that step elements, by what the names of their rungs end with.
HISTORY_RULES: Mapping[str, Rule] = MappingProxyType(
    {rule.variant: rule for rule in RULES.values() if rule.tier == 2 and not rule.matrix}
)


def rule_for(tier: int, first: bool, second: bool, variant: str) -> Rule | None:
    """The rule of the rungs that are so, or None."""
    wanted = (tier, first, second, variant)
    every = RULES.values()
    return next((r for r in every if (r.tier, r.first, r.second, r.variant) == wanted), None)
