"""The entries of ``optimizer.state[param]``: which are COSMIC's own, and what they are called.

Others keep entries of theirs there, and replace ours. Own entries are tensors and numbers alone,
and one of them, the marker, has the rung in its name: a state without one holds nothing of
COSMIC's.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from ..parts import GATES
from ..rungs import Rung
from .groups import placed_params
from .roles import ROLES, Role

__all__ = [
    "MARKER",
    "MASKED",
    "ROLE",
    "SIGNAL",
    "SIGNAL_BYTES",
    "STATE_FORMAT",
    "TRAINED",
    "State",
    "drop_orphans",
    "foreign",
    "forget",
    "holds",
    "marker",
    "own",
    "role_number",
    "role_of",
    "rung_of",
    "state_bytes",
    "take_over",
]

State = dict[str, Any]

#: Format of `state_dict()` and, as the marker's value, of each state; raised whenever its meaning
#: changes.
STATE_FORMAT = 2
#: What the key begins with that says which rung a state is of.
MARKER = "rung:"
ROLE, SIGNAL, MASKED, TRAINED = "budget_role", "budget_signal", "masked", "trained"
SIGNAL_BYTES = 8
#: Of any rung: where a packed tensor's codes belong, when a first moment started, whether gradients
#: have masks, whether weights had been trained before, and what the budget keeps.
_OF_ANY_RUNG = ("packed_shape", "packed_order", "exp_avg_start", MASKED, TRAINED, ROLE, SIGNAL)


def marker(rung: Rung) -> str:
    """The key that says which rung a state is of."""
    return MARKER + rung.name


def _markers_of(state: Mapping[Any, Any]) -> list[str]:
    return [key for key in state if isinstance(key, str) and key.startswith(MARKER)]


def holds(state: object) -> bool:
    """Whether this is a state of COSMIC's: not one that looking has made, or others have filled."""
    return isinstance(state, dict) and bool(_markers_of(state))


def rung_of(state: State) -> Rung:
    """The rung that a parameter's state is of.

    Raises:
        ValueError: if it names none or several, or another format than this release's.
    """
    markers = _markers_of(state)
    if len(markers) != 1:
        found = " and ".join(map(repr, markers)) or "no rung: it was not made by Cosmic"
        raise ValueError(f"its state has {found}; expected one rung")
    (key,) = markers
    if state[key] != STATE_FORMAT:
        raise ValueError(
            f"its state has {key} {state[key]!r}; expected format {STATE_FORMAT}: it may be of a "
            "newer release of cosmic-optim"
        )
    return Rung.parse(key.removeprefix(MARKER))


@functools.cache
def _keys_of(rung: Rung) -> frozenset[str]:
    gates = (gate.numbers.key for gate in GATES.values() if gate.numbers)
    return frozenset((marker(rung), *rung.keys, *_OF_ANY_RUNG, *gates))


def own(state: State) -> State:
    """COSMIC's entries of a state, in their order."""
    if not holds(state):
        return {}
    keys = _keys_of(rung_of(state))
    return {key: value for key, value in state.items() if key in keys}


def foreign(state: State) -> State:
    """What others keep in a state."""
    mine = own(state)
    return {key: value for key, value in state.items() if key not in mine}


def take_over(held: State, new: State) -> None:
    """Put ``new`` in the place of COSMIC's entries; others keep theirs, and the dict stays."""
    for key in (*own(held), *new):
        held.pop(key, None)
    held.update(new)


def forget(held: State) -> None:
    """Drop COSMIC's entries, also of a state whose marker is doubtful."""
    for key in _markers_of(held):
        try:
            rung = Rung.parse(key.removeprefix(MARKER))
        except ValueError:
            rung = Rung(0)
        for entry in (key, *_keys_of(rung)):
            held.pop(entry, None)


def tensors_of(state: State) -> Iterator[Tensor]:
    """COSMIC's tensors of a state."""
    return (value for value in own(state).values() if isinstance(value, Tensor))


def state_bytes(state: object) -> int:
    """Bytes of COSMIC's tensors in one parameter's state."""
    if not isinstance(state, dict):
        return 0
    return sum(t.numel() * t.element_size() for t in tensors_of(state))


def role_of(state: Mapping[str, Any]) -> Role | None:
    """The role that a state holds, where a budget may choose its rung; what is none is named when
    the state is checked."""
    number = state.get(ROLE)
    return ROLES[number] if type(number) is int and 0 <= number < len(ROLES) else None


def role_number(role: Role) -> int:
    """A role as a state holds it."""
    return ROLES.index(role)


def drop_orphans(states: dict[Any, Any], groups: object) -> None:
    """Drop COSMIC's state of tensors that are in no group any more, and what looking has made of
    them; what others keep stays."""
    placed = {id(param) for _, _, param in placed_params(groups)}
    for key, state in list(states.items()):
        if isinstance(key, Tensor) and id(key) not in placed:
            if holds(state):
                take_over(state, {})
            if state == {}:
                del states[key]
