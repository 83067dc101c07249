"""Gates as groups ask for them, rungs have them and states hold them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ..parts import GATES, Numbers
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
    "reads_moments",
]


class GateUse(NamedTuple):
    """A gate as a group asks for it.

    Attributes:
        name: ``"none"``, or the gate's.
        exact: it measures before each step what it else takes from the last one.
    """

    name: str
    exact: bool = False

    @property
    def numbers(self) -> Numbers | None:
        """What it keeps of a tensor."""
        gate = GATES.get(self.name)
        return gate.numbers if gate and (gate.keeps_if_exact or not self.exact) else None


NO_GATE = GateUse("none")


def gate_of(group: Mapping[str, Any]) -> GateUse:
    """The gate that a group asks for."""
    return GateUse(group["gate"], bool(group.get("exact"))) if group["gate"] else NO_GATE


def reads_moments(name: str | None) -> bool:
    """Whether a gate of this name reads the moments of one rule, and is none of any other's."""
    return name is not None and GATES[name].rule != "none"


def gate_on(rung: Rung, gate: GateUse) -> GateUse:
    """The gate that a rung has where its group asks for one: one that reads the moments of another
    rule is none here."""
    reads = GATES[gate.name].rule if gate.name in GATES else "none"
    return gate if reads in ("none", rung.rule) else NO_GATE


def is_gated(state: State | None, group: Mapping[str, Any]) -> bool:
    """Whether a gate acts on a parameter with this state."""
    return state is not None and holds(state) and gate_on(rung_of(state), gate_of(group)) != NO_GATE


def gate_bytes(rung: Rung, gate: GateUse) -> int:
    """Bytes of the numbers of a rung's gate."""
    numbers = gate_on(rung, gate).numbers
    return numbers.nbytes if numbers else 0


def held_numbers(state: State) -> Numbers | None:
    """Of the gate whose numbers a state holds."""
    every = (gate.numbers for gate in GATES.values())
    return next((numbers for numbers in every if numbers and numbers.key in state), None)
