"""Parameters that are shards: torch's DTensors, of which a process holds a part.

What decides looks at the whole tensor, what is laid out at the part that is here. Nothing in this
module communicates: all follows from the whole shape, the mesh and the placements.
"""

from __future__ import annotations

import functools
import itertools
import sys
from collections import Counter
from math import prod
from typing import Any, NamedTuple, TypeAlias, TypeGuard

import torch
from torch import Tensor

__all__ = [
    "Place", "Shard", "as_shard", "every_shard", "is_sharded", "local_of", "on_several_ranks",
    "shard_of", "whole_of",
]  # fmt: skip

_BLOCK = 128
_Sizes: TypeAlias = tuple[int, ...]
_Box: TypeAlias = tuple[_Sizes, _Sizes]


class Place(NamedTuple):
    """Where the blocks of a shard lie among those of the whole tensor.

    Local block ``k`` is block ``first + k // local_per_row * global_per_row + k % local_per_row``.

    Attributes:
        first: block of the whole tensor in which the shard begins.
        local_per_row: blocks of a row of the shard; a row is what lies together in both.
        global_per_row: blocks of that row in the whole tensor.
        lead: elements of the first block that are another shard's.
        numel: elements of the whole tensor.
        rows: its first dimension.
    """

    first: int
    local_per_row: int
    global_per_row: int
    lead: int
    numel: int
    rows: int


