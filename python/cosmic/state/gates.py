"""Gates as groups ask for them, rungs have them and states hold them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..rungs import Rung
from .entries import GATE_SIZES, State, gate_key, holds, rung_of

__all__ = ["gate_bytes", "gate_of", "gate_on", "held_gate", "is_gated"]


def gate_of(group: Mapping[str, Any]) -> str:
    """The core's name of the gate that a group asks for."""
    if group["gate"] == "calibrated_agar":
        return "exact_agar" if group["exact"] else "lagged_agar"
    return group["gate"] or "none"


def gate_on(rung: Rung, gate: str) -> str:
    """The gate that a rung has where its group asks for one: "agar" reads the moments, so that
    without full history there is none."""
    return "none" if gate == "agar" and not rung.centered else gate


def is_gated(state: State | None, group: Mapping[str, Any]) -> bool:
    """Whether a gate acts on a parameter with this state."""
    return state is not None and holds(state) and gate_on(rung_of(state), gate_of(group)) != "none"


def gate_bytes(rung: Rung, gate: str) -> int:
    """Bytes of the numbers of a rung's gate."""
    return 8 * GATE_SIZES[gate_on(rung, gate)]


def held_gate(state: State) -> str:
    """The gate whose numbers a state holds; ``"none"`` if it holds no gate's."""
    return next((gate for gate in GATE_SIZES if gate_key(gate) in state), "none")
