"""What to do where the loss no longer falls."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from ..state.groups import Group
from ..state.roles import ROLES
from .base import Controller, check_number, worth_moving
from .observation import Move, Observation

__all__ = ["PlateauGuard"]

#: What may be moved, and by what factor at full strength, where the user does not say.
_MOVED = ("sign", "weight_decay", "lr")
_DEFAULT = {"sign": 0.5, "weight_decay": 0.5}
_LEAST_STRENGTH = 0.01  # less is none
#: The option that each of them is.
_OPTIONS = {"sign": "blend", "weight_decay": "weight_decay", "lr": "lr_scale"}
_NOTHING = {
    "sign": "no group has rule 'softsign' and a blend that blend_steps leaves alone",
    "weight_decay": "weight_decay is 0 in all of them",
}
#: What one number of an option is called where the group has one for all, or one of each role.
_ENTRIES = ("", *ROLES)
_KEPT = re.compile(
    rf"(base|left|mark)_({'|'.join(_MOVED)})_([0-9]+)(?:_({'|'.join(ROLES)}))?"
)  # fmt: skip


class _Held(NamedTuple):
    """One number of a group's option while a plateau holds it.

    Attributes:
        base: what it is without a plateau, and the most that it becomes again.
        left: what the guard left it at; another value has been set by hand.
        mark: the factor ``factor^s`` that ``base`` goes with: 1, or that of the time at which
            ``base`` was set by hand, which rises with recovery.
    """

    base: float
    left: float
    mark: float


class PlateauGuard(Controller):
    """Takes sign, weight decay or learning rate back on a plateau, and gives them back after it.

    It lives on what ``optimizer.report(loss)`` is told, one number a report; losses that are not
    finite are ignored. A loss of less than the best one minus ``tol`` is descent: it is the new
    best one. Each other report is one without progress; ``patience`` of these in a row are a
    plateau, and a new row begins. The strength ``s``, at first 0, moves by

        plateau:  s <- s + rise (1 - s)        descent:  s <- (1 - recover) s, 0 below 0.01

    and what ``on`` names is multiplied by ``f = factor^s``, between what it was and ``factor`` of
    it:

    * ``"sign"``: the share of the sign, ``1 - blend``, in groups of rule ``softsign`` (not where
      ``blend_steps`` moves it already);
    * ``"weight_decay"``: a group's weight decay;
    * ``"lr"``: a group's ``lr_scale``, as ``lr`` is the schedulers'.

    Options move at the end of the next step, not when the loss is told. A group that is added
    within a plateau joins it: its options are multiplied by ``f``, and end as they came. A value
    that is set by hand (or by ``Staged``) within one, where ``f`` is ``f'``, is taken as it is and
    never exceeded: with ``f' <- max(f, f')`` from then on, it is multiplied by ``f / f'``. What
    other controllers multiply stays multiplied.

    Args:
        patience: reports without progress that make a plateau.
        tol: by how much a loss must fall below the best one to count as descent.
        on: factors at full strength, above 0 and at most 1, by what they are of. None:
            ``{"sign": 0.5, "weight_decay": 0.5}``.
        rise: share of the way to full strength that a plateau adds, above 0 and at most 1.
        recover: share of the strength that each descent takes away, above 0 and at most 1.
        every: steps from one move to the next.
        name: by which its numbers are saved.

    Raises:
        ValueError: for an argument out of range; when attached, if no group has anything of ``on``.
    """

    SEES_TENSORS = False
    START: ClassVar[dict[str, float | int | None]] = {
        "best": None, "streak": 0, "strength": 0.0,
        **{f"factor_{what}": 1.0 for what in _MOVED},
    }  # fmt: skip

    def __init__(
        self,
        patience: int = 200,
        tol: float = 1e-4,
        *,
        on: Mapping[str, float] | None = None,
        rise: float = 0.5,
        recover: float = 0.1,
        every: int = 1,
        name: str | None = None,
    ) -> None:
        super().__init__(every=every, name=name)
        if type(patience) is not int or patience < 1:
            raise ValueError(f"patience is {patience!r}; expected an int >= 1")
        self.patience = patience
        self.tol = check_number("tol", tol, 0.0)
        self.on = _checked(_DEFAULT if on is None else on)
        self.rise = _share("rise", rise)
        self.recover = _share("recover", recover)

    def check(self, groups: Sequence[Group]) -> None:
        if not any(_has(group, what) for group in groups for what in self.on):
            why = "; ".join(text for what, text in _NOTHING.items() if what in self.on)
            raise ValueError(
                f"PlateauGuard moves {', '.join(self.on)}, and no parameter group has any of it: "
                f"{why}"
            )

    def report(self, loss: float) -> None:
        best, kept = self.numbers["best"], self.numbers
        if best is None:
            kept["best"] = loss
        elif loss < best - self.tol:
            kept.update(best=loss, streak=0, strength=_fallen(kept["strength"], self.recover))
        else:
            kept["streak"] += 1
            if kept["streak"] >= self.patience:
                kept.update(streak=0, strength=_risen(kept["strength"], self.rise))

    def observe(self, seen: Observation) -> None:
        for what, least in self.on.items():
            before = self.numbers[f"factor_{what}"]
            factor = least ** self.numbers["strength"]
            if not worth_moving(before, factor, (1.0,)):
                factor = before
            if factor == before == 1.0:
                continue
            for index, group in enumerate(seen.groups):
                if what != "sign" or _has(group, what):  # what is 0 now may be set by hand
                    self._multiply(seen, index, what, before, factor)
            self.numbers[f"factor_{what}"] = factor
            self._forget(what, len(seen.groups) if factor != 1.0 else 0)

    def others_moved(self, move: Move) -> None:
        what = next((what for what in self.on if _OPTIONS[what] == move.option), "")
        held = self._held(what, move.group)
        if not held or _by_entry(move.before) != {e: one.left for e, one in held.items()}:
            return  # it had been set by hand, which ``observe`` finds
        made = {}
        for entry, value in _by_entry(move.after).items():
            one = held.get(entry, held.get(""))
            base = None if one is None else _base_after(what, one, value)
            if one is None or base is None:
                return  # taken as set by hand
            made[entry] = _Held(base, value, one.mark)
        self._hold(what, move.group, made)

    def _multiply(
        self, seen: Observation, index: int, what: str, before: float, factor: float
    ) -> None:
        """Move an option from where the factor was ``before`` to ``factor``."""
        held = self._held(what, index)
        now = _values(seen, index, what)
        made = {}
        for entry, value in now.items():
            known = held.get(entry)
            if known is not None and value == known.left:
                base, mark = known.base, known.mark
            else:  # a group that is new, or one whose option was set by hand
                base, mark = value, before if held else 1.0
            mark = max(mark, factor)
            made[entry] = _Held(base, _multiplied(what, base, factor / mark), mark)
        self._hold(what, index, made)
        values = {entry: one.left for entry, one in made.items()}
        if values == now:
            return
        if what == "lr":
            seen.set_lr_scales(index, values)
        else:
            seen.move(index, _OPTIONS[what], values[""], multiplies=True)

    # ---- what it holds, as numbers that are saved ------------------------------------------

    def _held(self, what: str, index: int) -> dict[str, _Held]:
        """What is held of a group's option, by entry."""
        found = {}
        for entry in _ENTRIES:
            keys = _keys(what, index, entry)
            if keys[0] in self.numbers:
                found[entry] = _Held(*(self.numbers[key] for key in keys))
        return found

    def _hold(self, what: str, index: int, held: Mapping[str, _Held]) -> None:
        for entry in _ENTRIES:
            keys = _keys(what, index, entry)
            if entry in held:
                self.numbers.update(zip(keys, held[entry], strict=True))
            else:
                for key in keys:
                    self.numbers.pop(key, None)

    def _forget(self, what: str, groups: int) -> None:
        """Hold nothing of groups from a number on."""
        for key in list(self.numbers):
            found = _KEPT.fullmatch(key)
            if found and found[2] == what and int(found[3]) >= groups:
                del self.numbers[key]

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for key in set(state) - set(self.START) if isinstance(state, Mapping) else ():
            found = _KEPT.fullmatch(str(key))
            place = str(key).partition("_")[2]
            if not found or any(f"{part}_{place}" not in state for part in _Held._fields):
                raise ValueError(
                    f"the state of controller {self.name!r} has {key!r}, which PlateauGuard does "
                    "not keep, or not by itself"
                )
        super().load_state_dict(state)

    def check_saved(self, key: str, value: Any) -> None:
        super().check_saved(key, value)
        if key == "strength":
            check_number(f"the state of controller {self.name!r}: strength", value, 0.0, 1.0)
        elif key not in self.START and (value is None or (key[:4] == "mark" and not value > 0)):
            raise ValueError(f"the state of controller {self.name!r} has {key} {value!r}")


