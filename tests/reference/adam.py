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
    """State of one tensor in the type of the arithmetic, one number an element."""

    m: Array
    v: Array
    slow: Array | None = None


def v_scale(options: Options, t: int) -> float:
    """Bias correction of sqrt(v) at step ``t``; at step 0, before there is any state, it is 1."""
    return 1.0 / math.sqrt(1.0 - integer_power(options.betas[1], t)) if t > 0 else 1.0


def denominator(roots: Array, options: Options, t: int) -> Array:
    """What step ``t`` divides its update by; ``roots`` are those of v."""
    real = roots.dtype.type
    return np.asarray(roots * real(v_scale(options, t)) + real(options.eps))


def unit_denominator(
    roots: Array, restored: np.float32, level: Array, options: Options, t: int
) -> Array:
    """The same with a level in it, of roots that a factor restores."""
    scale, eps = np.float32(v_scale(options, t)) * level, np.float32(options.eps) * level
    return np.asarray(roots * (scale * restored) + eps)


def update_scale(options: Options, t: int, gate: float, m_start: int = 0) -> float:
    """What the rule leaves to be multiplied onto its update: the gate, and without a slow average
    the bias correction of an ``m`` that started after ``m_start`` steps."""
    if options.beta_slow is not None:
        return gate
    return gate / (1.0 - integer_power(options.betas[0], t - m_start))


def decays(options: Options, t: int) -> tuple[float, float, float]:
    """What m, the slow average and v are multiplied with at step ``t``."""
    beta1, beta2 = options.betas
    beta_slow = 0.0 if options.beta_slow is None else ademamix.schedule(options, t)[1]
    return beta1, beta_slow, beta2


def step(
    p: Array, g: Array, decayed: Moments, options: Options, t: int, length: float, m_start: int = 0
) -> tuple[Array, Moments, Array]:
    """Step number ``t`` (from 1) from moments that are multiplied with their decay already: the
    new parameter, the new moments, the update ``u``, by ``length`` of which it moves."""
    real = p.dtype.type
    beta1, beta2 = options.betas
    m = decayed.m + real(options.direction * (1.0 - beta1)) * g
    v = decayed.v + real(1.0 - beta2) * g * g
    slow, numerator = None, m
    if options.beta_slow is not None:
        assert decayed.slow is not None
        alpha, beta_slow = ademamix.schedule(options, t)
        slow = decayed.slow + real(options.direction * (1.0 - beta_slow)) * g
        m_scale = 1.0 / (1.0 - integer_power(beta1, t - m_start))
        numerator = real(m_scale) * m + real(alpha) * slow
    u = numerator / denominator(np.sqrt(v), options, t)
    new_p = real(options.decay) * p - real(length) * u
    return new_p, Moments(m, v, slow), u
