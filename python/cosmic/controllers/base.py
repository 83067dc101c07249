"""What every controller has: its turn, its numbers, and how they are saved."""

from __future__ import annotations

import math
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from ..state.groups import Group
from .observation import Move, Observation

__all__ = ["Controller", "check_bounds", "check_decay", "check_number", "within", "worth_moving"]

#: Another learning rate of a tensor makes the plan anew, which takes as long as some steps of a
#: small tensor: a factor that would change by less than this stays.
_LEAST_MOVE = 0.01


class Controller(ABC):
    """An object that looks at every so many-th step and moves options of the groups.

    ``Cosmic.add_controller`` attaches it. At the end of each step whose number divides by ``every``
    it is shown what the step saw; what it moves holds from the next step on. It has no part in the
    arithmetic of a step, and no other way to the optimizer.

    What it must remember is numbers by name: a subclass says in ``START`` where they begin, keeps
    them in ``self.numbers``, and they are in the optimizer's ``state_dict``, copies and pickles;
    so are further ones that it adds later. It is attached to one optimizer at a time.

    Args:
        every: steps from one look to the next.
        name: by which its numbers are saved; no two of an optimizer have the same.

    Attributes:
        enabled: False: it neither looks nor moves anything. Not saved.
    """

    #: Whether it goes by what steps have seen of tensors, which processes that hold shards of one
    #: would see differently.
    SEES_TENSORS: ClassVar[bool] = True
    #: Names of the numbers that are kept, and where they start; None: not known yet.
    START: ClassVar[Mapping[str, float | int | None]] = {}
    #: The optimizer that it is attached to; copies and pickles are attached to none, or to a copy.
    _optimizer: weakref.ref[Any] | None = None

    def __init__(self, *, every: int, name: str | None = None) -> None:
        if type(every) is not int or every < 1:
            raise ValueError(f"every is {every!r}; expected an int >= 1")
        if not isinstance(name, str | None) or name == "":
            raise ValueError(f"name is {name!r}; expected a word")
        self.every = every
        self.name = name or type(self).__name__
        self.enabled = True
        self.numbers: dict[str, Any] = dict(self.START)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "_optimizer"}

    def check(self, groups: Sequence[Group]) -> None:
        """Look at the groups when it is attached.

        Raises:
            ValueError: if there is nothing in them that it could move.
        """
        return

    def foreseen(self, groups: Sequence[Group]) -> Iterable[tuple[str, int, Group]]:
        """What it is known to set later, which is checked when it is attached.

        Returns:
            When that is (``"at step 3"``), a group's number, and a copy of the group as it will be.
        """
        return ()

    def report(self, loss: float) -> None:
        """Take a loss that ``Cosmic.report`` was told; finite."""
        return

    @abstractmethod
    def observe(self, seen: Observation) -> None:
        """Look at a step, and move options by ``seen``."""

    def others_moved(self, move: Move) -> None:
        """Learn that another controller has multiplied an option, whoever had set it."""
        return

    def taken_back(self, step: int) -> None:
        """Learn that what it moved at the end of a step has been refused: it and the numbers are as
        they were. Unless it does something about it here, it will look at that again."""
        return

    def reset(self) -> None:
        """Begin anew, from the options as they are."""
        self.numbers = dict(self.START)

    def state_dict(self) -> dict[str, Any]:
        """Its numbers by name: ints, floats and None.

        Raises:
            ValueError: for one that could not be loaded.
        """
        for key, value in self.numbers.items():
            self.check_saved(key, value)
        return dict(self.numbers)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take the numbers that ``state_dict`` gave.

        Raises:
            ValueError: naming the number that is missing or none. Nothing has changed.
        """
        if not isinstance(state, Mapping) or not set(self.START) <= set(state):
            found = sorted(map(str, state)) if isinstance(state, Mapping) else repr(state)
            raise ValueError(
                f"the state of controller {self.name!r} has {found}; expected "
                f"{sorted(self.START)}, as {type(self).__name__}.state_dict() gives it"
            )
        for key, value in state.items():
            self.check_saved(key, value)
        self.numbers = dict(state)

    def check_saved(self, key: str, value: Any) -> None:
        """Raise ValueError unless a saved number may be one of this name.

        None is allowed where it starts as None or is not in ``START``; other numbers are finite,
        counts (which start as an int) 0 or more, and factors (``factor_...``) above 0.
        """
        start = self.START.get(key)
        if isinstance(key, str) and value is None and start is None:
            return
        counts = type(start) is int
        kinds: tuple[type, ...] = (int,) if counts else (int, float)
        inside = isinstance(key, str) and type(value) in kinds and math.isfinite(value)
        least = 0.0 if counts else -math.inf
        if not inside or value < least or (key.startswith("factor_") and not value > 0):
            expected = "an int >= 0, as it starts as an int" if counts else "a finite int or float"
            raise ValueError(
                f"the state of controller {self.name!r} has {key} {value!r}; expected {expected}"
            )


def check_number(
    name: str, value: object, least: float, most: float = math.inf, *, open_ends: bool = False
) -> float:
    """A number between two others; with ``open_ends`` it may be neither.

    Raises:
        ValueError: naming the argument, what it is and what was expected.
    """
    number = float(value) if isinstance(value, int | float) and type(value) is not bool else None
    if number is None or not math.isfinite(number):
        inside = False
    else:
        inside = least < number < most if open_ends else least <= number <= most
    if number is None or not inside:
        where = "between" if open_ends else "from"
        to = "and" if open_ends else "to"
        span = f"{where} {least:g} {to} {most:g}"
        if math.isinf(most):
            span = f"{'above' if open_ends else 'of at least'} {least:g}"
        raise ValueError(f"{name} is {value!r}; expected a finite number {span}")
    return number


def check_bounds(bounds: object) -> tuple[float, float]:
    """Two finite factors with 1 between them, at which every controller starts.

    Raises:
        ValueError: for anything else.
    """
    if isinstance(bounds, tuple | list) and len(bounds) == 2:
        low, high = bounds
        numbers = all(isinstance(x, int | float) and type(x) is not bool for x in bounds)
        if numbers and 0 < low <= 1 <= high < math.inf:
            return float(low), float(high)
    raise ValueError(
        f"bounds are {bounds!r}; expected two factors, the lower one above 0 and at most 1, the "
        "higher one at least 1"
    )


def check_decay(decay: object) -> float:
    """The decay of an average, from 0 to less than 1.

    Raises:
        ValueError: for anything else.
    """
    number = check_number("decay", decay, 0.0, 1.0)
    if number == 1:
        raise ValueError("decay is 1; expected less: the average would never move")
    return number


def within(logarithm: float, bounds: tuple[float, float]) -> float:
    """The factor of a logarithm, between two bounds."""
    low, high = bounds
    if logarithm <= math.log(low):
        return low
    return high if logarithm >= math.log(high) else math.exp(logarithm)


def worth_moving(factor: float, wanted: float, ends: tuple[float, ...]) -> bool:
    """Whether a factor is to be changed: by one percent or more, or onto one of its ends."""
    if factor == wanted:
        return False
    return wanted in ends or abs(math.log(wanted / factor)) >= _LEAST_MOVE
