"""Tiger's arguments of what happens around steps: feedback, staged changes, the profile."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from ...controllers import Controller, FFNBalance, PlateauGuard
from .groups import KEYS
from .options import MADE_OF, is_number
from .unused import check_unused, instead_of, unused_in

__all__ = ["Loops", "loops_of", "nonfinite_of"]

_LEAST_SHARE = 1e-6  # of a sign or a rate that plateaus leave


@dataclass(frozen=True)
class Loops:
    """Arguments of the whole optimizer, under Tiger's names.

    Attributes:
        auto_blend: on a plateau of the reported loss move the blend toward the magnitude.
        auto_blend_gain: by how much a plateau moves it at first.
        auto_blend_bounds: how far it goes is the second one; the first has no effect, as a plateau
            only raises it and descent brings it back.
        auto_lr: on a plateau take the learning rate back, too, by ``lr_scale``.
        lr_decay: to which share of it the first plateau does.
        lr_min: least learning rate that plateaus make together.
        plateau_patience: reports without descent that make a plateau.
        plateau_tol: by how much a loss must be the least one to be descent.
        auto_ffn_asym: keep the steps of groups tagged ``ffn_up`` and ``ffn_down`` at a ratio.
        ffn_asym_target: that ratio.
        ffn_asym_gain: has no effect: the filter has one rate, ``ffn_asym_beta``.
        ffn_asym_beta: decay of the average of the ratio.
        ffn_asym_interval: steps between two looks.
        ffn_lr_min: least factor on those groups' rates.
        ffn_lr_max: largest one.
        reflect_interval: steps after which staged changes are made.
        profiler_enabled: write an event log, as ``cosmic.EventLog`` does.
        profiler_path: where to; its folder is made.
        profiler_interval: steps from line to line.
    """

    auto_blend: bool = True
    auto_blend_gain: float = 0.05
    auto_blend_bounds: tuple[float, float] = (0.1, 0.8)
    auto_lr: bool = False
    lr_decay: float = 0.5
    lr_min: float = 1e-6
    plateau_patience: int = 200
    plateau_tol: float = 1e-4
    auto_ffn_asym: bool = False
    ffn_asym_target: float = 1.0
    ffn_asym_gain: float = 0.05
    ffn_asym_beta: float = 0.9
    ffn_asym_interval: int = 10
    ffn_lr_min: float = 0.5
    ffn_lr_max: float = 1.5
    reflect_interval: int = 50
    profiler_enabled: bool = False
    profiler_path: str = "bench/profiles/tiger.jsonl"
    profiler_interval: int = 10

    def __post_init__(self) -> None:
        for name in ("auto_blend", "auto_lr", "auto_ffn_asym", "profiler_enabled"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} is {getattr(self, name)!r}; expected True or False")
        for name in (
            "plateau_patience", "ffn_asym_interval", "reflect_interval", "profiler_interval",
        ):  # fmt: skip
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise ValueError(f"{name} is {value!r}; expected an int >= 1")
        for name in ("auto_blend_gain", "lr_decay", "ffn_asym_gain"):
            value = getattr(self, name)
            if not is_number(value) or not 0 < value <= 1:
                raise ValueError(f"{name} is {value!r}; expected a number above 0, at most 1")
        for name in ("plateau_tol", "lr_min"):
            value = getattr(self, name)
            if not is_number(value) or value < 0:
                raise ValueError(f"{name} is {value!r}; expected a finite number >= 0")
        bounds = self.auto_blend_bounds
        pair = isinstance(bounds, tuple | list) and len(bounds) == 2 and all(map(is_number, bounds))
        if not pair or not 0 <= bounds[0] <= bounds[1] <= 1:
            raise ValueError(f"auto_blend_bounds is {bounds!r}; expected two numbers within [0, 1]")

    def guards(self, groups: Sequence[Mapping[str, Any]]) -> Iterator[Controller]:
        """What acts on a plateau; nothing where there is nothing to move, or nobody asks."""
        moved = [g["blend"] for g in groups if g["rule"] == "softsign" and not g["blend_steps"]]
        low = min(moved, default=1.0)
        most = self.auto_blend_bounds[1]
        if self.auto_blend and low < most:
            on = {"sign": max((1 - most) / (1 - low), _LEAST_SHARE)}
            rise = min(self.auto_blend_gain / (most - low), 1.0)
            yield PlateauGuard(self.plateau_patience, self.plateau_tol, on=on, rise=rise)
        least = max((self.lr_min / lr for lr in _rates_of(groups) if lr > 0), default=1.0)
        if self.auto_lr and self.lr_decay < 1 and least < 1:
            least = max(least, _LEAST_SHARE)
            yield PlateauGuard(
                self.plateau_patience, self.plateau_tol, on={"lr": least}, name="PlateauGuard.lr",
                rise=min(math.log(self.lr_decay) / math.log(least), 1.0),
            )  # fmt: skip

    def balance(self) -> Controller:
        """What keeps the steps of feed-forward layers at a ratio."""
        return FFNBalance(
            self.ffn_asym_target, every=self.ffn_asym_interval, decay=self.ffn_asym_beta,
            bounds=(self.ffn_lr_min, self.ffn_lr_max),
        )  # fmt: skip


_NAMES = tuple(field.name for field in fields(Loops))


def _rates_of(groups: Sequence[Mapping[str, Any]]) -> list[float]:
    return [float(group["lr"]) for group in groups]


def loops_of(others: Mapping[str, Any]) -> Loops:
    """Those of Tiger's arguments that are of the whole optimizer; others are checked.

    Raises:
        TypeError: for what is no argument of Tiger's.
        ValueError: for a value out of range.
    """
    check_unused(others, "")
    rest = [name for name in others if name not in (*_NAMES, *unused_in(others))]
    instead = {name: instead_of(name) for name in rest}
    if unknown := [name for name in rest if instead[name] is None]:
        raise TypeError(
            f"Tiger() got an unexpected keyword argument {unknown[0]!r}{_hint(unknown[0])}"
        )
    if rest:
        *first, last = rest
        controllers = " and ".join(sorted({str(x) for x in instead.values()}))
        said = (
            f"{', '.join(first)} and {last} tune loops that are not here and have no effect"
            if first
            else f"{last} tunes a loop that is not here and has no effect"
        )
        warnings.warn(f"Tiger: {said}; use {controllers}", UserWarning, stacklevel=3)
    return Loops(**{name: value for name, value in others.items() if name in _NAMES})


def _hint(name: str) -> str:
    """What to do with an argument that is none."""
    if name in KEYS:
        return f"; it is a key of a group: Tiger([{{'params': ..., {name!r}: ...}}])"
    if name in MADE_OF:
        return f"; Tiger makes it of {MADE_OF[name]}: set it there"
    if name.startswith(("lora_", "qkv_")):
        return "; if a release of Tiger has it, it tunes a loop that is not here: leave it out"
    return ""


def nonfinite_of(skips: object) -> str:
    """Cosmic's word for ``skip_if_nonfinite``.

    Raises:
        ValueError: for what is neither True nor False.
    """
    if not isinstance(skips, bool):
        raise ValueError(f"skip_if_nonfinite is {skips!r}; expected True or False")
    return "skip" if skips else "propagate"
