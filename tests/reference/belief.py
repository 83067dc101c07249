"""Rule ``belief``: the second moment is taken about the first (AdaBelief, arXiv 2010.07468), and
Adam's update is weighed by what its gate says of each coordinate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import adam
from .options import Options, integer_power
from .trust_focus import Trust

Array = NDArray[Any]


@dataclass
class Stepped:
    p: Array
    m: Array
    s: Array  # the second moment about the first
    u: Array  # the update, but for the gate's factor
    shares: Array  # of signal in each coordinate's gradients, 0 to 1


def step(
    p: Array, g: Array, m: Array, decayed_s: Array, options: Options, t: int, trust: Trust,
    length: float, m_start: int = 0,
) -> Stepped:  # fmt: skip
    """Step number ``t`` (from 1), from a first moment as it was after the last step and a second
    one that is multiplied with its decay already; it moves by ``length`` of the update."""
    real = p.dtype.type
    beta1, beta2 = options.betas
    surprise = real(options.direction) * g - m
    s = decayed_s + real(1.0 - beta2) * surprise * surprise
    m = real(beta1) * m + real(options.direction * (1.0 - beta1)) * g

    m_hat = real(1.0 / (1.0 - integer_power(beta1, t - m_start))) * m
    deviation = np.sqrt(s) * real(adam.v_scale(options, t))
    w = m_hat / (np.sqrt(m_hat * m_hat + deviation * deviation) + real(options.eps))
    shares = w * w
    u = trust.focus(shares, options) * w
    new_p = real(options.decay) * p - real(length) * u
    return Stepped(new_p, m, s, u, shares)


def recentred(m: Array, v: Array, options: Options, t: int, m_start: int, sign: int) -> Array:
    """A second moment about zero as one about the first (``sign`` -1), or the other way round."""
    real = v.dtype.type
    beta1, beta2 = options.betas
    if t == m_start:  # the first is zero
        return v
    mean = m / real(1 - beta1 ** (t - m_start))
    other = v + mean * mean * real(sign * (1 - beta2**t))
    return np.asarray(np.maximum(other, v * real(0.1)))
