"""Checkpoints of torch.distributed.checkpoint that ranks write and read which one process plays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.tensor import Replicate, Shard

from cosmic import Cosmic
from helpers import normal
from played_ranks import placed
from worlds import ROWS, Options, numbers_of, ranks_of

#: Rows of whole blocks and of parts of them; fewer of them than ranks.
SIZES = {"up": (128, 260), "down": (260, 5)}


class Net(nn.Module):
    """Two layers of a rank's own shards: by rows or, of the matrices, by columns."""

    def __init__(self, mesh: Any, columns: bool = False) -> None:
        super().__init__()
        self.columns = columns
        self.up, self.down = nn.Linear(*SIZES["up"]), nn.Linear(*SIZES["down"])
        self.mesh = mesh
        for index, (name, param) in enumerate(list(self.named_parameters())):
            layer, _, kind = name.partition(".")
            setattr(getattr(self, layer), kind, nn.Parameter(self.cut(index, param)))

    def cut(self, seed: int, like: torch.Tensor) -> torch.Tensor:
        whole = normal(seed, *like.shape)
        if self.mesh is None:
            return whole
        by_columns = (Shard(1),) if whole.dim() > 1 else (Replicate(),)
        return placed(whole, self.mesh, by_columns if self.columns else ROWS)

    def train(self, optimizer: Cosmic, first: int, last: int) -> None:  # type: ignore[override]
        for step in range(first, last):
            for index, param in enumerate(self.parameters()):
                param.grad = self.cut(1000 * step + 1000 + index, param)
            optimizer.step()


def made(options: Options, mesh: Any, columns: bool = False) -> tuple[Net, Cosmic]:
    net = Net(mesh, columns)
    return net, Cosmic(net.named_parameters(), **{"lr": 1e-2, **options})


def everything(net: nn.Module, optimizer: Cosmic, flat: bool) -> dict[str, Any]:
    options = StateDictOptions(flatten_optimizer_state_dict=flat)
    return {
        "model": net.state_dict(),
        "optim": get_optimizer_state_dict(net, optimizer, options=options),
        "about": optimizer.state_dict()["cosmic"],
    }


def write(path: Path, ranks: int, given: Callable[[Any], dict[str, Any]]) -> None:
    """A checkpoint of what ``given`` says for each rank's mesh."""
    planners, plans, writers = [], [], []
    for rank in numbers_of(ranks):
        with ranks_of(ranks, rank) as mesh:
            planner, writer = DefaultSavePlanner(), FileSystemWriter(path)
            planner.set_up_planner(given(mesh), writer.storage_meta(), rank == 0)
            writer.set_up_storage_writer(rank == 0)
            plans.append(writer.prepare_local_plan(planner.create_local_plan()))
        planners.append(planner)
        writers.append(writer)
    plans, metadata = planners[0].create_global_plan(plans)
    plans = writers[0].prepare_global_plan(plans)
    results = [
        writer.write_data(planner.finish_plan(plan), planner).wait()
        for plan, planner, writer in zip(plans, planners, writers, strict=True)
    ]
    writers[0].finish(metadata, results)


def read(path: Path, net: nn.Module, optimizer: Cosmic, flat: bool) -> None:
    """The recipe of docs/state.md, on a rank that reads alone."""
    metadata = FileSystemReader(path).read_metadata().state_dict_metadata
    optimizer.shape_state(net, metadata, prefix="optim.")
    state = everything(net, optimizer, flat)
    load(state, checkpoint_id=path, no_dist=True)
    net.load_state_dict(state["model"])
    options = StateDictOptions(flatten_optimizer_state_dict=flat)
    set_optimizer_state_dict(net, optimizer, state["optim"], options=options)
    optimizer.load_state_dict({**optimizer.state_dict(), "cosmic": state["about"]})
