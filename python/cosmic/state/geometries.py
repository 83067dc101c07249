"""Geometries of shards: of the whole tensor for what decides, of the shard for what is laid out."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import torch
from torch import Tensor

from .. import _core
from ..rungs import LEAST_COLUMNS, MATRIX, Geometry, Rung
from .places import real_view
from .shards import Place, Shard

__all__ = ["geometries_of", "geometry_here", "geometry_of_whole", "placed"]


def geometry_here(tensor: Tensor, shard: Shard | None, label: str = "the parameter") -> Geometry:
    """Of a tensor as it is laid out: its matrix is the whole one's, of which a shard has some rows
    or some of the columns, one or none among them, so that all shards have the same planes.

    Args:
        tensor: the shard.
        shard: which part it is; None: it is whole.
    """
    geometry = Geometry.of(tensor, label)
    if shard is None:
        return geometry
    matrix = _matrix_of(shard, _in_pairs(tensor, shard), label)
    return geometry._replace(matrix=matrix and matrix.here)


class _Matrix(NamedTuple):
    """The matrix that a tensor can be seen as: the shard's part, all of it, and whether shards have
    ``"rows"`` of it, ``"columns"`` or ``"both"``."""

    here: tuple[int, int]
    whole: tuple[int, int]
    cut: str


def placed(tensor: Tensor, shard: Shard | None, rung: Rung) -> tuple[Place | None, _Matrix | None]:
    """Where a row of the plan lies in its whole tensor, and what of the matrix it is that its rung
    keeps rows and columns of; None for what is whole."""
    if shard is None or not shard.cut:
        return None, None
    pairs = _in_pairs(tensor, shard)
    matrix = _matrix_of(shard, pairs, "the parameter") if rung.v in MATRIX else None
    return shard.place(real=2 if pairs else 1), matrix


def geometry_of_whole(
    whole: Tensor, shards: Counter[Shard], label: str = "the parameter"
) -> Geometry:
    """Of a tensor as it decides. It is no matrix where a shard has fewer columns than codecs of
    rows and columns can add up."""
    geometry = Geometry.of(whole, label)
    matrices = (_matrix_of(shard, whole.is_complex(), label) for shard, _ in _by_shape(shards))
    if any(matrix and 0 < matrix.here[1] < LEAST_COLUMNS for matrix in matrices):
        return geometry._replace(matrix=None)
    return geometry


def geometries_of(
    whole: Tensor, shards: Counter[Shard], label: str = "the parameter"
) -> tuple[tuple[int, Geometry], ...]:
    """The geometries of all shards of one copy of a tensor, and how many have each."""
    found: Counter[Geometry] = Counter()
    for shard, times in _by_shape(shards):
        found[geometry_here(_stand_in(shard, whole.dtype), shard, label)] += times
    return tuple((times, geometry) for geometry, times in found.items())


def _by_shape(shards: Counter[Shard]) -> list[tuple[Shard, int]]:
    """One shard of each shape, which is all that a geometry goes by, and how many there are."""
    times: Counter[tuple[int, ...]] = Counter()
    one: dict[tuple[int, ...], Shard] = {}
    for shard, count in shards.items():
        times[shard.local] += count
        one.setdefault(shard.local, shard)
    return [(one[local], count) for local, count in times.items()]


def _in_pairs(tensor: Tensor, shard: Shard) -> bool:
    """Whether it is complex, or the real view of such a shard."""
    return tensor.is_complex() or tensor.dim() > len(shard.local)


def _stand_in(shard: Shard, dtype: torch.dtype) -> Tensor:
    """A shard without memory, whose dimensions lie in the order of the whole tensor's."""
    order = sorted(range(len(shard.local)), key=lambda d: -_strides(shard)[d])
    like = torch.empty([shard.local[d] for d in order], dtype=dtype, device="meta")
    return like.permute([order.index(d) for d in range(len(order))])


def _strides(shard: Shard) -> tuple[int, ...]:
    return shard.strides or torch.empty(shard.shape, device="meta").stride()


def _matrix_of(shard: Shard, pairs: bool, label: str) -> _Matrix | None:
    """``pairs``: its elements are two numbers each, as those of a complex tensor."""
    dtype = torch.complex64 if pairs else torch.float32
    like = real_view(torch.empty_strided(shard.shape, _strides(shard), dtype=dtype, device="meta"))
    whole = _core.matrix_shape(tuple(like.shape), like.stride(), label, LEAST_COLUMNS)
    if whole is None:
        return None
    local = (*shard.local, 2) if pairs else shard.local
    order = _core.walk_order(tuple(like.shape), like.stride(), label)
    rows = here = columns = 1
    cut = set()
    for d in order or [d for d, size in enumerate(like.shape) if size > 1]:
        if d in shard.cut:
            cut.add("rows" if rows < whole[0] else "columns")
        if rows < whole[0]:
            rows, here = rows * like.shape[d], here * local[d]
        else:
            columns *= local[d]
    return _Matrix((here, columns), whole, "both" if len(cut) > 1 else next(iter(cut), "rows"))
