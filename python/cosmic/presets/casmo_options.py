"""Options of a parameter group that CASMO adds to Cosmic's, checked."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from typing import Any

from ..rungs import Rung, parse_state_dtype, probed_combinations

__all__ = ["GATE", "OPTIONS", "check_options", "check_state_options", "complete", "level_of"]

GATE = "calibrated_agar"
#: Options that CASMO adds.
OPTIONS = (
    "tau_init_steps", "tau_clip_range", "granularity", "agar_clamp_factor", "total_steps", "exact",
)  # fmt: skip

_LEAST_STEPS = 50  # samples that a calibration needs
_MOST_STEPS = 2**31 - 1


def level_of(level: object) -> int:
    """The number of a logging level.

    Raises:
        ValueError: for what is neither a level's name nor a number.
    """
    found = logging.getLevelName(level.upper()) if isinstance(level, str) else level
    if type(found) is not int or found < 0:
        raise ValueError(
            f"log_level is {level!r}; expected a level of Python's logging, by name ('INFO') or "
            "number (20)"
        )
    return found


def complete(options: dict[str, Any], where: str) -> None:
    """Put the number in the place of ``tau_init_steps=None``.

    Raises:
        ValueError: if a fifth of ``total_steps`` is too few.
    """
    _check_total_steps(options, where)
    if options["tau_init_steps"] is not None:
        return
    steps = max(500, int(50 / (1 - _beta1(options["betas"]))))
    total = options["total_steps"]
    if total is not None:
        steps = min(steps, total // 5)
        if steps < _LEAST_STEPS:
            raise ValueError(
                f"{where}['total_steps'] is {total}, of which a fifth, {steps}, calibrates; "
                f"expected at least {5 * _LEAST_STEPS}, or tau_init_steps"
            )
    options["tau_init_steps"] = steps


def _beta1(betas: Any) -> float:
    """0 for what is none, which is refused elsewhere."""
    try:
        beta1 = float(betas[0])
    except (TypeError, ValueError, LookupError, OverflowError, RuntimeError):
        return 0.0
    return beta1 if 0.0 <= beta1 < 1.0 else 0.0


def check_options(group: Mapping[str, Any], where: str) -> None:
    """Check what CASMO's gate reads at every step.

    Raises:
        ValueError: naming the option, what it is and what was expected.
    """
    for option in OPTIONS:
        if option not in group:
            raise ValueError(
                f"{where} has no {option!r}; was it removed, or the group appended by hand? "
                "(add_param_group fills in what it lacks)"
            )
    steps = group["tau_init_steps"]
    if type(steps) is not int or not _LEAST_STEPS <= steps <= _MOST_STEPS:
        raise ValueError(
            f"{where}['tau_init_steps'] is {steps!r}; expected an int >= {_LEAST_STEPS}, at most "
            f"{_MOST_STEPS}"
        )
    _check_total_steps(group, where)
    _check_range(group["tau_clip_range"], where)
    _check_c_min(group["c_min"], where)
    granularity = group["granularity"]
    if not isinstance(granularity, str) or granularity not in ("parameter", "group"):
        raise ValueError(
            f"{where}['granularity'] is {granularity!r}; expected 'parameter' or 'group'"
        )
    factor = group["agar_clamp_factor"]
    if factor is not None and not (_is_number(factor) and factor > 0):
        raise ValueError(
            f"{where}['agar_clamp_factor'] is {factor!r}; expected None or a finite number > 0"
        )
    if type(group["exact"]) is not bool:
        raise ValueError(f"{where}['exact'] is {group['exact']!r}; expected True or False")


def check_state_options(group: Mapping[str, Any], where: str) -> None:
    """Check that a group, whose options are each in range, has moments that CASMO can look at.

    Raises:
        ValueError: naming the option, what it is and what was expected.
    """
    for option, allowed in (("tier", (None, 2)), ("max_tier", (None, 2)), ("beta_slow", (None,))):
        if group[option] not in allowed:
            expected = " or ".join(map(str, allowed))
            raise ValueError(
                f"{where}[{option!r}] is {group[option]!r}; expected {expected}: CASMO needs full "
                "history of one average"
            )
    option = "state_dtype" if group["rung"] is None else "rung"
    if group["rung"] is not None:
        rung = Rung.parse(group["rung"])
        codecs = (rung.m, rung.v)
    else:
        codecs = parse_state_dtype(group["state_dtype"] or "u4+factored")
    supported = probed_combinations("agar")
    if codecs not in (*supported, ("fp64", "fp64")):
        names = ", ".join(f"{m}+{v}" for m, v in supported)
        raise ValueError(
            f"{where}[{option!r}] is {group[option]!r}, whose moments CASMO cannot look at; "
            f"expected codecs {names}"
        )


def _check_total_steps(group: Mapping[str, Any], where: str) -> None:
    total = group["total_steps"]
    if total is not None and (type(total) is not int or total < 1):
        raise ValueError(f"{where}['total_steps'] is {total!r}; expected None or an int >= 1")


def _is_number(value: object) -> bool:
    """Whether it is a finite number that a float can hold."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return abs(value) <= sys.float_info.max


def _check_c_min(c_min: Any, where: str) -> None:
    try:
        in_range = not isinstance(c_min, bool) and 0.0 <= float(c_min) <= 1.0
    except (TypeError, ValueError, RuntimeError, OverflowError):
        in_range = False
    if not in_range:
        raise ValueError(f"{where}['c_min'] is {c_min!r}; expected a number in [0, 1]")


def _check_range(bounds: Any, where: str) -> None:
    numbers = isinstance(bounds, tuple | list) and len(bounds) == 2 and all(map(_is_number, bounds))
    if not numbers or bounds[0] > bounds[1]:
        raise ValueError(
            f"{where}['tau_clip_range'] is {bounds!r}; expected two finite numbers, the lower first"
        )
