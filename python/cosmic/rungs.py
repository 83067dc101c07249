"""Rungs: what state a tensor can hold, and its exact price in bytes."""

from __future__ import annotations

from dataclasses import dataclass

import torch

__all__ = ["CODEC_DTYPES", "Rung", "parse_state_dtype"]

#: Storage of the codecs that keep one number an element.
CODEC_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp64": torch.float64}

_STEP_BYTES = 8  # int64 counter
_MAGNITUDE_BYTES = 16  # two float64 averages
_ALIASES = {torch.float32: "fp32", torch.bfloat16: "bf16", "float32": "fp32", "bfloat16": "bf16"}


def parse_state_dtype(state_dtype: str | torch.dtype) -> tuple[str, str]:
    """The codecs (first moment, second moment) that a ``state_dtype`` option names.

    Args:
        state_dtype: ``"fp32"``, ``"bf16"``, the torch dtypes of these names, or two names joined
            by a plus, such as ``"bf16+fp32"``: first moment, second moment.

    Raises:
        ValueError: for any other value.
    """
    parts = state_dtype.split("+") if isinstance(state_dtype, str) else [state_dtype]
    known = [part for part in parts if isinstance(part, str | torch.dtype)]
    codecs = [_ALIASES.get(part, part) for part in known]
    if len(codecs) not in (1, 2) or not all(codec in ("fp32", "bf16") for codec in codecs):
        raise ValueError(
            f"state_dtype is {state_dtype!r}; expected 'fp32', 'bf16', torch.float32, "
            "torch.bfloat16, or two of these names joined by '+' (first moment + second moment)"
        )
    return str(codecs[0]), str(codecs[-1])


@dataclass(frozen=True)
class Rung:
    """A tier together with its codecs: one choice for a tensor.

    Attributes:
        tier: 0 (sign), 1 (sign times a scalar) or 2 (full history).
        m: codec of the first moment; ``"none"`` below tier 2.
        m_slow: codec of the slow average, ``"none"`` without one.
        v: codec of the second moment.
    """

    tier: int
    m: str = "none"
    m_slow: str = "none"
    v: str = "none"

    @property
    def name(self) -> str:
        """Such as ``tier0``, ``tier1``, ``tier2:fp32+fp32``, ``tier2:bf16+bf16+slow``."""
        if self.tier < 2:
            return f"tier{self.tier}"
        return f"tier2:{self.m}+{self.v}" + ("+slow" if self.m_slow != "none" else "")

    @classmethod
    def parse(cls, name: str) -> Rung:
        """The rung with this name.

        Raises:
            ValueError: if there is no such rung.
        """
        if not isinstance(name, str):
            raise ValueError(f"a rung's name is {name!r}; expected text such as 'tier1'")
        if name in ("tier0", "tier1"):
            return cls(int(name[-1]))
        head, _, codecs = name.partition(":")
        parts = codecs.split("+")
        slow = parts[2:] == ["slow"]
        known = all(part in CODEC_DTYPES for part in parts[:2])
        if head != "tier2" or len(parts) != 2 + slow or not known:
            raise ValueError(
                f"unknown rung {name!r}; expected 'tier0', 'tier1' or "
                "'tier2:<m codec>+<v codec>' with '+slow' for a slow average"
            )
        return cls(2, parts[0], parts[0] if slow else "none", parts[1])

    @property
    def rule(self) -> str:
        """The compiled rule that steps this rung."""
        return ("sign", "scalar_sign", "adam")[self.tier]

    @property
    def slots(self) -> dict[str, str]:
        """Codec of every slot that this rung keeps, by its key in ``optimizer.state``."""
        slots = {"exp_avg": self.m, "exp_avg_slow": self.m_slow, "exp_avg_sq": self.v}
        return {key: codec for key, codec in slots.items() if codec != "none"}

    @property
    def entries(self) -> tuple[str, ...]:
        """Keys of every tensor that this rung keeps in ``optimizer.state``."""
        scalars = ((), ("step", "magnitude"), ("step",))[self.tier]
        return (*scalars, *self.slots)

    def nbytes(self, numel: int) -> int:
        """Exact bytes of this rung's state for a tensor of ``numel`` real elements."""
        if self.tier == 0:
            return 0
        if self.tier == 1:
            return _STEP_BYTES + _MAGNITUDE_BYTES
        per_element = sum(CODEC_DTYPES[codec].itemsize for codec in self.slots.values())
        return _STEP_BYTES + per_element * numel
