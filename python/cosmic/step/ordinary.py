"""The ordinary step: of every parameter that has a gradient, at once."""

from __future__ import annotations

import torch

from ..state.members import plan_rows
from ..threads import thread_count
from .looks import observed
from .options import check_nonfinite
from .planned import Planned

__all__ = ["take_step"]


def take_step(optimizer: Planned) -> None:
    """Take one step, unless it is to be left out for what a gradient holds.

    Raises:
        NonfiniteGradientError: with ``nonfinite="raise"``. Nothing has changed then.
    """
    if optimizer.nonfinite != "propagate" and _refuse_nonfinite(optimizer):
        return
    compiled = optimizer._ready()
    stepped = optimizer._run(compiled)
    if stepped is None:  # a tensor, a group or a state was exchanged
        compiled = optimizer._compile()
        stepped = optimizer._run(compiled)
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


def _refuse_nonfinite(optimizer: Planned) -> bool:
    """Look at the gradients; True if this step is to be left out."""
    check_nonfinite(optimizer.nonfinite)
    compiled = optimizer._ready()
    found = compiled.plan.inspect(optimizer.param_groups, optimizer.state, thread_count())
    if found is None:
        optimizer._compiled = None
        compiled = optimizer._compile()
        found = compiled.plan.inspect(optimizer.param_groups, optimizer.state, thread_count()) or []
    bad = [(index, count) for index, _, count in found if count]
    if not bad:
        return False
    if optimizer.nonfinite == "raise":
        raise optimizer._nonfinite_error(bad)
    labels = {row.index: row.label for row in plan_rows(optimizer.param_groups)}
    optimizer._count_skipped([labels[i] for i, _ in bad], sum(count for _, count in bad))
    return True
