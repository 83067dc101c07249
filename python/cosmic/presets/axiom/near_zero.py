"""What a rung is worth where state is to be next to nothing and no budget says how much."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from ...capital.policies import Candidate
from ...rungs import MATRIX, Rung
from ...state.roles import ROLES
from ...step.choices import Choice

__all__ = ["NO_LIMIT", "NearZeroPolicy", "with_rate_times"]

#: Bytes that no model has: the policy alone decides, and it asks for next to none.
NO_LIMIT = 2**62
#: What is kept of a tensor whose group demands history: four bits lose nothing (docs/codecs.md).
_HISTORY = "u4"


@dataclass(frozen=True)
class NearZeroPolicy:
    """A second moment by rows and columns for what has them, two scalars for all else.

    Nothing that takes a number an element is ever bought: ``4 (rows + columns)`` bytes for a
    matrix, and a few numbers for a vector, for a matrix of fewer than 16 columns, for what is
    masked, and for float64, whose second moment is not kept without a first one.
    """

    name: ClassVar[str] = "near_zero"
    uses_signal: ClassVar[bool] = False

    def worths(self, candidates: Sequence[Candidate]) -> list[list[float]]:
        return [[c.numel * _worth(rung, c) for rung in c.ladder] for c in candidates]

    def why(self, candidate: Candidate, rung: Rung) -> str:
        """What decided for a rung."""
        if rung.tier == 2:
            return "next to no state, but its group demands history"
        kept = "rows and columns" if rung.v in MATRIX else "no number an element"
        return f"next to no state: {kept}"


def _worth(rung: Rung, candidate: Candidate) -> float:
    if rung.tier == 2:
        demanded = all(other.tier == 2 for other in candidate.ladder)
        return 1.0 if demanded and rung.m == _HISTORY else 0.0
    if rung.tier == 0:
        return 0.0
    if rung.of_matrix:
        return 3.0  # its group asks for the rule
    if rung.v in MATRIX:
        return 2.0
    return 1.0 if rung.v == "none" else 0.0


def with_rate_times(choice: Choice, factor: float) -> Choice:
    """The choice at a learning rate that is ``factor`` times as high."""
    asked = choice.live.lr_scale
    scale: float | dict[str, float]
    if asked is None:
        scale = factor
    elif isinstance(asked, int | float):
        scale = factor * asked
    else:  # every tensor has one of the roles, and a part's factor multiplies its role's
        scale = {**asked, **{role: factor * asked.get(role, 1.0) for role in ROLES}}
    return replace(choice, live=replace(choice.live, lr_scale=scale))
