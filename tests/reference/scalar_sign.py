"""The scalar of tier 1: Adam's ratio m_hat / sqrt(v_hat), of the tensor's mean |g|.

The steps before this one set its length; the first has length 1.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .options import Options, integer_power

Array = NDArray[Any]


def magnitude(averages: list[float], options: Options, steps_before: int) -> float:
    """Length of the sign in a step with ``steps_before`` steps behind it."""
    if steps_before == 0:
        return 1.0
    beta1, beta2 = options.betas
    a = averages[0] / (1.0 - integer_power(beta1, steps_before))
    b = averages[1] / (1.0 - integer_power(beta2, steps_before))
    return min(1.0, a / (math.sqrt(b) + options.eps))


def start(roots: Array, options: Options, steps_before: int) -> list[float]:
    """From the roots of a second moment, of which those that are not finite do not count."""
    beta1, beta2 = options.betas
    known = roots[np.isfinite(roots)].astype(np.float64)
    mean = float(np.add.accumulate(known)[-1]) / known.size if known.size else 0.0
    correction2 = 1.0 - integer_power(beta2, steps_before)
    a = mean / math.sqrt(correction2) if correction2 > 0 else 0.0
    return [a * (1.0 - integer_power(beta1, steps_before)), a * a * correction2]


def observe(averages: list[float], options: Options, mean_abs: float) -> list[float]:
    """The averages of |g| and of its square after a step; one that is not finite is not counted."""
    if not math.isfinite(mean_abs):
        return averages
    beta1, beta2 = options.betas
    return [
        beta1 * averages[0] + (1.0 - beta1) * mean_abs,
        beta2 * averages[1] + (1.0 - beta2) * mean_abs * mean_abs,
    ]
