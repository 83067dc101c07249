"""Gates as groups ask for them, rungs have them and states hold them."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

from ..parts import GATES, Gate, Numbers
from ..rungs import Rung
from .entries import State, holds, rung_of

__all__ = [
    "NO_GATE",
    "GateUse",
    "gate_bytes",
    "gate_of",
    "gate_on",
    "held_numbers",
    "is_gated",
    "names_of",
    "rule_read",
]


class GateUse(NamedTuple):
    """The gates that a group asks for.

    Attributes:
        name: ``"none"``, or the gates' names joined by a plus.
        exact: they measure before each step what they else take from the last one.
    """

    name: str
    exact: bool = False

    @property
    def gates(self) -> tuple[Gate, ...]:
        return tuple(GATES[name] for name in names_of(self.name))

    @property
    def numbers(self) -> tuple[Numbers, ...]:
        """What they keep of a tensor, which several may share."""
        kept = (gate.numbers for gate in self.gates if gate.keeps_if_exact or not self.exact)
        return tuple(dict.fromkeys(numbers for numbers in kept if numbers))


NO_GATE = GateUse("none")


@functools.cache
def names_of(gate: str | None) -> tuple[str, ...]:
    """The names in an option ``gate``, or in a use's."""
    return tuple(gate.split("+")) if gate and gate != NO_GATE.name else ()


def gate_of(group: Mapping[str, Any]) -> GateUse:
    """The gates that a group asks for: by their names, and by options that imply one."""
    asked = set(names_of(group["gate"]))
    asked |= {name for name, gate in _IMPLIED if group.get(gate.implied_by or "") is not None}
    if not asked:
        return NO_GATE
    return GateUse("+".join(name for name in GATES if name in asked), bool(group.get("exact")))


_IMPLIED = tuple((name, gate) for name, gate in GATES.items() if gate.implied_by)


@functools.cache
def rule_read(gate: str | None) -> str | None:
    """The rule whose moments one of the gates in such an option reads; with any other rule that
    gate is none."""
    read = (GATES[name].rule for name in names_of(gate))
    return next((rule for rule in read if rule != "none"), None)


@functools.lru_cache(maxsize=4096)
def gate_on(rung: Rung, gate: GateUse) -> GateUse:
    """The gates that a rung has where its group asks for some: one that reads the moments of
    another rule is none here."""
    names = [n for n in names_of(gate.name) if GATES[n].rule in ("none", rung.rule)]
    return gate._replace(name="+".join(names)) if names else NO_GATE


def is_gated(state: State | None, group: Mapping[str, Any]) -> bool:
    """Whether a gate acts on a parameter with this state."""
    return state is not None and holds(state) and gate_on(rung_of(state), gate_of(group)) != NO_GATE


def gate_bytes(rung: Rung, gate: GateUse) -> int:
    """Bytes of the numbers of a rung's gates."""
    return sum(numbers.nbytes for numbers in gate_on(rung, gate).numbers)


def held_numbers(state: State) -> tuple[Numbers, ...]:
    """Of the gates whose numbers a state holds."""
    every = (gate.numbers for gate in GATES.values())
    return tuple(dict.fromkeys(n for n in every if n and n.key in state))
