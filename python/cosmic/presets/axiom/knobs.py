"""Arguments of AXIOM's that do something else here, and names that are none."""

from __future__ import annotations

import difflib
import inspect
import math
import warnings
from collections.abc import Collection, Mapping
from typing import Any

from ...optimizer import Cosmic

__all__ = ["check_max_grad_norm", "check_own", "explain_unknown", "is_number", "nonfinite_of"]

STREAK_BOOST, SNR_FLOOR = 1.5, 0.5
#: Of other classes and releases of the package: what is in their place.
_INSTEAD: Mapping[str, str] = {
    "top_k_percent": "nothing is compressed between processes here",
    "n": "nothing is compressed between processes here",
    "max_slots": "activations are another matter: cosmic.activations",
    "max_n": "activations are another matter: cosmic.activations",
    "max_elements": "activations are another matter: cosmic.activations",
    "device": "tensors are stepped where they are, on the CPU",
}
#: What other optimizers call arguments of AXIOM's: ignored, a rate would silently be another one.
_OTHERS = {
    "learning_rate": "lr", "wd": "weight_decay", "decay": "weight_decay",
    "clip_grad": "max_grad_norm", "grad_clip": "max_grad_norm", "max_norm": "max_grad_norm",
    "clip_grad_norm": "max_grad_norm",
}  # fmt: skip
#: Arguments of torch's AdamW that no optimizer here has.
_TORCHS = ("amsgrad", "foreach", "capturable", "differentiable", "fused")


def is_number(value: object) -> bool:
    """Whether it is a finite real number, and no bool."""
    return isinstance(value, int | float) and type(value) is not bool and math.isfinite(value)


def check_own(detect_anomaly: object, streak_boost: Any, snr_floor: Any, gate: object) -> None:
    """Check arguments that only AXIOM has, and say which of them change nothing as they are given.

    Raises:
        ValueError: naming the argument, what it is and what was expected.
    """
    if type(detect_anomaly) is not bool:
        raise ValueError(f"detect_anomaly is {detect_anomaly!r}; expected True or False")
    if not (is_number(streak_boost) and streak_boost > 0):
        raise ValueError(f"streak_boost is {streak_boost!r}; expected a number > 0")
    if not (is_number(snr_floor) and 0 <= snr_floor <= 1):
        raise ValueError(f"snr_floor is {snr_floor!r}; expected a number from 0 to 1")
    if streak_boost != STREAK_BOOST:
        _warn(
            f"streak_boost={streak_boost!r} does nothing here: what it does in the package is not "
            "documented, and no reading of its name has been measured to help"
        )
    if snr_floor != SNR_FLOOR and gate is None:
        _warn(
            f"snr_floor={snr_floor!r} does nothing without a gate; gate='snr' scales a tensor's "
            "update by how steady its gradients are, and by this at least"
        )


def check_max_grad_norm(max_norm: Any) -> None:
    """Raise ValueError unless it is None or a number above 0."""
    if max_norm is not None and not (is_number(max_norm) and max_norm > 0):
        raise ValueError(
            f"max_grad_norm is {max_norm!r}; expected a number > 0, or None not to clip"
        )


def nonfinite_of(detect_anomaly: bool) -> str:
    """What a gradient that is not finite does where ``nonfinite`` does not say it."""
    return "raise" if detect_anomaly else "propagate"


def explain_unknown(knobs: Mapping[str, Any], own: Collection[str]) -> None:
    """Say once of all names that nobody knows that they do nothing.

    Args:
        own: the names of AXIOM's arguments.

    Raises:
        TypeError: for a name that is nearly one of these, and for an option of Cosmic's or an
            argument of AdamW's, which would do something.
    """
    of_cosmic = set(inspect.signature(Cosmic.__init__).parameters) - {"self", *own}
    for name in knobs:
        if hint := _refused(name, own, of_cosmic):
            raise TypeError(f"AXIOM() got an unexpected keyword argument {name!r}{hint}")
    if knobs:
        said = [f"{name!r} ({_INSTEAD.get(name, 'not known here')})" for name in knobs]
        _warn("what these arguments of AXIOM() ask for does nothing here: " + ", ".join(said))


def _refused(name: str, own: Collection[str], of_cosmic: Collection[str]) -> str | None:
    """What to do instead of giving such an argument; None where it may be ignored."""
    if name == "lr_scale":
        return ": give it to register_hooks(lr_scale=...), or in a parameter group"
    if name in of_cosmic:
        return ", an option of Cosmic's: give it in a parameter group, or take cosmic.Cosmic"
    if name in _TORCHS:
        return ", of torch's AdamW: leave it out"
    if name in _OTHERS:
        return f"; did you mean {_OTHERS[name]!r}?"
    near = difflib.get_close_matches(name, own, n=1, cutoff=0.7)
    return f"; did you mean {near[0]!r}?" if near and name not in _INSTEAD else None


def _warn(text: str) -> None:
    warnings.warn(text, UserWarning, stacklevel=4)