class Shard(NamedTuple):
    """A box of a larger tensor.

    Attributes:
        shape: of the whole tensor.
        start: of the box, along each dimension.
        local: its shape; some dimension may be 0.
        strides: of the whole tensor, which say the order of its dimensions in memory; none: that of
            the indices.
        cut: dimensions that some process's shard has not all of, in order.
    """

    shape: tuple[int, ...]
    start: tuple[int, ...]
    local: tuple[int, ...]
    strides: tuple[int, ...] = ()
    cut: tuple[int, ...] = ()

    def narrowed(self, dimension: int, start: int, size: int) -> Shard:
        """What the shard has of a part of the whole tensor: its elements along a dimension from
        ``start`` on; maybe nothing."""
        begin, end = self.start[dimension], self.start[dimension] + self.local[dimension]
        first = min(max(begin - start, 0), size)
        last = min(max(end - start, first), size)

        def at(sizes: tuple[int, ...], value: int) -> tuple[int, ...]:
            return (*sizes[:dimension], value, *sizes[dimension + 1 :])

        return self._replace(
            shape=at(self.shape, size),
            start=at(self.start, first),
            local=at(self.local, last - first),
        )

    @property
    def split(self) -> tuple[int, ...]:
        """The dimensions that are cut."""
        sizes = zip(self.shape, self.local, strict=True)
        return tuple(d for d, (whole, here) in enumerate(sizes) if whole != here)

    def place(self, *, real: int = 1) -> Place:
        """Where its blocks lie. Of a shard whose rows are no whole blocks they are its own, but
        where all state is plain, one number an element, which needs no blocks; the core knows.

        Args:
            real: numbers of an element: 2 of a complex one.
        """
        last = self.split[-1] if self.split else 0
        inner = prod(self.shape[last + 1 :]) * real
        local, whole = self.local[last] * inner if self.shape else 1, prod(self.shape) * real
        before = self.start[last] * inner if self.shape else 0
        rows = self.shape[0] if self.shape else 1
        if last == 0:
            far = max(local, 1)
            return Place(before // _BLOCK, far, far, before % _BLOCK, whole, rows)
        row = self.shape[last] * inner
        between = prod(self.shape[1:last])
        first = self.start[0] * between * row + before
        is_box = set(self.split) <= {0, last}
        if not is_box or local == 0 or any(n % _BLOCK for n in (row, local, before)):
            return Place(first // _BLOCK, 1, 1, 0, whole, rows)
        return Place(first // _BLOCK, local // _BLOCK, row // _BLOCK, 0, whole, rows)


def is_sharded(tensor: object) -> TypeGuard[Any]:
    """Whether a tensor is a DTensor, on whatever mesh; without importing what defines them."""
    kind = type(tensor)
    if kind is Tensor or kind is torch.nn.Parameter:
        return False
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def on_several_ranks(tensor: object) -> TypeGuard[Any]:
    """Whether a tensor is a DTensor that more ranks than this one have to do with."""
    return is_sharded(tensor) and tensor.device_mesh.size() > 1


def local_of(tensor: Tensor) -> Tensor:
    """The memory that is here: of a DTensor its shard, of any other the tensor itself.

    It is no part of autograd's graph.
    """
    found: Tensor = tensor._local_tensor if is_sharded(tensor) else tensor
    return found.detach() if found is not tensor else tensor


def shard_of(tensor: Tensor) -> Shard | None:
    """Which part of a DTensor is here; None for any other tensor.

    Raises:
        ValueError: for a DTensor whose mesh this process is no part of, that is a partial sum, or
            whose shards are no boxes.
    """
    if not is_sharded(tensor):
        return None
    mesh, placements = tensor.device_mesh, tensor.placements
    if any(placement.is_partial() for placement in placements):
        raise ValueError(
            f"it is a DTensor with placements {tuple(placements)}, a sum whose parts are still to "
            "be added; expected shards or replicas: redistribute() it first"
        )
    coordinate = mesh.get_coordinate()
    if coordinate is None:
        raise ValueError(
            f"it is a DTensor on {mesh}, which this process (rank {mesh.get_rank()}) is no part of"
        )
    shape = tuple(tensor.shape)
    if not _are_boxes(shape, tuple(mesh.shape), tuple(placements)):
        raise ValueError(
            f"it is a DTensor of shape {shape} with placements {tuple(placements)} on {mesh}, "
            "whose shards have not neighbouring elements; expected strided shards only as FSDP "
            "makes them of tensor parallel ones, of a dimension that all their ranks divide"
        )
    local, start = _box(shape, tuple(mesh.shape), tuple(placements), tuple(coordinate))
    return Shard(shape, start, local, tuple(tensor.stride()), _cut(tensor))


def whole_of(tensor: Tensor) -> Tensor:
    """What has the whole tensor's shape, order of dimensions and dtype, without memory; any tensor
    that is not sharded is that itself."""
    if not is_sharded(tensor):
        return tensor
    return torch.empty_strided(
        tuple(tensor.shape), tensor.stride(), dtype=tensor.dtype, device="meta"
    )


def as_shard(
    param: Tensor, local: Tensor, shape: _Sizes | None = None, placements: Any = None
) -> Tensor:
    """A tensor that has of each process what ``local`` is here, as a parameter's shards lie: a
    DTensor of its mesh, in the same memory; of a parameter that is no DTensor, ``local``.

    Args:
        shape: of the whole tensor; None: the parameter's.
        placements: on the mesh; None: the parameter's.
    """
    if not is_sharded(param):
        return local
    like = param if shape is None else torch.empty(shape, device="meta")
    made: Tensor = type(param).from_local(
        local, param.device_mesh, param.placements if placements is None else placements,
        run_check=False, shape=like.shape, stride=like.stride(),
    )  # fmt: skip
    return made.detach()


def every_shard(tensor: Tensor) -> Counter[Shard]:
    """The shards of one copy of a DTensor, replicas of a shard counted once; none of another."""
    if not is_sharded(tensor):
        return Counter()
    shape, mesh = tuple(tensor.shape), tuple(tensor.device_mesh.shape)
    strides, cut = tuple(tensor.stride()), _cut(tensor)
    return Counter(
        Shard(shape, start, local, strides, cut)
        for local, start in _boxes(shape, mesh, tuple(tensor.placements))
    )


def _cut(tensor: Any) -> tuple[int, ...]:
    sizes = zip(tensor.device_mesh.shape, tensor.placements, strict=True)
    dims = {placement.dim for size, placement in sizes if size > 1 and _cuts(placement)}
    return tuple(sorted(dims))


def _cuts(placement: Any) -> bool:
    """Whether it is a shard, of neighbouring elements or of strided ones."""
    return not (placement.is_replicate() or placement.is_partial())


@functools.lru_cache(maxsize=1024)
def _are_boxes(shape: _Sizes, mesh: _Sizes, placements: tuple[Any, ...]) -> bool:
    """Whether strided shards are cut again, into what is together."""
    for k, placement in enumerate(placements):
        strides = getattr(placement, "split_factor", 1)
        if strides == 1:
            continue
        of = [
            j for j, other in enumerate(placements) if getattr(other, "dim", None) == placement.dim
        ]
        within = prod(mesh[j] for j in of if j > k)
        if within != strides or shape[placement.dim] % prod(mesh[j] for j in of):
            return False
    return True


@functools.lru_cache(maxsize=1024)  # a model has few shapes, and a mesh many places
def _boxes(shape: _Sizes, mesh: _Sizes, placements: tuple[Any, ...]) -> tuple[_Box, ...]:
    """Of every shard of one copy."""
    sizes = zip(mesh, placements, strict=True)
    places = [range(size if _cuts(placement) else 1) for size, placement in sizes]
    return tuple(_box(shape, mesh, placements, at) for at in itertools.product(*places))


def _box(shape: _Sizes, mesh: _Sizes, placements: tuple[Any, ...], coordinate: _Sizes) -> _Box:
    """Shape and start of the shard at a place of the mesh."""
    from torch.distributed.tensor._utils import _compute_local_shape_and_global_offset

    local, start = _compute_local_shape_and_global_offset(shape, mesh, list(coordinate), placements)
    return tuple(map(int, local)), tuple(map(int, start))
