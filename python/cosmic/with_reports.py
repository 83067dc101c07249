"""What an optimizer holds and has seen, for people and programs that ask."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

from torch import Tensor

from .capital.budget import resolve_budget
from .check import Check, checked_groups
from .reports import TierInfo, gate_factors, group_statistics, tier_table
from .state.entries import holds, master_bytes, state_bytes
from .state.master import master_weight
from .state.members import members
from .state.places import real_numel
from .step.planned import Listener
from .step.plans import Transition
from .threads import forked, one_thread
from .with_controllers import WithControllers

__all__ = ["WithReports"]

#: What an allocation says of each parameter: fields of ``TierInfo``.
_TOLD = ("name", "role", "rung", "numel", "nbytes", "why")


class WithReports(WithControllers):
    """An optimizer that says what it holds and what its last step saw."""

    def _reset(self) -> None:
        super()._reset()
        self._allocation: dict[str, Any] | None = None  # as listeners were last told

    def state_bytes(self) -> int:
        """Bytes of all state: exactly those of COSMIC's own tensors in ``state_dict()``. What
        others keep in ``optimizer.state`` is not counted, neither here nor by a budget."""
        return sum(state_bytes(state) for state in self.state.values())

    def master_bytes(self) -> int:
        """Bytes of the weights' lower bits that group option ``master_bits`` keeps in the state
        (entries ``"master_low"``), one an element of a parameter in bfloat16."""
        return sum(master_bytes(state) for state in self.state.values())

    def master_weights(self) -> dict[str, Tensor]:
        """Every parameter with all bits that there are of it, by name (its number as text where it
        has none), for checkpoints in full precision: new float32 tensors of the parameters' shapes,
        float64 of parameters in float64. With ``master_bits=24`` those in bfloat16 have 24 bits.
        """
        return {
            member.name: master_weight(
                member, self.state.get(member.param, {}), self.param_groups[member.group]
            )
            for member in members(self.param_groups)
        }

    def budget_bytes(self) -> int | None:
        """The budget in bytes; before the first step, for all parameters that require grad."""
        started = any(map(holds, self.state.values()))
        live = [
            m.param
            for m in members(self.param_groups)
            if holds(self.state.get(m.param)) or (not started and m.takes_gradients)
        ]
        return resolve_budget(self.budget, sum(real_numel(p) for p in live))

    def tiers(self) -> list[TierInfo]:
        """What every parameter that has been stepped holds, in the order of the parameters."""
        reasons = self._compiled.reasons if self._compiled else {}
        return tier_table(self.param_groups, self.state, reasons)

    def stats(self) -> list[dict[str, float]]:
        """What the last step saw, one dict a parameter group.

        ``gate``: mean factor, by elements; ``gate_min``: the least; ``update_rms``: root mean
        square of the update before the learning rate; ``gradient_abs``: mean absolute gradient;
        and, of the optimizer as a whole since it was made, ``skipped_steps`` and
        ``nonfinite_gradients`` (elements).
        """
        whole = {
            "skipped_steps": self._skipped,
            "nonfinite_gradients": self._nonfinite_seen,
        }
        return [
            {**group, **whole} for group in group_statistics(self.param_groups, self._last_rows())
        ]

    def gate_factors(self) -> dict[str, float]:
        """The gate's factor of every gated parameter at the last step, by name."""
        return gate_factors(self.param_groups, self.state, self._last_rows())

    def check(self) -> Check:
        """Norms, effective rates, gate factors and what is not finite, by parameter group.

        Changes nothing. Norms of updates, rates and factors are the last step's own sums; norms of
        parameters and of decoded first moments, and counts of elements that are not finite, take a
        pass over these tensors. ``print`` shows a table; before the first step it says so.
        """
        with one_thread() if forked() else nullcontext():
            found = checked_groups(self.param_groups, self.state, self._observed())
        return Check(self._steps, found)

    def add_listener(self, listener: Listener) -> None:
        """Call ``listener(event, fields)`` at every step, tier transition, new allocation, move of
        a controller and skipped step. The first step from now on tells the allocation, new or not.
        """
        self._listeners.append(listener)
        self._allocation, self._untold = None, True

    def remove_listener(self, listener: Listener) -> None:
        """Undo ``add_listener``."""
        self._listeners.remove(listener)

    # ---- what listeners are told -----------------------------------------------------------

    def _tell_plan(self, transitions: Sequence[Transition]) -> None:
        step, rows = self._steps - 1, self.tiers()
        why = {row.name: row.why for row in rows}
        for transition in transitions:
            fields = dataclasses.asdict(transition)
            self._emit("transition", {"step": step, **fields, "why": why.get(transition.name, "")})
        allocation: dict[str, Any] = {
            "budget": self.budget_bytes(),
            "state_bytes": self.state_bytes(),
            "tensors": [{key: getattr(row, key) for key in _TOLD} for row in rows],
        }
        if allocation != self._allocation:
            self._allocation = allocation
            self._emit("allocation", {"step": step, **allocation})
