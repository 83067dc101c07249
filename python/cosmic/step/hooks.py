"""What goes around ``step``: torch's wrapper, where somebody looks, and its compiler, kept out."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import ParamSpec, TypeVar, cast

import torch
from torch.optim import optimizer as torch_optimizer
from torch.optim.optimizer import Optimizer

__all__ = ["hooked_where_observed", "step_as_it_is"]

_P = ParamSpec("_P")
_R = TypeVar("_R")


def hooked_where_observed(step: Callable[_P, _R]) -> Callable[_P, _R]:
    """torch wraps every ``step`` in a profiler range and hooks, at a cost that small models feel.
    This one goes through torch's wrapper where somebody looks, and past it where nobody does."""
    observed_step = Optimizer.profile_hook_step(step)

    @functools.wraps(step)
    def wrapper(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        if _observed(cast(Optimizer, args[0])):
            return observed_step(*args, **kwargs)
        return step(*args, **kwargs)

    wrapper.hooked = True  # type: ignore[attr-defined]  # torch leaves it as it is
    return wrapper


def _observed(optimizer: Optimizer) -> bool:
    return bool(
        optimizer._optimizer_step_pre_hooks
        or optimizer._optimizer_step_post_hooks
        or torch_optimizer._global_optimizer_pre_hooks
        or torch_optimizer._global_optimizer_post_hooks
        or torch.autograd._profiler_enabled()  # type: ignore[attr-defined]
    )


# As torch.compiler.disable, but the compiler is imported only where it is used.
@torch._disable_dynamo  # type: ignore[attr-defined]
def step_as_it_is(
    optimizer: Optimizer, closure: Callable[[], float] | None, given: Mapping[str, object]
) -> float | None:
    """A step within a function that is being compiled, which it interrupts. ``given``: arguments
    of the optimizer's own."""
    step: Callable[..., float | None] = optimizer.step
    return step(**given) if closure is None else step(closure, **given)
