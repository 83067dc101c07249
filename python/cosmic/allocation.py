"""Who gets which rung under a budget.

An allocator sees candidates (a tensor, its ladder of rungs, its signal) and picks a rung for
each. The optimizer asks it when parameters appear and every so many steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from .rungs import Geometry, Rung

__all__ = ["Allocator", "Candidate", "SignalAllocator"]


@dataclass(frozen=True)
class Candidate:
    """One tensor whose rung the allocator may choose.

    Attributes:
        index: of the parameter in the optimizer.
        numel: real elements.
        ladder: the rungs it may have, cheap to dear; the first costs least.
        current: the rung it has, or None.
        signal: mean absolute gradient, averaged over steps.
        matrix: rows and columns that the tensor can be seen as, or None.
    """

    index: int
    numel: int
    ladder: tuple[Rung, ...]
    current: Rung | None
    signal: float
    matrix: tuple[int, int] | None = None

    def price(self, rung: Rung) -> int:
        """Exact bytes of the tensor's state on a rung."""
        return rung.nbytes(Geometry(self.numel, self.matrix))


class Allocator(Protocol):
    """Anything that spends a budget."""

    def allocate(self, candidates: Sequence[Candidate], budget: int) -> list[Rung]:
        """Choose a rung for every candidate.

        Args:
            candidates: in the order of the optimizer's parameters.
            budget: bytes for all of them together; at least the sum of the first rungs.

        Returns:
            One rung of each candidate's ladder; together they never cost more than ``budget``.
            Deterministic: equal candidates and budget give equal rungs.
        """
        ...


@dataclass(frozen=True)
class SignalAllocator:
    """COSMIC's own idea: bytes go where the gradient's signal per byte is highest.

    Every tensor starts on its first rung. The tensors are then visited by falling signal per byte
    of their dearest rung, and each takes the dearest rung that still fits.

    Attributes:
        hysteresis: a tensor that already holds its dearest rung counts as this many times its
            signal, so that two tensors of about the same worth do not swap at every look.
    """

    hysteresis: float = 1.25

    def allocate(self, candidates: Sequence[Candidate], budget: int) -> list[Rung]:
        chosen = [c.ladder[0] for c in candidates]
        left = budget - sum(c.price(r) for r, c in zip(chosen, candidates, strict=True))
        for k in sorted(range(len(candidates)), key=lambda k: self._priority(candidates[k])):
            candidate, base = candidates[k], candidates[k].price(chosen[k])
            for rung in reversed(candidate.ladder):
                price = candidate.price(rung) - base
                if price <= left:
                    chosen[k], left = rung, left - price
                    break
        return chosen

    def _priority(self, candidate: Candidate) -> tuple[float, int]:
        dearest = candidate.ladder[-1]
        worth = candidate.signal * candidate.numel
        if candidate.current == dearest:
            worth *= self.hysteresis
        # ties go to the parameter that was given first
        return -worth / max(candidate.price(dearest), 1), candidate.index