def _keys(what: str, index: int, entry: str) -> list[str]:
    place = f"{what}_{index}" + (f"_{entry}" if entry else "")
    return [f"{part}_{place}" for part in _Held._fields]


def _risen(strength: float, rise: float) -> float:
    return strength + rise * (1 - strength)


def _fallen(strength: float, recover: float) -> float:
    left = (1 - recover) * strength
    return left if left >= _LEAST_STRENGTH else 0.0


def _has(group: Group, what: str) -> bool:
    """Whether there is something of a kind to move in a group."""
    if what == "sign":
        moved = not group.get("blend_steps")
        return group.get("rule") == "softsign" and "blend" in group and moved
    return what == "lr" or group["weight_decay"] != 0


def _values(seen: Observation, group: int, what: str) -> dict[str, float]:
    """The numbers of an option, by entry."""
    if what == "lr":
        return seen.lr_scales(group)
    return {"": seen.groups[group][_OPTIONS[what]]}


def _by_entry(value: Any) -> dict[str, float]:
    """The numbers of an option's value, as ``Observation.lr_scales`` has them."""
    if isinstance(value, Mapping):
        return {role: value[role] for role in ROLES if role in value}
    return {"": value} if isinstance(value, int | float) else {}


def _base_after(what: str, held: _Held, value: float) -> float | None:
    """``base``, multiplied as ``left`` was to become ``value``; None where that is no blend."""
    if held.base == held.left:
        return value
    if what != "sign":
        return held.base * (value / held.left) if held.left else value
    share = (1 - held.base) * ((1 - value) / (1 - held.left)) if held.left < 1 else -1.0
    return 1 - share if 0 <= share <= 1 else None


def _multiplied(what: str, base: float, factor: float) -> float:
    """An option of which a share is left; exactly ``base`` where all of it is."""
    if factor == 1.0:
        return base
    return 1 - (1 - base) * factor if what == "sign" else base * factor


def _checked(on: object) -> dict[str, float]:
    if not isinstance(on, Mapping) or not on or not set(on) <= set(_MOVED):
        raise ValueError(
            f"on is {on!r}; expected factors by what they are of: {', '.join(map(repr, _MOVED))}"
        )
    return {what: _share(f"on[{what!r}]", factor) for what, factor in on.items()}


def _share(name: str, value: object) -> float:
    share = check_number(name, value, 0.0, 1.0)
    if share == 0:
        raise ValueError(f"{name} is {value!r}; expected more than 0")
    return share
