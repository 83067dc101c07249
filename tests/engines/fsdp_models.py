"""A language model on shards, and shards of tensor parallel layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)

from clients.setting import Tokens, batches, tiny_gpt2
from cosmic import Cosmic
from engine_models import gap
from helpers import normal

STEPS = 10
#: Rows of a step: as many for each of 1, 2 and 3 ranks.
BATCH = 12
KINDS: dict[str, dict[str, Any]] = {
    "default": {},
    "fp32": {"state_dtype": "fp32"},
    "u4+v4": {"state_dtype": "u4+v4"},
}


def language(rank: int, mesh: DeviceMesh | None, options: Mapping[str, Any]) -> list[float]:
    """Losses of the whole batch, of GPT-2 under FSDP2; without a mesh in one process alone."""
    ranks = 1 if mesh is None else mesh.size()
    model = tiny_gpt2(n_embd=128)
    if mesh is not None:
        for block in model.transformer.h:
            fully_shard(block, mesh=mesh)
        fully_shard(model, mesh=mesh)
    optimizer = Cosmic(model.named_parameters(), lr=5e-3, weight_decay=0.1, **options)
    losses = []
    share = slice(rank * BATCH // ranks, (rank + 1) * BATCH // ranks)
    for batch in batches(Tokens(), STEPS, BATCH):
        loss = model(**{key: rows[share] for key, rows in batch.items()}).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        mean = loss.detach() / ranks
        if mesh is not None:
            dist.all_reduce(mean, group=mesh.get_group())
        losses.append(float(mean))
    return losses


class Layers(nn.Module):
    """One layer whose rows are cut, one whose columns are."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.up = nn.Linear(256, 512)
        self.down = nn.Linear(512, 256)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down(self.up(x).relu())
        return out


def tensor_parallel(mesh: DeviceMesh, options: Mapping[str, Any]) -> dict[str, Any]:
    """How far parameters are from those of one process, and how they lie."""
    model, twin = Layers(), Layers()
    parallelize_module(model, mesh, {"up": ColwiseParallel(), "down": RowwiseParallel()})
    optimizers = [Cosmic(m.named_parameters(), lr=1e-2, **options) for m in (model, twin)]
    for step in range(3):
        for module, optimizer in zip((model, twin), optimizers, strict=True):
            module(normal(step, 8, 256)).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
    wholes = [p.full_tensor() if isinstance(p, DTensor) else p for p in model.parameters()]
    return {
        "gap": gap(wholes, twin.parameters()),
        "placements": {
            name: str(p.placements[0]) for name, p in model.named_parameters()
            if isinstance(p, DTensor)
        },
        "bytes": optimizers[0].state_bytes(),
        "bytes alone": optimizers[1].state_bytes(),
        "rungs": {i.name: i.rung for i in optimizers[0].tiers()},
    }  # fmt: skip
