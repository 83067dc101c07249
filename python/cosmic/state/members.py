"""Parameters by their places in the groups, and what messages call them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from .._core import UnsupportedTensorError
from .groups import Group, name_of, placed_params
from .shards import Shard, every_shard, is_sharded, local_of, shard_of, whole_of
from .slices import Slice, slices_of

__all__ = ["Member", "check_param", "listed", "members", "naming", "parts_of", "plan_rows"]

_NAMED = 3  # parameters that a message names before it says how many more there are


@dataclass(frozen=True)
class Member:
    """A parameter's place in the optimizer, or that of a part of one, which is a tensor of its own
    in all but this: gradients come, and state is kept, by the parameter.

    Of a DTensor what is stepped is the shard that is here.

    Attributes:
        index: the parameter's number; a part's own, above those of all parameters.
        group: number of its group.
        param: the parameter.
        name: the user's, or the index as text; of a part with the part's name in brackets.
        label: for messages.
        param_name: the parameter's, also of a part.
        part: which part it is; None for a parameter that is whole.
    """

    index: int
    group: int
    param: Tensor
    name: str
    label: str
    param_name: str
    part: Slice | None = None

    @property
    def takes_gradients(self) -> bool:
        """Whether a gradient may come at the next step; a lazy module's parameter is made first."""
        return self.param.requires_grad and not is_lazy(self.param)

    @cached_property
    def shard(self) -> Shard | None:
        """Which part of it all is here; None: all of it.

        Raises:
            ValueError: as of ``shard_of``.
        """
        shard = shard_of(self.param)
        if shard is None or self.part is None:
            return shard
        return shard.narrowed(self.part.dimension, self.part.start, self.part.size)

    @cached_property
    def shards(self) -> Counter[Shard]:
        """All its shards, of one copy; none of what is no DTensor."""
        every = every_shard(self.param)
        if self.part is None:
            return every
        of, start, size = self.part.dimension, self.part.start, self.part.size
        return Counter(shard.narrowed(of, start, size) for shard in every.elements())

    @property
    def whole(self) -> Tensor:
        """What decides: the tensor on all processes together, without memory if it is sharded."""
        if not is_sharded(self.param):
            return self.tensor
        whole = whole_of(self.param)
        return whole if self.part is None else self.part.of(whole)

    @cached_property
    def part_here(self) -> tuple[int, int, int] | None:
        """Of a part, its dimension, and where it begins in what is here of the parameter, and how
        long it is there; None for a parameter that is whole."""
        if self.part is None:
            return None
        of, start, size = self.part.dimension, self.part.start, self.part.size
        shard = shard_of(self.param)
        if shard is None:
            return of, start, size
        first = min(max(start - shard.start[of], 0), shard.local[of])
        return of, first, shard.narrowed(of, start, size).local[of]

    @property
    def tensor(self) -> Tensor:
        """What is stepped: the parameter, or the part of it."""
        local = local_of(self.param)
        return local if self.part_here is None else local.detach().narrow(*self.part_here)

    @property
    def gradient(self) -> Tensor | None:
        """The gradient of that."""
        gradient = None if self.param.grad is None else local_of(self.param.grad)
        if gradient is None or self.part_here is None or gradient.layout != torch.strided:
            return gradient  # the step refuses those of other layouts
        return gradient.narrow(*self.part_here)

    @property
    def prefix(self) -> str:
        """What its entries begin with in its parameter's state."""
        return "" if self.part is None else self.part.prefix

    @property
    def is_first(self) -> bool:
        """Whether no other part of its parameter comes before it."""
        return self.part is None or self.part.number == 0


def members(groups: Sequence[Group]) -> Iterator[Member]:
    """Every parameter of the groups, in order.

    Raises:
        ValueError, TypeError: for what is no parameter, naming its place.
    """
    for index, (g, k, param) in enumerate(placed_params(groups)):
        name = name_of(groups[g], k)
        if name is None:
            place = f"parameter {index} (param_groups[{g}]['params'][{k}])"
            yield Member(index, g, param, str(index), place, str(index))
        else:
            yield Member(index, g, param, name, f"parameter {name!r}", name)


