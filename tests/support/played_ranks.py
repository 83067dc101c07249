"""Ranks that one process plays: DTensors as each of them would hold them, without any other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Shard
from torch.distributed.tensor.debug import _clear_sharding_prop_cache
from torch.distributed.tensor.placement_types import Placement
from torch.testing._internal.distributed.fake_pg import FakeStore


@contextmanager
def played(rank: int, sizes: Sequence[int] | int) -> Iterator[DeviceMesh]:
    """The mesh as rank ``rank`` of its ranks sees it. No collective reaches another one."""
    shape = (sizes,) if isinstance(sizes, int) else tuple(sizes)
    world = 1
    for size in shape:
        world *= size
    # it holds meshes as another rank has seen them
    _clear_sharding_prop_cache()  # type: ignore[no-untyped-call]
    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=world)
    try:
        names = tuple(f"d{k}" for k in range(len(shape)))
        yield init_device_mesh("cpu", shape, mesh_dim_names=names)
    finally:
        dist.destroy_process_group()


def placed(
    whole: Tensor, mesh: DeviceMesh, placements: Sequence[Placement] = (Shard(0),)
) -> Tensor:
    """This rank's DTensor of a tensor that all of them know."""
    local = whole
    coordinate = mesh.get_coordinate()
    assert coordinate is not None
    for dim, placement in enumerate(placements):
        if isinstance(placement, Shard):
            chunks = torch.chunk(local, mesh.size(dim), placement.dim)
            at = coordinate[dim]
            empty = local.narrow(placement.dim, 0, 0)
            local = chunks[at] if at < len(chunks) else empty
    made: Tensor = DTensor.from_local(
        local.clone(), mesh, placements, run_check=False,
        shape=whole.shape, stride=whole.contiguous().stride(),
    )  # fmt: skip
    return made


def parameter(
    whole: Tensor, mesh: DeviceMesh, placements: Sequence[Placement] = (Shard(0),)
) -> nn.Parameter:
    return nn.Parameter(placed(whole, mesh, placements))
