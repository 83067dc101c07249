"""What controllers look at, and the only way by which they move an option."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..state.groups import Group
from ..state.members import plan_rows
from ..state.places import real_numel, real_view
from ..state.roles import ROLES
from ..state.slices import Slice
from ..step.plans import StatisticsRow
from ..threads import one_thread

__all__ = [
    "Move", "Observation", "TensorStats", "groups_of", "observed_tensors", "param_rms", "redo",
    "undo",
]  # fmt: skip

#: What a group has that is no option to a controller, and who sets it.
_NOT_MOVED = {
    "lr": "which learning rate schedulers set; expected 'lr_scale', which multiplies it: scale_lr",
    "params": "which holds its parameters; expected an option",
    "param_names": "which holds its parameters' names; expected an option",
}


class TensorStats(NamedTuple):
    """What the last step saw of one tensor, or of one part of it.

    Attributes:
        name: the parameter's name, or its index as text.
        group: number of its parameter group.
        part: name of the part, such as ``"q"``; None of a whole parameter.
        numel: real elements.
        gradient_abs: mean absolute gradient.
        update_rms: root mean square of the update ``c u``, with the gate's factor and before the
            learning rate.
        gate: the gate's factor ``c``; 1 without a gate.
        lr_scale: factor on the group's learning rate that the step had.
        param_rms: root mean square of the parameter after the step; NaN where no gate asks for it.
        param: the parameter, or the part of it.
    """

    name: str
    group: int
    part: str | None
    numel: int
    gradient_abs: float
    update_rms: float
    gate: float
    lr_scale: float
    param_rms: float
    param: Tensor


class Move(NamedTuple):
    """An option of a group that a controller has moved."""

    group: int
    option: str
    before: Any
    after: Any


def observed_tensors(
    groups: Sequence[Group],
    rows: Iterable[StatisticsRow],
    scales: Mapping[tuple[Tensor, Slice | None], float],
) -> list[TensorStats]:
    """The rows of a plan with the names of what they are of.

    Args:
        rows: the plan's ``statistics()``.
        scales: the factor on the learning rate of each parameter or part, as the plan has it.
    """
    everyone = {member.index: member for member in plan_rows(groups)}
    out = []
    for index, group, gradient_abs, update_rms, gate, rms in rows:
        member = everyone[index]
        part = member.part.name if member.part else None
        out.append(
            TensorStats(
                member.param_name, group, part, real_numel(member.tensor), gradient_abs, update_rms,
                gate, scales.get((member.param, member.part), 1.0), rms, member.tensor,
            )
        )  # fmt: skip
    return out


class Observation:
    """What one step left behind, handed to every controller whose turn it is.

    Attributes:
        step: steps taken so far, this one included.
        groups: the optimizer's parameter groups; to be read. Options are moved by ``move``.
        tensors: what the step saw of each tensor that it stepped.
        moves: what has been moved so far.
        multiplied: those of them that multiplied what they found.
    """

    def __init__(
        self,
        step: int,
        groups: Sequence[Group],
        tensors: Iterable[TensorStats] | Callable[[], Iterable[TensorStats]],
        role_scales: Mapping[str, float] | None = None,
    ) -> None:
        """``tensors``: or what finds them, once a controller looks; ``role_scales``: the factors
        that a group has whose ``lr_scale`` is None."""
        self.step = step
        self.groups = groups
        self._tensors = tensors
        self.moves: list[Move] = []
        self.multiplied: list[Move] = []
        self._role_scales = role_scales
        self._param_rms: dict[tuple[str, str | None], float] = {}

    @cached_property
    def tensors(self) -> tuple[TensorStats, ...]:
        found = self._tensors
        return tuple(found() if callable(found) else found)

    def of(self, word: str) -> Iterator[TensorStats]:
        """Tensors of the groups whose ``tag`` or ``role`` is ``word``."""
        chosen = set(groups_of(self.groups, word))
        return (tensor for tensor in self.tensors if tensor.group in chosen)

    def param_rms(self, tensor: TensorStats) -> float:
        """A tensor's root mean square: the step's own sum, or else one look at the parameter."""
        if not math.isnan(tensor.param_rms):
            return tensor.param_rms
        place = tensor.name, tensor.part
        if place not in self._param_rms:
            self._param_rms[place] = param_rms(tensor.param)
        return self._param_rms[place]

    def move(self, group: int, option: str, value: Any, *, multiplies: bool = False) -> None:
        """Set an option of a group.

        Args:
            multiplies: the value is a multiple of what the option was, whoever had set it.

        Raises:
            ValueError: for ``lr``, which schedulers set, and for a group or an option that there is
                not.
        """
        options = self._options(group)
        if option in _NOT_MOVED:
            raise ValueError(f"param_groups[{group}] has {option!r}, {_NOT_MOVED[option]}")
        if option not in options:
            known = ", ".join(sorted(str(name) for name in set(options) - set(_NOT_MOVED)))
            raise ValueError(f"param_groups[{group}] has no option {option!r}; it has {known}")
        before = options[option]
        if value != before:
            options[option] = value
            self.moves.append(Move(group, option, before, value))
            if multiplies:
                self.multiplied.append(self.moves[-1])

    def _options(self, group: int) -> Group:
        if type(group) is not int or not 0 <= group < len(self.groups):
            raise ValueError(
                f"there is no param_groups[{group!r}]; expected a group's number, from 0 to "
                f"{len(self.groups) - 1}"
            )
        return self.groups[group]

    def scale_lr(self, group: int, factor: float) -> None:
        """Multiply a group's ``lr_scale`` by a factor: the number, or those of all roles;
        entries of parts, which multiply these, stay.

        None counts as what the optimizer takes it for: 1, or the policy's factors by role.
        """
        scales = {role: x * factor for role, x in self.lr_scales(group).items()}
        self.set_lr_scales(group, scales)

    def lr_scales(self, group: int) -> dict[str, float]:
        """A group's factors on its learning rate: that of all its tensors under ``""``, or one of
        each role."""
        scale = self._options(group)["lr_scale"]
        if scale is None and not self._role_scales:
            scale = 1.0
        if isinstance(scale, int | float):
            return {"": scale}
        by_role = self._by_role(scale)
        return {role: by_role[role] for role in ROLES}

    def set_lr_scales(self, group: int, scales: Mapping[str, float]) -> None:
        """Put multiples of what ``lr_scales`` gave in their place."""
        if "" in scales:
            self.move(group, "lr_scale", scales[""], multiplies=True)
        else:
            whole = self._by_role(self._options(group)["lr_scale"])
            self.move(group, "lr_scale", {**whole, **scales}, multiplies=True)

    def scale_lr_of_part(self, tensor: TensorStats, factor: float) -> None:
        """Multiply the entry that ``lr_scale`` of its group has, or gets, for a tensor's part; it
        multiplies that of the tensor's role."""
        if tensor.part is None:
            raise ValueError(f"{tensor.name} is no part of a parameter")
        scales = self._by_role(self._options(tensor.group)["lr_scale"])
        scales[tensor.part] = scales.get(tensor.part, 1.0) * factor
        self.move(tensor.group, "lr_scale", scales, multiplies=True)

    def _by_role(self, scale: float | Mapping[str, float] | None) -> dict[str, float]:
        """A group's ``lr_scale`` with an entry for every role."""
        if isinstance(scale, int | float):
            return dict.fromkeys(ROLES, float(scale))
        known = scale if scale is not None else self._role_scales or {}
        return {**dict.fromkeys(ROLES, 1.0), **known}

    def undo(self) -> None:
        """Take all moves back, the last one first."""
        undo(self.groups, self.moves)
        self.moves.clear()
        self.multiplied.clear()


