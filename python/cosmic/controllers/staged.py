"""Options that change at steps which are known beforehand."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from ..state.groups import Group
from .base import Controller
from .observation import Observation, groups_of

__all__ = ["Change", "Staged"]

_OPERATIONS = ("set", "add", "mul")


class Change(NamedTuple):
    """One change of an option.

    Attributes:
        step: it holds from the step after this many on.
        option: of the group, such as ``"weight_decay"``.
        operation: ``"set"``, ``"add"`` or ``"mul"``.
        value: what is set, added or multiplied with.
        where: of which groups: a group's number, a tag or role, or None for all.
    """

    step: int
    option: str
    operation: str
    value: Any
    where: int | str | None = None


class Staged(Controller):
    """Changes options of groups at given steps: constant between them.

    A change at step ``s`` is made at the end of that step, or, where the controller comes later, at
    the end of the first step that it sees; changes are made in the order of their steps, of one
    step in the order given:

        set:  o <- value        add:  o <- o + value        mul:  o <- o value

    Args:
        changes: ``Change`` or tuples of the same: ``(1000, "weight_decay", "mul", 0.5)``, or
            ``(2000, "lr_scale", "set", 0.3, "embedding")``. ``lr`` belongs to schedulers.
        name: by which its place is saved.

    Raises:
        ValueError, TypeError: for a change that is none; when attached, for an option or groups
            that there are not, an option that is no number and is to be added to or multiplied, and
            a value that the option cannot have, as the groups are then. What is found only at its
            step, or by the step after it, is raised once: the changes made there together are taken
            back and left out.
    """

    SEES_TENSORS = False
    START: ClassVar[dict[str, float | int | None]] = {"made": 0}

    def __init__(
        self, changes: Iterable[Change | tuple[Any, ...]], *, name: str | None = None
    ) -> None:
        super().__init__(every=1, name=name)
        checked = [_checked(change, index) for index, change in enumerate(changes)]
        if not checked:
            raise ValueError("changes is empty; expected one at least")
        self.changes = tuple(sorted(checked, key=lambda change: change.step))

    def check(self, groups: Sequence[Group]) -> None:
        for _ in self.foreseen(groups):
            pass  # each change has been computed

    def foreseen(self, groups: Sequence[Group]) -> Iterator[tuple[str, int, Group]]:
        later = [dict(group) for group in groups]
        left = self.changes[self.numbers["made"] :]
        for step, together in itertools.groupby(left, key=lambda change: change.step):
            changed = set()
            for change in together:
                for index in _groups(change, later):
                    later[index][change.option] = _changed(change, later[index], index)
                    changed.add(index)
            for index in sorted(changed):
                yield f"at step {step}", index, dict(later[index])

    def observe(self, seen: Observation) -> None:
        made = self.numbers["made"]
        for change in self.changes[made:]:
            if change.step > seen.step:
                break
            for group in _groups(change, seen.groups):
                value = _changed(change, seen.groups[group], group)
                seen.move(group, change.option, value, multiplies=change.operation == "mul")
            made += 1
        self.numbers["made"] = made

    def taken_back(self, step: int) -> None:
        self.numbers["made"] = sum(change.step <= step for change in self.changes)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        made = state.get("made") if isinstance(state, Mapping) else None
        if type(made) is int and made > len(self.changes):
            raise ValueError(
                f"the state of controller {self.name!r} says that {made} changes have been made, "
                f"but it has {len(self.changes)}; give it those that it was saved with"
            )
        super().load_state_dict(state)


def _checked(change: object, index: int) -> Change:
    where = f"changes[{index}]"
    if not isinstance(change, tuple) or not 4 <= len(change) <= 5:
        raise TypeError(
            f"{where} is {change!r}; expected (step, option, operation, value) and, if it is not "
            "of all groups, a group's number, tag or role"
        )
    made = Change(*change)
    if type(made.step) is not int or made.step < 1:
        raise ValueError(f"{where} has step {made.step!r}; expected an int >= 1")
    if not isinstance(made.option, str) or made.option in ("params", "param_names"):
        raise ValueError(f"{where} has option {made.option!r}; expected the name of an option")
    if made.option == "lr":
        raise ValueError(
            f"{where} has option 'lr', which learning rate schedulers set; expected 'lr_scale', "
            "which multiplies it, or a scheduler of torch"
        )
    if made.operation not in _OPERATIONS:
        raise ValueError(
            f"{where} has operation {made.operation!r}; expected 'set', 'add' or 'mul'"
        )
    if made.operation != "set" and not _is_number(made.value):
        raise ValueError(
            f"{where} has value {made.value!r}; expected a finite number to {made.operation}"
        )
    if not isinstance(made.where, int | str | None) or isinstance(made.where, bool):
        raise TypeError(f"{where} is of {made.where!r}; expected a group's number, tag or role")
    return made


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and type(value) is not bool and math.isfinite(value)


def _groups(change: Change, groups: Sequence[Group]) -> Iterator[int]:
    """Numbers of the groups that a change is of.

    Raises:
        ValueError: if there is none.
    """
    if change.where is None:
        found = list(range(len(groups)))
    elif isinstance(change.where, int):
        found = [change.where] if 0 <= change.where < len(groups) else []
    else:
        found = groups_of(groups, change.where)
    if not found:
        raise ValueError(
            f"Staged changes {change.option!r} of groups {change.where!r} at step {change.step}, "
            f"and none of the {len(groups)} parameter groups has that number, tag or role"
        )
    yield from found


def _changed(change: Change, group: Group, index: int) -> Any:
    """What an option of a group becomes.

    Raises:
        ValueError: if the group does not have it, or it is no number where one is needed.
    """
    where = f"Staged at step {change.step}: param_groups[{index}]"
    if change.option not in group:
        raise ValueError(f"{where} has no option {change.option!r}")
    if change.operation == "set":
        return copy.deepcopy(change.value)  # a mapping is the group's own
    before = group[change.option]
    if before is None and change.option == "lr_scale":
        before = 1.0
    if not _is_number(before):
        raise ValueError(
            f"{where}[{change.option!r}] is {before!r}; expected a number to {change.operation} "
            f"{change.value!r}"
        )
    return before + change.value if change.operation == "add" else before * change.value
