"""Rule ``rmsprop`` (tier 1 with a second moment): the gradient over its root, no first moment.

The update is clipped as in Adafactor (arXiv 1804.04235, section 6, d = 1), but by the root mean
square that it had at the step before.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import adam
from .options import Options

Array = NDArray[Any]


def update_scale(last_rms: float, gate: float) -> float:
    """What the rule leaves to be multiplied onto its update."""
    return gate / max(1.0, last_rms)


def step(
    p: Array, g: Array, decayed: Array, options: Options, t: int, length: float
) -> tuple[Array, Array, Array]:
    """Step number ``t`` from a second moment that is multiplied with its decay already: the new
    parameter, the new second moment, the update ``u``, by ``length`` of which it moves."""
    real = p.dtype.type
    v = decayed + real(1.0 - options.betas[1]) * g * g
    u = g / adam.denominator(np.sqrt(v), options, t)
    return real(options.decay) * p - real(options.direction * length) * u, v, u


def observe(last_rms: float, rms: float) -> float:
    """The root mean square to clip the next step by; one that is not finite is not kept."""
    return rms if math.isfinite(rms) else last_rms
