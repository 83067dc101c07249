"""Tensors of which each process holds the part that its shard of a parameter is, or has a say in.

A checkpoint has DTensors whose first dimension is the parameter's. Some are cut as the parameter
is. Others are tables, with a row for each of its rows: these are cut by rows alone, on every
dimension of the mesh that cuts the parameter, so that each shard has rows of its own.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
from torch import Tensor

from .shards import as_shard, is_sharded, local_of

__all__ = ["Sizes", "as_saved", "box_of", "check_dense", "cut_dims", "part_of", "table_box"]

Sizes: TypeAlias = tuple[int, ...]


def box_of(param: Tensor, shape: Sizes, *, table: bool = False) -> tuple[Sizes, Sizes]:
    """Where the part that is here of a tensor of this shape begins, and its shape."""
    if not is_sharded(param):
        return (0,) * len(shape), shape
    from torch.distributed.tensor._utils import _compute_local_shape_and_global_offset

    mesh = param.device_mesh
    local, start = _compute_local_shape_and_global_offset(
        shape, tuple(mesh.shape), list(mesh.get_coordinate()), _placements(param, table)
    )
    return tuple(map(int, start)), tuple(map(int, local))


def cut_dims(param: Tensor) -> frozenset[int]:
    """The dimensions along which a parameter's placements cut it, into however many pieces."""
    if not is_sharded(param):
        return frozenset()
    return frozenset(p.dim for p in param.placements if not p.is_replicate())


def table_box(param: Tensor) -> tuple[int, int]:
    """The first row of a parameter's tables that is here, and how many are."""
    start, local = box_of(param, (param.shape[0] if param.dim() else 1, 1), table=True)
    return start[0], local[0]


def as_saved(local: Tensor, param: Tensor, shape: Sizes, *, table: bool = False) -> Tensor:
    """The tensor of this shape of which ``local`` is the part that is here, in the same memory.

    Of a parameter that is no DTensor it is ``local``.
    """
    if not is_sharded(param):
        return local
    return as_shard(param, local, shape, _placements(param, table))


def part_of(value: object, param: Tensor, shape: Sizes, key: str, *, table: bool = False) -> Tensor:
    """What is here of a tensor of a checkpoint: of a DTensor that is cut as ``as_saved`` cuts its
    own, or of one that is here as a whole.

    Raises:
        ValueError: if it is no such tensor.
    """
    if not isinstance(value, Tensor) or tuple(value.shape) != shape:
        found = tuple(value.shape) if isinstance(value, Tensor) else repr(value)
        raise ValueError(
            f"its state has {key} of shape {found}; expected {shape}, which the checkpoint of a "
            f"parameter of shape {tuple(param.shape)} has: it may be another model's, or one "
            "process's that was cut on the way; its state_dict() is to be loaded as it is"
        )
    check_dense(value, key)
    if is_sharded(value):
        whole = all(placement.is_replicate() for placement in value.placements)
        if not whole:
            _check_cut(value, param, key, table)
            return local_of(value)
        value = local_of(value)
    start, local = box_of(param, shape, table=table)
    for dimension, (first, size) in enumerate(zip(start, local, strict=True)):
        value = value.narrow(dimension, first, size)
    return value


def check_dense(value: Tensor, key: str) -> None:
    """Raise ValueError unless what is here of a state tensor is dense, in memory of the CPU."""
    here = local_of(value)
    if here.layout != torch.strided or here.device.type != "cpu":
        raise ValueError(
            f"its state has {key} of layout {here.layout} on device {here.device}; expected a "
            "dense tensor on the CPU"
        )


def _check_cut(value: Any, param: Any, key: str, table: bool) -> None:
    expected = _placements(param, table) if is_sharded(param) else None
    same = is_sharded(param) and value.device_mesh == param.device_mesh
    if not same or tuple(value.placements) != expected:
        raise ValueError(
            f"its state has {key} with placements {tuple(value.placements)} on "
            f"{value.device_mesh}; expected {expected} on the parameter's mesh, or the whole "
            "tensor: redistribute() it, or load it with torch.distributed.checkpoint"
        )


def _placements(param: Any, table: bool) -> tuple[Any, ...]:
    placements = tuple(param.placements)
    if not table:
        return placements
    from torch.distributed.tensor import Shard

    return tuple(
        placement if placement.is_replicate() or placement.dim == 0 else Shard(0)
        for placement in placements
    )
