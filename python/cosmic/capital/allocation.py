"""Spending a budget: the rungs whose worths add up to the most for their bytes."""

from __future__ import annotations

from collections.abc import Sequence

from .. import _core
from ..rungs import Rung
from .policies import Candidate, Policy

__all__ = ["HYSTERESIS", "allocate"]

#: What promoted tensors gain must be this share more than what demoted ones lose, or what is held
#: stays: moving state costs accuracy, and two tensors of about the same worth must not swap at
#: every look.
HYSTERESIS = 0.25
_MOST = 2**62  # bytes, whatever the budget


def allocate(policy: Policy, candidates: Sequence[Candidate], budget: int) -> list[Rung]:
    """A rung for every candidate, of its ladder, together within the budget.

    A multiple-choice knapsack (``cpp/budget/knapsack.h``): the step of most worth per byte first,
    along each tensor's convex hull of worth over price, as far as what is left can buy it. The
    worth is at most one step short of the best that any allocation could have. Deterministic.

    Args:
        budget: bytes for all candidates together; at least the sum of their first rungs.

    Raises:
        ValueError: for worths that do not fit the ladders or are not finite, naming the policy.
    """
    if not candidates:
        return []
    worths = _numbers(policy, candidates)
    prices = [[c.price(rung) for rung in c.ladder] for c in candidates]
    try:
        chosen = _core.solve_knapsack(prices, worths, min(budget, _MOST))
    except ValueError as error:
        raise ValueError(f"policy {policy.name!r}: {error}") from None
    held = _held(candidates, prices, budget)
    if held is not None and not _pays(worths, held, chosen):
        chosen = held
    return [c.ladder[k] for c, k in zip(candidates, chosen, strict=True)]


def _numbers(policy: Policy, candidates: Sequence[Candidate]) -> list[list[float]]:
    """What the policy says, held to its word."""
    given = policy.worths(candidates)
    try:
        worths = [[float(x) for x in row] for row in given]
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"policy {policy.name!r} must give a list of numbers for each candidate: {error}"
        ) from error
    if [len(w) for w in worths] != [len(c.ladder) for c in candidates]:
        raise ValueError(
            f"policy {policy.name!r} must give one worth for each rung of each candidate's ladder"
        )
    return worths


def _pays(worths: Sequence[Sequence[float]], held: Sequence[int], chosen: Sequence[int]) -> bool:
    """Whether a new allocation is enough better than the held one."""
    changes = [w[new] - w[old] for w, old, new in zip(worths, held, chosen, strict=True)]
    lost = -sum(change for change in changes if change < 0)
    return sum(change for change in changes if change > 0) > (1.0 + HYSTERESIS) * lost


def _held(
    candidates: Sequence[Candidate], prices: Sequence[Sequence[int]], budget: int
) -> list[int] | None:
    """Places in the ladders of the held rungs; None if one is new or they cost too much."""
    places: list[int] = []
    spent = 0
    for candidate, price in zip(candidates, prices, strict=True):
        if candidate.current not in candidate.ladder:
            return None
        places.append(candidate.ladder.index(candidate.current))
        spent += price[places[-1]]
    return places if spent <= budget else None
