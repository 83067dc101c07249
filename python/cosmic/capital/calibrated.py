"""The default policy: what a rung is worth to a tensor by the suite of tasks in ``bench/suite``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from ..rungs import Rung
from ..state.roles import Role
from .policies import Candidate

__all__ = ["MOST_SIDE", "CalibratedPolicy"]

#: The price in time: orthogonalizing takes about 7 operations an element for each element of the
#: shorter side. At this length a step takes as many as a batch of 1,200 tokens does by itself.
MOST_SIDE = 1024
#: What a rung brings an element, by role, of what the best one brings; by the whole name, or by the
#: codec of the first moment (``none``: without one). Measured on the half of the suite that
#: constants may be fitted on (docs/budget.md): without momentum, at the factor that keeps a
#: gradient's whole effect, tables and matrices do as well as with it or better. It is bought for
#: vectors; for matrices that no rule steps as a whole, where fewer than 8 bits of it are noise;
#: and for tables with a second moment of their elements, which gain 0.7 % by both when batches are
#: large and nothing when they are small.
_WORTHS: Mapping[Role, Mapping[str, float]] = {
    "table": {
        "tier0": 0.0, "tier1": 0.02, "none": 1.0, "tier2:u4+v4": 1.004, "tier2:q8+q8": 1.004,
        "tier2:bf16+bf16": 1.004, "tier2:fp32+fp32": 1.004, "tier2:fp64+fp64": 1.004,
    },
    "matrix": {"tier0": 0.0, "tier1": 0.6, "none": 0.9, "q8": 0.93, "bf16": 0.931, "fp32": 0.932,
        "fp64": 0.932,
    },
    "vector": {
        "tier0": 0.0, "tier1": 0.5, "none": 0.6, "u4": 0.8, "q8": 0.9, "bf16": 0.95, "fp32": 1.0,
        "fp64": 1.0,
    },
}  # fmt: skip
#: A matrix that is stepped as a whole: the direction is all, and momentum adds nothing to it.
_WHOLE = 1.0


def worth(rung: Rung, role: Role) -> float:
    """What a rung brings an element of a tensor in this role; 0 for a sign."""
    worths = _WORTHS[role]
    if rung.of_matrix:
        return _WHOLE
    plain = Rung(rung.tier, rung.m, v=rung.v).name  # a slow average or another center beside it
    if plain in worths:
        return worths[plain]
    return worths.get(rung.m, worths["none"])  # momentum that has not paid is as good as none


@dataclass(frozen=True)
class CalibratedPolicy:
    """The least state that lost nothing on any task: directions for hidden matrices, a second
    moment for tables, full history for vectors.

    Hidden matrices are stepped as a whole, by the orthogonalized gradient, which takes no state.
    What is left when nobody gains any more is not spent.
    """

    name: ClassVar[str] = "calibrated"
    uses_signal: ClassVar[bool] = False
    #: A learning rate that suits AdamW is the one that its hidden matrices stand; tables stand, and
    #: want, a higher one (docs/budget.md).
    lr_scale: ClassVar[Mapping[Role, float]] = MappingProxyType({"table": 3.0})

    def matrix_rule(self, sides: tuple[int, int]) -> str | None:
        """Orthogonalization where the shorter side is no more than ``MOST_SIDE``."""
        return "muon" if min(sides) <= MOST_SIDE else None

    def worths(self, candidates: Sequence[Candidate]) -> list[list[float]]:
        return [[c.numel * worth(rung, c.role) for rung in c.ladder] for c in candidates]

    def why(self, candidate: Candidate, rung: Rung) -> str:
        """In words and numbers, what decided for a rung."""
        mine = worth(rung, candidate.role)
        more = [r for r in candidate.ladder if worth(r, candidate.role) > mine]
        text = f"{candidate.role}: worth {mine:g} an element"
        if not more:
            return text + ", as much as any rung's"
        best = min(more, key=candidate.price)
        dearer = candidate.price(best) - candidate.price(rung)
        gain = worth(best, candidate.role) - mine
        return f"{text}; {best.name} would add {gain:.2g} for {dearer:,} bytes more"
