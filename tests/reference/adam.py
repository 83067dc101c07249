"""Rule ``adam``: AdamW (arXiv 1711.05101), with a slow average AdEMAMix (2409.03137)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import ademamix
from .options import Options, integer_power

Array = NDArray[Any]


@dataclass
class Moments:
    """Decoded state of one tensor, in the type of the arithmetic."""

    m: Array
    v: Array
    slow: Array | None


def update_scale(options: Options, t: int, gate: float) -> float:
    """What the rule leaves to be multiplied onto its update: the gate, and without a slow average
    the bias correction of ``m``."""
    if options.beta_slow is not None:
        return gate
    return gate / (1.0 - integer_power(options.betas[0], t))


def step(
    p: Array, g: Array, old: Moments, options: Options, t: int, gate: float
) -> tuple[Array, Moments, Array]:
    """Step number ``t`` (from 1): the new parameter, the new moments, the update ``u``."""
    real = p.dtype.type
    beta1, beta2 = options.betas
    gradient1 = options.direction * (1.0 - beta1)
    m = real(beta1) * old.m + real(gradient1) * g
    v = real(beta2) * old.v + real(1.0 - beta2) * g * g
    slow, numerator = None, m
    if options.beta_slow is not None:
        assert old.slow is not None
        alpha, beta_slow = ademamix.schedule(options, t)
        slow = real(beta_slow) * old.slow + real(options.direction * (1.0 - beta_slow)) * g
        m_scale = 1.0 / (1.0 - integer_power(beta1, t))
        numerator = real(m_scale) * m + real(alpha) * slow
    v_scale = 1.0 / math.sqrt(1.0 - integer_power(beta2, t))
    u = numerator / (np.sqrt(v) * real(v_scale) + real(options.eps))
    new_p = real(options.decay) * p - real(options.lr * update_scale(options, t, gate)) * u
    return new_p, Moments(m, v, slow), u
