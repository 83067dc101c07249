"""Parameters that take turns: engines such as DeepSpeed exchange the groups between the calls of
one step, so that each call sees some of the parameters and the others are in no group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..capital.budget import resolve_budget
from ..state.entries import drop_orphans, holds
from ..state.groups import Group, placed_params

__all__ = ["Turns"]

#: Adoptions and steps through which state outlives its parameter's place in lists that were
#: exchanged: a second step of the same lists shows that nobody comes back.
_STEPS = 2


class Turns:
    """Which parameters were seen last, and whether those that were not are to keep their state.

    A parameter that is deleted from a list is gone, and so is its state at the next step. Where
    the list itself is another one, parameters may have been taken away, or take turns: state stays
    until two steps in a row are of the same lists.
    """

    def __init__(self) -> None:
        self._lists: list[object] = []  # of the newest plan, held so that no other has their place
        self._seen: frozenset[int] = frozenset()
        self._left = 0  # steps after which state without a place is dropped

    @property
    def lasts(self) -> bool:
        """Whether state without a place is still kept."""
        return self._left > 0

    def check(
        self, budget: int | str | None, groups: Sequence[Group], state: Mapping[Any, Any]
    ) -> None:
        """Raise ValueError where each turn would spend the bytes of a whole budget."""
        if not self._left or budget is None:
            return
        back = any(
            id(param) not in self._seen and holds(state.get(param))
            for _, _, param in placed_params(groups)
        )
        if back and resolve_budget(budget, 0) == resolve_budget(budget, 2**20):
            raise ValueError(
                f"budget is {budget!r}, but parameters are stepped some at a time, as DeepSpeed "
                "does with several parameter groups or sub-groups, and each call would spend all "
                "of it; give a share such as '10%', or one group"
            )

    def adopt(self, groups: Sequence[Group], state: dict[Any, Any]) -> None:
        """A plan for these groups has been stepped."""
        lists: list[object] = [groups, *(group["params"] for group in groups)]
        known = {id(found) for found in self._lists}
        exchanged = any(id(found) not in known for found in lists)
        self._lists = lists
        self._seen = frozenset(id(param) for _, _, param in placed_params(groups))
        self._left = _STEPS if exchanged else 0
        if not exchanged:
            drop_orphans(state, groups)

    def end_step(self, groups: Sequence[Group], state: dict[Any, Any]) -> None:
        """A step has been taken, by a new plan or not, while ``lasts``."""
        self._left -= 1
        if not self._left:
            drop_orphans(state, groups)