def undo(groups: Sequence[Group], moves: Sequence[Move]) -> None:
    """Take moves back, the last one first; an option that has been set since stays."""
    for move in reversed(moves):
        _exchange(groups, move, move.after, move.before)


def redo(groups: Sequence[Group], moves: Sequence[Move]) -> None:
    """Make moves again that were taken back."""
    for move in moves:
        _exchange(groups, move, move.before, move.after)


def _exchange(groups: Sequence[Group], move: Move, now: Any, then: Any) -> None:
    group = groups[move.group] if move.group < len(groups) else {}
    if move.option in group and (group[move.option] is now or group[move.option] == now):
        group[move.option] = then


def groups_of(groups: Sequence[Group], word: str) -> list[int]:
    """Numbers of the groups whose ``tag`` or ``role`` is ``word``."""
    return [k for k, g in enumerate(groups) if word in (g.get("tag"), g.get("role"))]


def param_rms(param: Tensor) -> float:
    """Root mean square of a parameter, rounded to float32.

    Summed in float64 by one thread and rounded, so that it does not depend on their number.
    """
    flat = real_view(param.detach())
    if not flat.numel():
        return 0.0
    with one_thread():
        norm = float(torch.linalg.vector_norm(flat, dtype=torch.float64))
    rms = norm / math.sqrt(flat.numel())
    most = torch.finfo(torch.float32).max
    return float(struct.unpack("f", struct.pack("f", rms))[0]) if rms <= most else rms
