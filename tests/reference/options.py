"""Hyper-parameters of a parameter group, under the optimizer's own names."""

from __future__ import annotations

from dataclasses import dataclass

NORM_GATES = ("trust", "agc", "update_clipping")
GATES = ("snr", "agar", *NORM_GATES)


@dataclass(frozen=True)
class Options:
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    maximize: bool = False
    tier: int | None = 2
    rung: str | None = None  # in the place of tier and state_dtype; tier is None then
    state_dtype: str = "fp32"
    gate: str | None = None
    c_min: float = 0.1
    robustness: float = 1.0
    rel_floor: float = 0.1
    trust_coefficient: float = 1.0
    trust_min: float = 0.0
    trust_clip: float = 10.0
    agc_clip: float = 10.0
    clip_update: float | None = None
    param_floor: float = 1e-3
    norm_decay: float = 0.0
    exact: bool = False
    beta_slow: float | None = None
    alpha: float = 5.0
    slow_warmup: int | None = None
    blend: float = 0.2
    kappa: float = 0.3
    blend_to: float | None = None
    blend_steps: int = 0
    blend_schedule: str = "linear"
    min_compress_size: int | tuple[int, int] = 4096
    stochastic_rounding: bool = True
    master_bits: int | None = None
    m_step_factor: float = 1.1
    null_pct: float = 0.1
    amp_pct: float = 0.9

    @property
    def rule(self) -> str:
        """``sign``, ``scalar_sign``, ``rmsprop``, ``adam``, ``softsign`` or ``belief``."""
        head, _, codecs = (self.rung or f"tier{self.tier}").partition(":")
        if head == "tier1":
            return "rmsprop" if codecs else "scalar_sign"
        if head == "tier0":
            return "sign"
        if codecs.endswith("+softsign"):
            return "softsign"
        return "belief" if "agar" in self.gates else "adam"

    @property
    def gates(self) -> tuple[str, ...]:
        """In the order in which their factors are multiplied."""
        asked = set(self.gate.split("+")) if self.gate else set()
        if self.clip_update is not None:
            asked.add("update_clipping")
        return tuple(gate for gate in GATES if gate in asked)

    @property
    def norm_gates(self) -> tuple[str, ...]:
        return tuple(gate for gate in self.gates if gate in NORM_GATES)

    @property
    def codecs(self) -> tuple[str, str]:
        """Of the first and the second moment, as asked for."""
        if self.rule == "rmsprop":
            assert self.rung is not None
            return "none", self.rung.removeprefix("tier1:")
        names = self.rung.removeprefix("tier2:") if self.rung else self.state_dtype
        m, _, v = names.partition("+")
        return m, v.partition("+")[0] or m

    @property
    def least_sizes(self) -> tuple[int, int]:
        """Elements from which on the first and the second moment are compressed."""
        size = self.min_compress_size
        return size if isinstance(size, tuple) else (size, size)

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
