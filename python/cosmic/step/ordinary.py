"""The ordinary step: of every parameter that has a gradient, at once."""

from __future__ import annotations

import torch

from ..state.members import plan_rows
from ..threads import thread_count
from .copies import CopyTo, by_position
from .looks import observed
from .options import check_nonfinite
from .planned import Planned
from .plans import Compiled
from .provisional import asks_for_state, make_state
from .ranks import any_rank, planned_together, warn_if_replaced

__all__ = ["take_step"]


def take_step(optimizer: Planned, copy_to: CopyTo | None = None) -> None:
    """Take one step, unless it is to be left out for what a gradient holds, and leave copies of
    the parameters that it steps. One that is taken to have state made does no more than that.

    Raises:
        TypeError, ValueError: for a ``copy_to`` that does not fit. Nothing has changed then.
        NonfiniteGradientError: with ``nonfinite="raise"``. Nothing has changed then.
        DisagreementError: if ranks that share sharded parameters differ. Nothing has changed then.
    """
    copies = None if copy_to is None else by_position(copy_to, optimizer.param_groups)
    known = optimizer._compiled
    if known is None and not optimizer._steps:
        warn_if_replaced(optimizer.param_groups)
    if known is None and asks_for_state(optimizer):
        make_state(optimizer)
        return
    together = known is None or known.sharded
    compiled = planned_together(optimizer, optimizer._ready) if together else optimizer._ready()
    if optimizer.nonfinite != "propagate" and _refuse_nonfinite(optimizer, compiled):
        return
    stepped = optimizer._run(compiled, copies)
    if stepped is None:  # a tensor, a group or a state was exchanged
        compiled = optimizer._compile()
        stepped = optimizer._run(compiled, copies)
        if stepped is None:
            raise RuntimeError("param_groups or state changed while the step was prepared")
    fresh = optimizer._compiled is not compiled
    if fresh:
        optimizer._adopt(compiled)
    if stepped:
        torch.autograd.graph.increment_version(stepped)
    if optimizer._looks():
        optimizer._take_found(observed(optimizer.param_groups, optimizer.state))
    optimizer._after_step(compiled, compiled.transitions if fresh else ())


def _refuse_nonfinite(optimizer: Planned, compiled: Compiled) -> bool:
    """Look at the gradients, on all ranks that share them; True if this step is to be left out."""
    check_nonfinite(optimizer.nonfinite)
    bad: list[tuple[int, int]] = []

    def look() -> bool:
        bad.extend((index, count) for index, _, count in _inspected(optimizer, compiled) if count)
        return bool(bad)

    if not any_rank(optimizer, look):
        return False
    if optimizer.nonfinite == "raise":
        raise optimizer._nonfinite_error(bad)
    labels = {row.index: row.label for row in plan_rows(optimizer.param_groups)}
    optimizer._count_skipped([labels[i] for i, _ in bad], sum(count for _, count in bad))
    return True


def _inspected(optimizer: Planned, compiled: Compiled) -> list[tuple[int, float, int]]:
    """What the plan sees in the gradients, or one that is made anew."""
    threads = thread_count()
    found = compiled.plan.inspect(optimizer.param_groups, optimizer.state, threads)
    if found is None:
        optimizer._compiled = None
        anew = optimizer._compile()
        found = anew.plan.inspect(optimizer.param_groups, optimizer.state, threads)
    return found or []
