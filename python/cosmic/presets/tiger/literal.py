"""The formulas of tiger-optim 2.2 as they are: ``Tiger(compat="2.2")``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ... import _core

__all__ = ["COMPAT", "GATE", "averages_of", "check_literal", "literal_options", "set_average"]

GATE = "tiger_literal"
COMPAT = "2.2"
_SPACES = ("update", "precond")
_ALPHAS = (0.0, 0.5, 1.0)
_DTYPES = ("fp32", "bf16")
_OF_MEMORY = (
    "use_trust_ratio", "trust_clip", "trust_ema_beta", "agc_clip", "agc_eps", "rms_clip_threshold",
)  # fmt: skip


def literal_options(group: Mapping[str, Any]) -> dict[str, Any]:
    """Cosmic's options for a group's, beside its codecs."""
    return {
        "rule": None, "gate": GATE, "exact": True, "min_compress_size": 0,
        "blend": group["sign_blend"], "kappa": group["sign_tau"],
    }  # fmt: skip


def check_literal(group: Mapping[str, Any], where: str) -> None:
    """Check what differs from the options of the repaired formulas.

    Raises:
        ValueError: naming the option, what it is and what was expected.
    """
    for name, allowed in (
        ("trust_space", _SPACES), ("precond_alpha", _ALPHAS), ("mom_dtype", _DTYPES),
    ):  # fmt: skip
        if group[name] not in allowed:
            *others, last = map(repr, allowed)
            raise ValueError(
                f"{where}[{name!r}] is {group[name]!r}; expected {', '.join(others)} or {last} "
                f"under compat={COMPAT!r}"
            )
    for name, only in (("rms_clip_granularity", "param"), ("parts", None)):
        if group.get(name, only) != only:
            raise ValueError(
                f"{where}[{name!r}] is {group[name]!r}; expected {only!r} under compat={COMPAT!r}, "
                "whose factors are of whole tensors"
            )


def set_average(average: _core.GateMemory, group: Mapping[str, Any]) -> None:
    """Tell a group's average of trust ratios, and what else scales its steps, the options."""
    average.set_options(*_memory_options(group))


def averages_of(groups: Sequence[Mapping[str, Any]], saved: Any = ()) -> list[_core.GateMemory]:
    """Averages of the trust ratios of these groups.

    Args:
        saved: of each group what its average's ``state()`` was; of none: they begin anew.

    Raises:
        ValueError: for what does not fit.
    """
    if not isinstance(saved, list | tuple) or len(saved) not in (0, len(groups)):
        raise ValueError(
            f"the state_dict has trust averages {saved!r}; expected one for each of the "
            f"{len(groups)} groups"
        )
    out = [_core.GateMemory(GATE, *_memory_options(group)) for group in groups]
    for average, state in zip(out, saved, strict=False):
        average.load(state)
    return out


def _memory_options(group: Mapping[str, Any]) -> tuple[bool, dict[str, Any]]:
    """Each tensor is a sample; and what the gate reads."""
    read = {name: group[name] for name in _OF_MEMORY}
    return True, {**read, "by_momentum": group["trust_space"] == "precond"}
