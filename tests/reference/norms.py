"""Gates of norms, ``trust``, ``agc`` and ``clip_update``: how long a tensor's update is beside it.

    R_p = max(rms(p), param_floor)      R_u = rms(u), u the rule's update before any gate

A step leaves the parameter's mean square and the update's for the next one; the first step, and
every exact one, finds them before it moves anything.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from .options import Options


@dataclass(frozen=True)
class Norms:
    """What ``state["gate_norms"]`` holds.

    Attributes:
        square_param: mean square of the parameter.
        square_update: of the update, or its average; 0 before there was one.
    """

    square_param: float = 0.0
    square_update: float = 0.0

    @property
    def starts(self) -> bool:
        """Whether no update has been seen."""
        return self.square_update == 0

    def observe(self, param_rms: float, update_rms: float, options: Options) -> Norms:
        """By root mean squares, of which those that are not finite are not kept."""
        p, u, kept = param_rms * param_rms, update_rms * update_rms, self.square_update
        if math.isfinite(u) and u > 0:
            decay = options.norm_decay
            kept = u if self.starts else decay * kept + (1.0 - decay) * u
        return replace(self if not math.isfinite(p) else Norms(p), square_update=kept)

    def factor(self, gate: str, options: Options) -> float:
        """Of one gate; 1 where no update is known."""
        if self.starts:
            return 1.0
        r_p = max(math.sqrt(self.square_param), options.param_floor)
        r_u = math.sqrt(self.square_update)
        if gate == "trust":
            return min(
                max(options.trust_coefficient * r_p / r_u, options.trust_min), options.trust_clip
            )
        if gate == "agc":
            return min(1.0, options.agc_clip * r_p / r_u)
        assert options.clip_update is not None
        return min(1.0, options.clip_update / r_u)

    def as_list(self) -> list[float]:
        return [self.square_param, self.square_update]
