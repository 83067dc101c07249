"""Changes of group options that wait for their turn, as Tiger's ``stage_group_update`` has them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from .options import is_number

__all__ = ["Staged", "applied", "from_saved", "staged", "to_save"]


class Staged(NamedTuple):
    """Changes of one group: its number, and by option an operation and what it works with."""

    group: int
    changes: tuple[tuple[str, str, Any], ...]


def _number(value: Any) -> bool:
    return is_number(value)


def _numbers(count: int) -> Any:
    def fits(value: Any) -> bool:
        return (
            isinstance(value, list | tuple) and len(value) == count and all(map(is_number, value))
        )

    return fits


def _clipped(old: float, low: float, high: float) -> float:
    return min(max(old, low), high)


def _moved_by_odds(old: float, delta: float, low: float, high: float) -> float:
    """Add in units of ``ln(x / (1 - x))``, within (0, 1)."""
    x = _clipped(old, 1e-12, 1 - 1e-12)
    return _clipped(1 / (1 + math.exp(-(math.log(x / (1 - x)) + delta))), low, high)


#: What each operation does, whether its payload fits it, and what was expected if not.
_OPERATIONS: Mapping[str, tuple[Any, Any, str]] = {
    "set": (lambda old, new: new, lambda value: True, "anything"),
    "replace": (lambda old, new: new, lambda value: True, "anything"),
    "merge": (lambda old, new: {**old, **new}, lambda v: isinstance(v, Mapping), "a dict"),
    "add": (lambda old, x: old + x, _number, "a number"),
    "mul": (lambda old, x: old * x, _number, "a number"),
    "pow": (lambda old, x: old**x, _number, "a number"),
    "exp": (lambda old, x: old * math.exp(x), _number, "a number"),
    "clip": (lambda old, x: _clipped(old, *x), _numbers(2), "the least and the greatest"),
    "logit-clip": (
        lambda old, x: _moved_by_odds(old, *x), _numbers(3), "a shift, the least and the greatest"
    ),
}  # fmt: skip


def staged(index: int, fields: Mapping[str, Any], options: Mapping[str, Any]) -> Staged:
    """Changes of a group, checked.

    Args:
        index: of the group.
        fields: by option a value, ``(operation, payload)`` or a list of these.
        options: the group as it is.

    Raises:
        ValueError: for an option that the group does not have, or a payload that does not fit.
    """
    changes = []
    for option, field in fields.items():
        if option == "params" or option not in options:
            raise ValueError(f"param_groups[{index}] has no option {option!r} to be changed")
        for operation, payload in _operations(field):
            _, fits, expected = _OPERATIONS[operation]
            if not fits(payload):
                raise ValueError(
                    f"{operation!r} of {option!r} has {payload!r}; expected {expected}"
                )
            changes.append((option, operation, payload))
    return Staged(index, tuple(changes))


def _operations(field: Any) -> list[tuple[str, Any]]:
    if _is_operation(field):
        return [field]
    if isinstance(field, list) and field and all(map(_is_operation, field)):
        return field
    return [("set", field)]


def _is_operation(field: Any) -> bool:
    return (
        isinstance(field, tuple)
        and len(field) == 2
        and isinstance(field[0], str)
        and field[0] in _OPERATIONS
    )


def applied(waiting: Staged, options: Mapping[str, Any]) -> dict[str, Any]:
    """The group's options as the changes leave them: those that change, one after the other.

    Raises:
        TypeError, ValueError: where an option is not what the operation works on.
    """
    out: dict[str, Any] = {}
    for option, operation, payload in waiting.changes:
        old = out.get(option, options[option])
        try:
            out[option] = _OPERATIONS[operation][0](old, payload)
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(
                f"param_groups[{waiting.group}][{option!r}] is {old!r}, on which {operation!r} by "
                f"{payload!r} cannot work: {error}"
            ) from None
    return out


def to_save(waiting: Sequence[Staged]) -> list[list[Any]]:
    """What a checkpoint holds of changes that wait."""
    return [[one.group, [list(change) for change in one.changes]] for one in waiting]


def from_saved(saved: Any, groups: Sequence[Mapping[str, Any]]) -> list[Staged]:
    """The same, checked, of these groups.

    Raises:
        ValueError: for what is none.
    """
    out = []
    try:
        for index, changes in saved:
            every = [
                staged(index, {option: (operation, payload)}, groups[index])
                for option, operation, payload in changes
            ]
            out.append(Staged(index, tuple(c for one in every for c in one.changes)))
    except (TypeError, ValueError, LookupError) as error:
        raise ValueError(f"the state_dict's 'tiger' does not fit the groups: {error}") from None
    return out
