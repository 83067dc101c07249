"""The entries of ``optimizer.state[param]``: which are COSMIC's own, and what they are called.

Others keep entries of theirs there, and replace ours. Own entries are tensors and numbers alone,
and one of them, the marker, has the rung in its name: a state without one holds nothing of
COSMIC's. A parameter that is stepped in parts has such entries of each part, whose keys begin with
the part's prefix: its name and a slash.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from ..parts import GATES
from ..rungs import Rung
from .groups import placed_params
from .roles import ROLES, Role
from .slices import SEPARATOR

__all__ = [
    "MARKER",
    "MASKED",
    "MASTER",
    "ROLE",
    "SIGNAL",
    "SIGNAL_BYTES",
    "STATE_FORMAT",
    "TRAINED",
    "State",
    "by_part",
    "drop_orphans",
    "entries_of",
    "foreign",
    "forget",
    "holds",
    "is_marker",
    "marker",
    "master_bytes",
    "own",
    "prefixed",
    "prefixes",
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
_MARKED = re.compile(rf"((?:[\w-]+{SEPARATOR})?){MARKER}")
ROLE, SIGNAL, MASKED, TRAINED = "budget_role", "budget_signal", "masked", "trained"
SIGNAL_BYTES = 8
#: Eight more bits of each element of a parameter in bfloat16: of the weights, not of what a step
#: remembers.
MASTER = "master_low"
#: Of any rung: where a packed tensor's codes belong, when a first moment started, whether gradients
#: have masks, whether weights had been trained before, what the budget keeps, and lower bits.
_OF_ANY_RUNG = (
    "packed_shape", "packed_order", "exp_avg_start", MASKED, TRAINED, ROLE, SIGNAL, MASTER,
)  # fmt: skip


def marker(rung: Rung) -> str:
    """The key that says which rung a state is of."""
    return MARKER + rung.name


def is_marker(key: object) -> bool:
    """Whether a key says which rung the state of a parameter, or of a part of one, is of."""
    return isinstance(key, str) and _MARKED.match(key) is not None


def _markers_of(state: Mapping[Any, Any], prefix: str = "") -> list[str]:
    start = prefix + MARKER
    return [key[len(prefix) :] for key in state if isinstance(key, str) and key.startswith(start)]


def holds(state: object) -> bool:
    """Whether this is a state of COSMIC's: not one that looking has made, or others have filled."""
    return isinstance(state, dict) and any(map(is_marker, state))


def prefixes(state: Mapping[Any, Any]) -> list[str]:
    """What the keys of each part begin with; of a parameter that is whole with nothing."""
    found = (_MARKED.match(key) for key in state if isinstance(key, str))
    return list(dict.fromkeys(marked[1] for marked in found if marked))


def entries_of(state: State, prefix: str) -> State:
    """What a state has of one part, under the keys that it would have of a parameter."""
    if not prefix:
        others = tuple(filter(None, prefixes(state)))
        return {k: v for k, v in state.items() if not _begins(k, others)} if others else state
    return {key[len(prefix) :]: value for key, value in state.items() if _begins(key, (prefix,))}


def _begins(key: object, starts: tuple[str, ...]) -> bool:
    return isinstance(key, str) and key.startswith(starts)


def prefixed(state: State, prefix: str) -> State:
    """Entries of a part under the keys that they have in its parameter's state."""
    return {prefix + key: value for key, value in state.items()} if prefix else state


def by_part(state: object) -> list[State]:
    """COSMIC's entries of each part that a state holds, as of ``entries_of``; none where it holds
    nothing."""
    if not isinstance(state, dict):
        return []
    return [own(entries_of(state, prefix)) for prefix in prefixes(state)]


def rung_of(state: State, prefix: str = "") -> Rung:
    """The rung that the state of a parameter, or of the part with this prefix, is of.

    Raises:
        ValueError: if it names none or several, or another format than this release's.
    """
    markers = _markers_of(state, prefix)
    if len(markers) != 1:
        found = " and ".join(map(repr, markers)) or "no rung: it was not made by Cosmic"
        raise ValueError(f"its state has {found}; expected one rung")
    (key,) = markers
    found = state[prefix + key]
    if not isinstance(found, int) or found != STATE_FORMAT:
        raise ValueError(
            f"its state has {key} {found!r}; expected format {STATE_FORMAT}: it may be of a "
            "newer release of cosmic-optim"
        )
    return Rung.parse(key.removeprefix(MARKER))


@functools.cache
def _keys_of(rung: Rung) -> frozenset[str]:
    gates = (gate.numbers.key for gate in GATES.values() if gate.numbers)
    return frozenset((marker(rung), *rung.keys, *_OF_ANY_RUNG, *gates))


def own(state: State) -> State:
    """COSMIC's entries of a state, in their order, those of parts under their own keys."""
    keys = {p + key for p in prefixes(state) for key in _keys_of(rung_of(state, p))}
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
    for prefix in prefixes(held):
        for key in _markers_of(held, prefix):
            try:
                rung = Rung.parse(key.removeprefix(MARKER))
            except ValueError:
                rung = Rung(0)
            for entry in (key, *_keys_of(rung)):
                held.pop(prefix + entry, None)


def tensors_of(state: State) -> Iterator[Tensor]:
    """COSMIC's tensors of a state."""
    return (value for value in own(state).values() if isinstance(value, Tensor))


def state_bytes(state: object) -> int:
    """Bytes of COSMIC's tensors in one parameter's state, without bits of the weights."""
    if not isinstance(state, dict):
        return 0
    held = sum(t.numel() * t.element_size() for t in tensors_of(state))
    return held - master_bytes(state)


def master_bytes(state: object) -> int:
    """Bytes of the weights' lower bits in one parameter's state."""
    return sum(part[MASTER].nbytes for part in by_part(state) if MASTER in part)


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
