"""Gate ``agar``: how far a coordinate's gradients agree decides how far it moves.

Of the shares of signal (rule ``belief``) a step leaves their mean for the next one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .options import Options

Array = NDArray[Any]

FIRST_MEAN = 0.5  # of a first gradient, whose average and whose square are both its own


@dataclass(frozen=True)
class Trust:
    """What ``state["gate_agar"]`` holds: the mean share of the last step, 0 before there is one."""

    last_mean: float = 0.0

    @property
    def mean(self) -> float:
        return self.last_mean if self.last_mean > 0 else FIRST_MEAN

    def factor(self, options: Options) -> float:
        """On the update of the whole tensor."""
        trust = options.c_min + (1.0 - options.c_min) * self.mean
        return float(trust**options.robustness)

    def focus(self, shares: Array, options: Options) -> Array:
        """On each coordinate's update; of a share that is NaN the least."""
        real = shares.dtype.type
        floor, one = real(options.rel_floor), real(1.0)
        relative = shares * real(1.0 / self.mean)
        raised = np.where(relative > floor, relative, floor)
        return np.asarray(np.where(raised < one, raised, one))

    def observe(self, mean_share: float) -> Trust:
        return Trust(mean_share) if math.isfinite(mean_share) else self
