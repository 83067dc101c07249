"""AdEMAMix's schedules (arXiv 2409.03137, section 3).

Over the first ``slow_warmup`` steps alpha rises linearly from 0, and beta_slow rises from beta1 so
that the half-life of the average rises linearly.
"""

from __future__ import annotations

import math

from .options import Options


def schedule(options: Options, t: int) -> tuple[float, float]:
    """(alpha, beta_slow) of step number ``t``, from 1."""
    assert options.beta_slow is not None
    alpha, beta_slow = options.alpha, options.beta_slow
    warmup, beta1 = options.slow_warmup or 0, options.betas[0]
    if t >= warmup:
        return alpha, beta_slow
    share = t / warmup
    alpha *= share
    if beta1 > 0:
        start, end = math.log(beta1), math.log(beta_slow)
        # a half-life is log(1/2) / log(beta): interpolate 1 / log(beta)
        rising = math.exp(start * end / ((1.0 - share) * end + share * start))
        beta_slow = min(rising, beta_slow)
    return alpha, beta_slow
