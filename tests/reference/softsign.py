"""Rule ``softsign``: of Adam's quotient ``w`` a part is made a soft sign,
``u = (1 - b) w / (|w| + kappa) + b w``."""

from __future__ import annotations

import math

import numpy as np

from . import adam
from .adam import Array, Moments
from .options import Options, integer_power


def raised_cosine(x: float) -> float:
    """``(1 - cos(pi x)) / 2`` for x in [0, 1], by the series of a sine of at most pi / 2."""
    z = math.pi * (x - 0.5)
    sine = 1.0
    for k in range(22, 0, -2):
        sine = 1.0 - z * z * sine / (k * (k + 1))
    return 0.5 + 0.5 * z * sine


def blend(options: Options, t: int) -> float:
    """``b`` at step number ``t`` of the tensor, from 1."""
    if options.blend_to is None or options.blend_steps == 0:
        return options.blend
    if t >= options.blend_steps:
        return options.blend_to
    share = t / options.blend_steps
    weight = raised_cosine(share) if options.blend_schedule == "cosine" else share
    return (1.0 - weight) * options.blend + weight * options.blend_to


def step(
    p: Array, g: Array, decayed: Moments, options: Options, t: int, length: float, m_start: int = 0
) -> tuple[Array, Moments, Array]:
    """Step number ``t`` (from 1) from moments that are multiplied with their decay already: the
    new parameter, the new moments, the update ``u``, by ``length`` of which it moves."""
    real = p.dtype.type
    beta1, beta2 = options.betas
    m = decayed.m + real(options.direction * (1.0 - beta1)) * g
    v = decayed.v + real(1.0 - beta2) * g * g
    m_hat = real(1.0 / (1.0 - integer_power(beta1, t - m_start))) * m
    w = m_hat / adam.denominator(np.sqrt(v), options, t)
    b = blend(options, t)
    u = real(1.0 - b) * (w / (np.abs(w) + real(options.kappa))) + real(b) * w
    new_p = real(options.decay) * p - real(length) * u
    return new_p, Moments(m, v), u
