"""Ranks that hold shards of the same tensors: whether they do the same.

A step communicates nothing but this: at its first step and at every ``reallocate_every``-th an
optimizer with sharded parameters compares what decides with the other ranks, through the store by
which their process group has met; and where gradients that are not finite are refused, one
reduction says whether any rank has some.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ..errors import DisagreementError, first_line
from ..state.entries import is_marker
from ..state.groups import Group, placed_params
from ..state.members import members
from ..state.shards import is_sharded, on_several_ranks
from .collectives import check_initialized, collective
from .meeting import Meeting, visited
from .planned import Planned
from .plans import Compiled

__all__ = ["all_ranks", "any_rank", "planned_together", "warn_if_replaced"]

#: What a rank brings to the others about gradients that it has looked at.
FINE, BAD, UNREADABLE = range(3)
_NO_STATE = "no state, as it has had no gradient"


def _meshes_of(groups: Sequence[Group]) -> list[Any]:
    """The meshes of sharded parameters that have more than one rank, in their order."""
    found: dict[Any, None] = {}
    for _, _, param in placed_params(groups):
        if on_several_ranks(param):
            found[param.device_mesh] = None
    return list(found)


def planned_together(optimizer: Planned, make: Callable[[], Compiled]) -> Compiled:
    """The plan that ``make`` makes, once all ranks are known to make the same, where it is time
    to look.

    Raises:
        DisagreementError: on every rank, if they differ, one of them has no plan, or one does not
            come here in time.
        ValueError: if there is no process group.
    """
    meshes = _meshes_of(optimizer.param_groups) if _is_due(optimizer) else []
    if not meshes:
        compiled = make()
        if compiled.sharded and optimizer.global_sums:
            check_initialized()  # before the step, which sums up when it has changed parameters
        return compiled
    meetings = [Meeting.of(ranks) for ranks in _crowds(meshes)]
    texts = {
        "the steps that they have taken": str(optimizer._steps),
        "options": _options_text(optimizer),
        "parameters": _parameters_text(optimizer.param_groups),
    }
    try:
        compiled = make()
    except Exception as error:
        for meeting in meetings:
            meeting.give_up(f"{type(error).__name__}: {first_line(error)}")
        raise
    texts["what each parameter keeps"] = _rungs_text(optimizer.param_groups, compiled)
    visited(meetings, lambda meeting: meeting.compare(texts))
    optimizer._compared = optimizer._steps
    return compiled


def all_ranks(optimizer: Planned, own: bool) -> bool:
    """Whether something is so on every rank that shares parameters with this one.

    Raises:
        DisagreementError: on every rank, if one of them does not come here in time.
    """
    meetings = [Meeting.of(ranks) for ranks in _crowds(_meshes_of(optimizer.param_groups))]
    return all(visited(meetings, lambda meeting: meeting.agree(own)) or [own])


def warn_if_replaced(groups: Sequence[Group]) -> None:
    """Warn where parameters may have been exchanged for shards since the optimizer was made: none
    of them has a gradient, among several ranks."""
    params = [param for _, _, param in placed_params(groups)]
    if not params or any(p.grad is not None or is_sharded(p) for p in params):
        return
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        warnings.warn(
            "no parameter has a gradient at the first step; fully_shard() puts new parameters into "
            "a model: make the optimizer afterwards",
            RuntimeWarning,
            stacklevel=5,
        )


def _is_due(optimizer: Planned) -> bool:
    steps, last = optimizer._steps, optimizer._compared
    return last is None or (steps % optimizer.reallocate_every == 0 and steps != last)


def _crowds(meshes: Sequence[Any]) -> list[tuple[int, ...]]:
    """The ranks that must agree: of each mesh, unless a larger one has them all."""
    if not meshes:
        return []
    check_initialized()
    if dist.get_backend() == "fake":  # ranks that are not there
        return []
    ranks = [frozenset(mesh.mesh.flatten().tolist()) for mesh in meshes]
    largest = [own for own in dict.fromkeys(ranks) if not any(own < other for other in ranks)]
    return [tuple(sorted(own)) for own in largest]


def _options_text(optimizer: Planned) -> str:
    whole = [f"{name}={_shown(value)}" for name, value in optimizer._whole_options().items()]
    of_groups = [
        f"param_groups[{k}][{name!r}]={_shown(group.get(name))}"
        for k, group in enumerate(optimizer.param_groups)
        for name in optimizer.defaults
    ]
    return "\n".join(whole + of_groups)


def _shown(value: object) -> str:
    if isinstance(value, Tensor):
        return repr(value.tolist())
    plain = value is None or isinstance(value, str | int | float | tuple | list | dict)
    return repr(value) if plain else str(getattr(value, "name", type(value).__name__))


def _parameters_text(groups: Sequence[Group]) -> str:
    return "\n".join(
        f"{m.name} of group {m.group}: {m.param.dtype} {tuple(m.param.shape)} "
        + (f"{tuple(m.param.placements)}" if is_sharded(m.param) else "whole")
        + ("" if m.param.requires_grad else " frozen")
        for m in members(groups)
    )


def _rungs_text(groups: Sequence[Group], compiled: Compiled) -> str:
    return "\n".join(
        f"{m.name}: {' '.join(filter(is_marker, compiled.states.get(m.param, {}))) or _NO_STATE}"
        for m in members(groups)
    )


def any_rank(optimizer: Planned, look: Callable[[], bool]) -> bool:
    """Whether ``look`` finds something on any rank, by one reduction over each dimension of the
    meshes that sharded parameters are on.

    Raises:
        DisagreementError: if looking has failed on another rank.
        ValueError: if there is no process group.
        RuntimeError: if it takes no CPU tensors.
    """
    meshes = _meshes_of(optimizer.param_groups)
    if not meshes:
        return look()
    try:
        found = torch.tensor(BAD if look() else FINE)
    except Exception:
        _spread(torch.tensor(UNREADABLE), meshes)
        raise
    _spread(found, meshes)
    if int(found) == UNREADABLE:
        raise DisagreementError("another rank has a gradient that it cannot step; it says which")
    return int(found) == BAD


def _spread(found: Tensor, meshes: Sequence[Any]) -> None:
    for mesh in meshes:
        for dimension in range(mesh.ndim):
            reduce = partial(dist.all_reduce, found, dist.ReduceOp.MAX)
            collective(mesh, dimension, reduce, "nonfinite='raise' and 'skip' ask all ranks")
