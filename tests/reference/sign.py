"""Rules ``sign`` (tier 0) and ``scalar_sign`` (tier 1): only the sign of the gradient counts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .options import Options

Array = NDArray[Any]


def sign_scale(beta1: float) -> float:
    """Root mean square of Adam's update on gradients that are uncorrelated in time."""
    return math.sqrt((1.0 - beta1) / (1.0 + beta1))


def update_scale(options: Options, magnitude: float, gate: float) -> float:
    return sign_scale(options.betas[0]) * magnitude * gate


def step(p: Array, g: Array, options: Options, length: float) -> tuple[Array, Array]:
    """The new parameter and the update ``u``, by ``length`` of which it moves; NaN is its own
    sign."""
    real = p.dtype.type
    u = np.where(g > 0, real(1), np.where(g < 0, real(-1), g))
    return real(options.decay) * p - real(options.direction * length) * u, u
