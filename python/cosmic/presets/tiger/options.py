"""Options of a group under Tiger's names, checked, and Cosmic's that are made of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from .literal import check_literal, literal_options

__all__ = [
    "MADE_OF", "OPTIONS", "check_options", "derived", "is_number", "one_of",
]  # fmt: skip

#: Options of a group, beside Cosmic's own, that Cosmic's are made of.
OPTIONS = (
    "factored", "mom_dtype", "precond_alpha", "sign_mode", "sign_tau", "sign_blend",
    "use_trust_ratio", "trust_clip", "trust_space", "trust_ema_beta", "agc_clip",
    "agc_eps", "rms_clip_threshold", "rms_clip_granularity",
)  # fmt: skip

#: Cosmic's options that are made of Tiger's, and of which.
MADE_OF: Mapping[str, str] = {
    "gate": "use_trust_ratio and agc_clip",
    "blend": "sign_blend", "kappa": "sign_tau and sign_mode",
    "trust_coefficient": "agc_clip", "norm_decay": "trust_ema_beta",
    "clip_update": "rms_clip_threshold", "norm_granularity": "rms_clip_granularity",
    "state_dtype": "mom_dtype and factored",
}  # fmt: skip
#: Of ``rms_clip_granularity``, by Cosmic's names.
_GRANULARITIES = {"param": "tensor", "row": "row", "group": "group"}
#: Codecs of the second moment beside a first one, where it is not factored.
_UNFACTORED = {"fp32": "fp32", "bf16": "bf16", "q8": "q8", "u4": "v4"}
#: Gates of norms are not asked for where the package's own formulas are.
_WITHOUT_NORMS = {
    "trust_coefficient": 1.0, "norm_decay": 0.0, "clip_update": None, "norm_granularity": "tensor",
}  # fmt: skip
#: Least width of a soft sign: a hard one.
_HARD = 1e-30


def is_number(value: object) -> bool:
    """Whether it is a finite number, and no bool."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value)


def one_of(*allowed: object) -> Callable[[object], bool]:
    """Whether a value is one of these, and of its type."""
    return lambda value: any(type(value) is type(one) and value == one for one in allowed)


def derived(group: Mapping[str, Any], compat: str | None = None) -> dict[str, Any]:
    """Cosmic's options for a group's, which have been checked.

    Args:
        compat: ``"2.2"``: the formulas as that release has them.
    """
    first = group["mom_dtype"]
    second = "factored" if group["factored"] else _UNFACTORED[first]
    codecs = {"state_dtype": f"{first}+{second}"}
    if compat is not None:
        return {**_WITHOUT_NORMS, **literal_options(group), **codecs}
    clip, trusts = group["agc_clip"], group["use_trust_ratio"]
    return {
        **codecs,
        "rule": "softsign",
        "blend": group["sign_blend"],
        "kappa": group["sign_tau"] if group["sign_mode"] == "softsign" else _HARD,
        "gate": "trust" if trusts else "agc" if clip > 0 else None,
        # The ratio of what clipping leaves: c min(trust_clip, x / c) with c = min(1, agc_clip x)
        # is min(trust_clip, x min(1, agc_clip trust_clip)), where x is that of all.
        "trust_coefficient": min(1.0, clip * group["trust_clip"]) if clip > 0 else 1.0,
        "norm_decay": group["trust_ema_beta"],
        "clip_update": group["rms_clip_threshold"] or None,
        "norm_granularity": _GRANULARITIES[_granularity(group)],
    }


def _granularity(group: Mapping[str, Any]) -> Any:
    """Of the clip of the update; nothing else has one, so that it is a tensor's without a clip."""
    return group["rms_clip_granularity"] if group["rms_clip_threshold"] else "param"


def check_options(group: Mapping[str, Any], where: str, compat: str | None = None) -> None:
    """Check what Cosmic's options are made of.

    Raises:
        ValueError: naming the option, what it is, what was expected, and what to do.
    """
    for name in OPTIONS:
        if name not in group:
            raise ValueError(
                f"{where} has no {name!r}; was it removed, or the group appended by hand? "
                "(add_param_group fills in what it lacks)"
            )
    _check_words(group, where)
    _check_numbers(group, where)
    if compat is None:
        _check_repaired(group, where)
    else:
        check_literal(group, where)


def _check_words(group: Mapping[str, Any], where: str) -> None:
    for name, allowed in (
        ("factored", (True, False)),
        ("use_trust_ratio", (True, False)),
        ("mom_dtype", (*_UNFACTORED,)),
        ("sign_mode", ("softsign", "sign")),
        ("rms_clip_granularity", (*_GRANULARITIES,)),
    ):
        if not one_of(*allowed)(group[name]):
            *others, last = map(repr, allowed)
            instead = ". 'bf16' is as small as 'fp16', and does not underflow"
            raise ValueError(
                f"{where}[{name!r}] is {group[name]!r}; expected {', '.join(others)} or {last}"
                + (instead if one_of("fp16")(group[name]) else "")
            )


def _check_numbers(group: Mapping[str, Any], where: str) -> None:
    for name, low, high, expected in (
        ("sign_tau", _HARD, 1e30, "a number from 1e-30 to 1e30, in units of Adam's update"),
        ("sign_blend", 0.0, 1.0, "a number in [0, 1]"),
        ("trust_ema_beta", 0.0, math.nextafter(1.0, 0.0), "a number in [0, 1)"),
        ("trust_clip", _HARD, 1e30, "a number above 0"),
        ("agc_clip", 0.0, 1e30, "a number >= 0; 0 does not clip"),
        ("agc_eps", 0.0, 1e30, "a number >= 0"),
        ("rms_clip_threshold", 0.0, 1e30, "a number >= 0; 0 does not clip"),
    ):
        if not (is_number(group[name]) and low <= group[name] <= high):
            raise ValueError(f"{where}[{name!r}] is {group[name]!r}; expected {expected}")


def _check_repaired(group: Mapping[str, Any], where: str) -> None:
    """What only the package's own formulas have, or what these cannot do together."""
    if not one_of("update")(group["trust_space"]):
        raise ValueError(
            f"{where}['trust_space'] is {group['trust_space']!r}; expected 'update'. A ratio to "
            "the preconditioned momentum ('precond') leaves a step that grows as gradients "
            "shrink (compat='2.2' has it), and no trust at all is use_trust_ratio=False"
        )
    if not (is_number(group["precond_alpha"]) and group["precond_alpha"] == 1):
        raise ValueError(
            f"{where}['precond_alpha'] is {group['precond_alpha']!r}; expected 1: the rule softens "
            "an update that has been divided by its second moment's root once (compat='2.2' has 0 "
            "and 0.5)"
        )
    granularity = _granularity(group)
    if granularity == "row" and group["trust_ema_beta"] > 0:
        raise ValueError(
            f"{where} has rms_clip_granularity 'row' and trust_ema_beta "
            f"{group['trust_ema_beta']!r}; expected 0: nothing is kept of rows that could be "
            "averaged"
        )
    for name, none in (("use_trust_ratio", False), ("agc_clip", 0.0)):
        if granularity != "param" and group[name]:
            raise ValueError(
                f"{where} has rms_clip_granularity {granularity!r} and {name} {group[name]!r}; "
                f"expected {name}={none!r}, or granularity 'param': a ratio to the parameter is of "
                "the tensors that are clipped together, and each is to move by its own size"
            )
