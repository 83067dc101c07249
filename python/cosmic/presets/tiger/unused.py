"""Arguments and options of Tiger's that change nothing, and those that may have one value only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import NamedTuple

from .options import is_number, one_of

__all__ = ["check_unused", "instead_of", "unused_in"]


class _Unused(NamedTuple):
    """An option that is accepted and changes nothing.

    Attributes:
        fits: whether a value is one that may be given.
        expected: which those are, for the error.
        why: what is in its place.
    """

    fits: Callable[[object], bool]
    expected: str
    why: str


def _flag(value: object) -> bool:
    return isinstance(value, bool)


def _whole(value: object) -> bool:
    return type(value) is int and value >= 0


def _zero(value: object) -> bool:
    return is_number(value) and value == 0


_IN_REGISTERS = "an update stays in registers and is added where it is made"
_OPTIONS: Mapping[str, _Unused] = {
    "use_foreach": _Unused(_flag, "True or False", _IN_REGISTERS),
    "use_foreach_update": _Unused(_flag, "True or False", _IN_REGISTERS),
    "foreach_min_bucket": _Unused(_whole, "an int >= 0", _IN_REGISTERS),
    "update_buffer_dtype": _Unused(
        one_of("param", "fp32", "bf16", "fp16"), "'param', 'fp32', 'bf16' or 'fp16'", _IN_REGISTERS
    ),
    "bucket_standardize": _Unused(
        one_of(False), "False",
        "updates over their common root mean square, learning rate included, move as far at any "
        "rate; rms_clip_granularity='group' bounds them before the rate",
    ),
    "bucket_standardize_source": _Unused(
        one_of("global", "median", "mean"), "'global', 'median' or 'mean'", "nothing is divided so"
    ),
    "bucket_scalarless": _Unused(one_of(True), "True", "it never did anything"),
    "use_triton_bucket_stats": _Unused(one_of(False), "False", "there is no GPU here"),
    "use_triton_fused_apply": _Unused(one_of(False), "False", "there is no GPU here"),
    "state_prune_threshold": _Unused(
        _zero, "0",
        "zeros among moments free no memory; state_dtype='u4+factored' does",
    ),
    "state_prune_interval": _Unused(_whole, "an int >= 0", "nothing is pruned"),
    "compile_guard": _Unused(_flag, "True or False", "torch.compile leaves the step as it is"),
    "profiler_ema_decay": _Unused(is_number, "a finite number", "an event log has every step"),
}  # fmt: skip

#: Arguments that tune loops of Tiger's, as patterns, by what is in the loops' place. The second
#: row of each is of releases after 2.2.
_LOOPS: Mapping[str, tuple[str, ...]] = {
    "LoRABalance": (
        "lora_interval", "lora_k[pid]*", "lora_density_*", "lora_recover_*", "lora_aw_*",
        "lora_errflip_*",
        "lora_cross_*", "lora_bridge*",
    ),
    "QKVRates": (
        "qkv_lr_interval", "qkv_lr_gain", "qkv_lr_ema_beta", "qkv_lr_bounds", "qkv_lr_step_clip*",
        "qkv_lr_clip_*", "qkv_disp_ema_beta", "qkv_gain_shrink_*",
        "qkv_gamma_*", "qkv_spectral_*", "qkv_phase_*",
    ),
}  # fmt: skip


def unused_in(options: Mapping[str, object]) -> list[str]:
    """Names of those that change nothing, whatever they are."""
    return [name for name in options if name in _OPTIONS]


def instead_of(name: str) -> str | None:
    """What is in the place of the loop that an argument tunes; None where it tunes none."""
    for controller, patterns in _LOOPS.items():
        if any(fnmatchcase(name, pattern) for pattern in patterns):
            return f"optimizer.add_controller(cosmic.controllers.{controller}(...))"
    return None


def check_unused(options: Mapping[str, object], where: str) -> None:
    """Check those of ``options`` that change nothing.

    Raises:
        ValueError: for a value that would have to change something, saying what is in its place.
    """
    for name in unused_in(options):
        known, value = _OPTIONS[name], options[name]
        if not known.fits(value):
            raise ValueError(f"{where}{name} is {value!r}; expected {known.expected}: {known.why}")
