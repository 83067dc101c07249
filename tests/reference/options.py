"""Hyper-parameters of a parameter group, under the optimizer's own names."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    maximize: bool = False
    tier: int = 2
    state_dtype: str = "fp32"
    gate: str | None = None
    c_min: float = 0.1
    beta_slow: float | None = None
    alpha: float = 5.0
    slow_warmup: int | None = None
    min_compress_size: int = 4096
    stochastic_rounding: bool = True

    @property
    def direction(self) -> float:
        """What the gradient is multiplied with."""
        return -1.0 if self.maximize else 1.0

    @property
    def decay(self) -> float:
        """What a step leaves of a parameter before the update."""
        return 1.0 - self.lr * self.weight_decay


def integer_power(base: float, exponent: int) -> float:
    """``base ** exponent`` by repeated squaring, so that every C library gives the same bits."""
    out = 1.0
    while exponent > 0:
        if exponent & 1:
            out *= base
        exponent >>= 1
        base *= base
    return out
