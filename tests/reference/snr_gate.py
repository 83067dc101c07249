"""Gate ``snr``: how steady a tensor's mean |g| has been, as a factor on its next update."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

DECAY = 0.98  # a memory of about 50 steps
WARM_UP = 20  # steps
JUMP = 3.0  # standard deviations
OUTLIER = 10.0  # means


@dataclass(frozen=True)
class Gate:
    """Running statistics, in the order in which ``state["gate_snr"]`` holds them."""

    count: float = 0.0
    mean: float = 0.0
    variance: float = 0.0
    last_factor: float = 0.0

    @property
    def factor(self) -> float:
        """On the update of the next step."""
        return self.last_factor if self.count > 0 else 1.0

    def observe(self, x: float, c_min: float) -> Gate:
        """After a step whose gradient had mean absolute value ``x``."""
        if not math.isfinite(x):
            return replace(self, last_factor=c_min) if self.count >= WARM_UP else self
        ceiling = self.mean + JUMP * math.sqrt(self.variance)
        jump = ceiling / x if self.count > 0 and x > ceiling else 1.0
        count = self.count + 1
        rate = max(1.0 - DECAY, 1.0 / count)
        seen = min(x, OUTLIER * self.mean) if self.mean > 0 else x
        d = seen - self.mean
        mean = self.mean + rate * d
        variance = (1.0 - rate) * (self.variance + rate * d * d)
        total = mean * mean + variance
        steadiness = mean * mean / total if total > 0 else 1.0
        factor = min(max(steadiness * jump, c_min), 1.0) if count > WARM_UP else 1.0
        return Gate(count, mean, variance, factor)

    def as_list(self) -> list[float]:
        return [self.count, self.mean, self.variance, self.last_factor]
