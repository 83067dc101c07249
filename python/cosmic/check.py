"""What an optimizer's tensors look like now, by group: sizes, steps, what is not finite."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from .controllers.observation import TensorStats
from .parts import CODECS
from .state.entries import State, entries_of, holds, rung_of
from .state.groups import Group
from .state.members import Member, listed, members, parts_of
from .state.moments import read
from .state.places import real_numel, real_view

__all__ = ["Check", "GroupCheck", "checked_groups"]


class GroupCheck(NamedTuple):
    """One parameter group; what only a step tells is None before the first one.

    Attributes:
        group: its number.
        tensors: how many parameters it has.
        numel: their real elements.
        param_norm: Euclidean norm of all its parameters.
        momentum_norm: of their first moments, decoded; None where none is kept, or a codec knows it
            only with the next gradient.
        update_norm: of the last step's updates ``c u``, before the learning rate.
        lr: the group's learning rate.
        effective_lr: mean of ``lr lr_scale c`` over the elements that the last step moved.
        relative_step: norm of ``lr lr_scale c u``, of all tensors together, over ``param_norm``.
        gate_min: least gate factor ``c`` of its tensors, 1 without a gate.
        gate_mean: mean factor, by elements.
        gate_max: greatest factor.
        nonfinite_params: names of parameters that have infinite or NaN elements, and how many.
        nonfinite_gradients: the same of gradients that are there now.
    """

    group: int
    tensors: int
    numel: int
    param_norm: float
    momentum_norm: float | None
    update_norm: float | None
    lr: float
    effective_lr: float | None
    relative_step: float | None
    gate_min: float | None
    gate_mean: float | None
    gate_max: float | None
    nonfinite_params: dict[str, int]
    nonfinite_gradients: dict[str, int]


class Check(list[GroupCheck]):
    """What ``Cosmic.check`` has found, one entry a parameter group; ``print`` shows a table.

    Attributes:
        step: steps taken so far.
    """

    def __init__(self, step: int, groups: Iterable[GroupCheck]) -> None:
        super().__init__(groups)
        self.step = step

    @property
    def finite(self) -> bool:
        """Whether all elements of all parameters and gradients are."""
        return not any(g.nonfinite_params or g.nonfinite_gradients for g in self)

    def table(self) -> str:
        """A line a group, and one for each kind of tensor that is not finite."""
        head = f"after step {self.step}" if self.step else "no step has been taken yet"
        titles = (
            "group", "tensors", "elements", "|p|", "|m|", "|u|", "lr", "effective", "relative",
            "gate",
        )  # fmt: skip
        rows = [titles, *map(_row, self)]
        widths = [max(len(row[k]) for row in rows) for k in range(len(titles))]
        lines = ["  ".join(f"{t:>{w}}" for t, w in zip(r, widths, strict=True)) for r in rows]
        return "\n".join([head, *lines, *self._spoiled()])

    def _spoiled(self) -> list[str]:
        out = []
        for g in self:
            for kind, found in (("", g.nonfinite_params), ("gradients of ", g.nonfinite_gradients)):
                if found:
                    names = listed([f"{name} ({count:,})" for name, count in found.items()])
                    out.append(f"group {g.group}: not finite: {kind}{names}")
        return out

    def __str__(self) -> str:
        return self.table()


def _row(g: GroupCheck) -> tuple[str, ...]:
    gate = "-"
    if g.gate_min is not None:
        gate = " ".join(f"{c:.3g}" for c in (g.gate_min, g.gate_mean, g.gate_max) if c is not None)
    measured = (
        g.param_norm, g.momentum_norm, g.update_norm, g.lr, g.effective_lr, g.relative_step
    )  # fmt: skip
    shown = ("-" if x is None else f"{x:.4g}" for x in measured)
    return str(g.group), str(g.tensors), f"{g.numel:,}", *shown, gate


def checked_groups(
    groups: Sequence[Group], state: Mapping[Tensor, State], tensors: Iterable[TensorStats]
) -> list[GroupCheck]:
    """What ``Check`` has of each group.

    Args:
        tensors: what the last step saw.
    """
    everyone, seen = list(members(groups)), list(tensors)
    return [
        _of_group(
            index, group, [m for m in everyone if m.group == index], state,
            [t for t in seen if t.group == index and t.numel],
        )
        for index, group in enumerate(groups)
    ]  # fmt: skip


def _of_group(
    index: int,
    group: Group,
    mine: Sequence[Member],
    state: Mapping[Tensor, State],
    seen: Sequence[TensorStats],
) -> GroupCheck:
    made = [m for m in mine if not is_lazy(m.param)]
    lr = float(group["lr"])
    param_norm = _norm(m.tensor for m in made)
    update = moved = None
    if seen:
        update = _joined(math.sqrt(t.numel) * t.update_rms for t in seen)
        moved = _joined(math.sqrt(t.numel) * lr * t.lr_scale * t.update_rms for t in seen)
    return GroupCheck(
        group=index,
        tensors=len(mine),
        numel=sum(real_numel(m.tensor) for m in made),
        param_norm=param_norm,
        momentum_norm=_momentum_norm(made, state, group),
        update_norm=update,
        lr=lr,
        effective_lr=_mean(seen, lambda t: lr * t.lr_scale * t.gate),
        relative_step=None if moved is None or not param_norm else moved / param_norm,
        gate_min=min((t.gate for t in seen), default=None),
        gate_mean=_mean(seen, lambda t: t.gate),
        gate_max=max((t.gate for t in seen), default=None),
        nonfinite_params=_nonfinite((m.name, m.tensor) for m in made),
        nonfinite_gradients=_nonfinite((m.name, m.gradient) for m in made),
    )


def _mean(seen: Sequence[TensorStats], of: Callable[[TensorStats], float]) -> float | None:
    """By elements."""
    elements = sum(t.numel for t in seen)
    return sum(t.numel * of(t) for t in seen) / elements if elements else None


def _joined(norms: Iterable[float]) -> float:
    """The norm of all tensors whose norms these are."""
    return math.hypot(*norms)


def _norm(tensors: Iterable[Tensor]) -> float:
    flat = (real_view(t.detach()) for t in tensors)
    return _joined(float(torch.linalg.vector_norm(t, dtype=torch.float64)) for t in flat)


def _momentum_norm(
    mine: Sequence[Member], state: Mapping[Tensor, State], group: Group
) -> float | None:
    rows = (row for member in mine for row in parts_of(member, group))
    found = [m for m in (_first_moment(row, state, group) for row in rows) if m is not None]
    return _norm(found) if found else None


def _first_moment(row: Member, state: Mapping[Tensor, State], group: Group) -> Tensor | None:
    held = entries_of(state.get(row.param) or {}, row.prefix)
    if not holds(held):
        return None
    codec = rung_of(held).m
    if codec != "none" and CODECS[codec].of_next_gradient:
        return None
    return read(row.tensor, held, group, row.param, row.shard).exp_avg


def _nonfinite(named: Iterable[tuple[str, Tensor | None]]) -> dict[str, int]:
    """Names of tensors, and how many of their elements are infinite or NaN; none without any."""
    counted = (
        (name, int((~torch.isfinite(real_view(t.detach()))).sum()))
        for name, t in named
        if t is not None and t.layout == torch.strided
    )
    return {name: count for name, count in counted if count}