def plan_rows(groups: Sequence[Group]) -> Iterator[Member]:
    """Every tensor that is stepped by itself, in order: the parameters, each in its group's parts.

    Raises:
        ValueError, TypeError: as of ``members``, and for parts that do not fit their parameter.
    """
    for member in members(groups):
        yield from parts_of(member, groups[member.group])


def parts_of(member: Member, group: Group) -> tuple[Member, ...]:
    """A parameter's parts, or the parameter itself where its group has none for it.

    Raises:
        ValueError: if they do not fit the parameter.
    """
    with naming(member):
        slices = slices_of(group, member.param_name, member.param)
    return tuple(_part(member, part) for part in slices) or (member,)


def _part(member: Member, part: Slice) -> Member:
    label = f"parameter {member.name + f'[{part.name}]'!r}"
    if member.label != f"parameter {member.name!r}":  # without a name of the user's
        label = f"part {part.name!r} of {member.label}"
    name = f"{member.name}[{part.name}]"
    return replace(member, index=part.row_index(member.index), name=name, label=label, part=part)


def check_param(param: Tensor, label: str) -> None:
    """Refuse at once what could never be stepped. A lazy module's parameter that is not made yet
    is looked at when it is.

    Raises:
        UnsupportedTensorError: naming the parameter.
    """
    if is_lazy(param):
        return
    if not (param.is_floating_point() or param.is_complex()):
        raise UnsupportedTensorError(
            f"{label} is {param.dtype}; expected a floating or complex dtype"
        )
    _check_shard(param, label)
    here = local_of(param)
    if here.layout != torch.strided or here.device.type != "cpu":
        raise UnsupportedTensorError(
            f"{label} has layout {here.layout} on device {here.device}; COSMIC steps dense "
            "(strided) tensors on the CPU"
            + (": make the optimizer after to_empty(device='cpu')" if here.is_meta else "")
        )
    if here.is_conj() or here.is_neg():
        raise UnsupportedTensorError(
            f"{label} is a lazily conjugated or negated view, whose memory holds other values; "
            "use its resolve_conj().resolve_neg()"
        )


def _long(sizes: tuple[int, ...], strides: tuple[int, ...]) -> list[int]:
    """Dimensions of more than one element, the farthest apart first; none of what has none."""
    dims = [d for d, size in enumerate(sizes) if size > 1] if all(sizes) else []
    return sorted(dims, key=lambda d: -strides[d])


def _check_shard(param: Tensor, label: str) -> None:
    """Refuse a DTensor of which another part is here than its placements say, or none."""
    try:
        shard = shard_of(param)
    except ValueError as error:
        raise UnsupportedTensorError(f"{label}: {error}") from None
    if shard is None:
        return
    here = local_of(param)
    if _long(shard.local, here.stride()) != _long(shard.local, param.stride()):
        raise UnsupportedTensorError(
            f"{label} is a DTensor of stride {param.stride()} whose shard has stride "
            f"{here.stride()}, another order of dimensions; distribute its contiguous()"
        )
    if tuple(here.shape) != shard.local:
        raise UnsupportedTensorError(
            f"{label} is a DTensor of shape {shard.shape} of which {shard.local} should be here, "
            f"but its local tensor has shape {tuple(here.shape)}; give DTensor.from_local the "
            "whole tensor's shape and stride, or use distribute_tensor"
        )


@contextmanager
def naming(member: Member) -> Iterator[None]:
    """Errors of what is done within name the parameter."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise type(error)(f"{member.label}: {error}") from None


def listed(names: list[str]) -> str:
    """Names for a message: the first of them, and how many more there are."""
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
