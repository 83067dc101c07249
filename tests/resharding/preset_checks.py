"""What real ranks find of presets whose parameters they share: steps, checkpoints, refusals."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from cosmic import Cosmic
from cosmic.presets import AXIOM, CASMO, Muon, Tiger, TurboAdam
from helpers import normal

RANKS = 2
SHAPES = {"up": (64, 128), "down": (50, 33), "few": (3, 256), "bias": (130,)}
PRESETS: dict[str, tuple[type[Cosmic], dict[str, Any]]] = {
    "casmo": (CASMO, {"global_sums": True}),
    "tiger": (Tiger, {}),
    "tiger-sums": (Tiger, {"global_sums": True}),
    "tiger-compat": (Tiger, {"compat": "2.2", "global_sums": True}),
    "turboadam-sums": (TurboAdam, {"global_sums": True}),
    "axiom": (AXIOM, {}),
    "axiom-clipped": (AXIOM, {"max_grad_norm": 0.5, "global_sums": True}),
    "muon": (Muon, {"state_dtype": "m4"}),
}
#: With sums of all ranks they differ from one process in last bits alone.
LIKE_ONE = [name for name, (_, options) in PRESETS.items() if options.get("global_sums")]


class Net(nn.Module):
    def __init__(self, mesh: DeviceMesh | None, matrices: bool) -> None:
        super().__init__()
        for index, (name, shape) in enumerate(SHAPES.items()):
            if len(shape) > 1 or not matrices:
                weight = cut(normal(index, *shape), mesh)
                self.register_parameter(name, nn.Parameter(weight))


def cut(whole: Tensor, mesh: DeviceMesh | None) -> Tensor:
    return whole if mesh is None else distribute_tensor(whole, mesh, [Shard(0)])


def made(kind: str, mesh: DeviceMesh | None) -> tuple[Net, Cosmic]:
    optimizer_type, options = PRESETS[kind]
    net = Net(mesh, optimizer_type is Muon)
    return net, optimizer_type(net.named_parameters(), lr=1e-2, **options)


def train(net: Net, optimizer: Cosmic, first: int, last: int, mesh: DeviceMesh | None) -> None:
    for step in range(first, last):
        for index, param in enumerate(net.parameters()):
            param.grad = cut(normal(100 * step + 50 + index, *param.shape), mesh)
        optimizer.step()


def wholes(net: Net) -> list[Tensor]:
    return [
        p.full_tensor() if isinstance(p, DTensor) else p.detach().clone() for p in net.parameters()
    ]


def run(folder: Path, rank: int) -> Iterator[tuple[str, Any]]:
    mesh = DeviceMesh("cpu", list(range(RANKS)))
    for kind in PRESETS:
        yield f"{kind}, resumed", _resumed(kind, mesh, folder / kind)
    for kind in LIKE_ONE:
        yield f"{kind}, apart", _apart(kind, mesh)
    for kind, asked in (("casmo", CASMO), ("tiger-compat", Tiger)):
        yield f"{kind}, refused", _refused(kind, asked, mesh)
    yield "not finite", _not_finite(mesh, rank)


def _resumed(kind: str, mesh: DeviceMesh, path: Path) -> list[bool]:
    net, optimizer = made(kind, mesh)
    train(net, optimizer, 0, 3, mesh)
    same = []
    straight, followed = made(kind, mesh)
    train(straight, followed, 0, 5, mesh)
    for flat in (False, True):
        again, resumed = made(kind, mesh)
        options = StateDictOptions(flatten_optimizer_state_dict=flat)
        place = path.with_suffix(f".{flat}")
        save(_everything(net, optimizer, options), checkpoint_id=place)
        metadata = FileSystemReader(place).read_metadata().state_dict_metadata
        resumed.shape_state(again, metadata, prefix="optim.")
        found = _everything(again, resumed, options)
        load(found, checkpoint_id=place)
        again.load_state_dict(found["model"])
        set_optimizer_state_dict(again, resumed, found["optim"], options=options)
        resumed.load_state_dict({**resumed.state_dict(), **found["about"]})
        train(again, resumed, 3, 5, mesh)
        pairs = zip(wholes(straight), wholes(again), strict=True)
        same.append(all(torch.equal(one, other) for one, other in pairs))
    return same


def _everything(net: Net, optimizer: Cosmic, options: StateDictOptions) -> dict[str, Any]:
    saved = optimizer.state_dict()
    about = {key: value for key, value in saved.items() if key not in ("state", "param_groups")}
    state = get_optimizer_state_dict(net, optimizer, options=options)
    return {"model": net.state_dict(), "optim": state, "about": about}


def _apart(kind: str, mesh: DeviceMesh) -> float:
    """How far a run is from one process's, as a share of what that has moved."""
    net, optimizer = made(kind, mesh)
    train(net, optimizer, 0, 4, mesh)
    alone, one = made(kind, None)
    start = wholes(alone)
    train(alone, one, 0, 4, None)
    triples = zip(wholes(net), wholes(alone), start, strict=True)
    return max(float((a - b).norm() / (b - c).norm()) for a, b, c in triples)


def _refused(kind: str, optimizer_type: type[Cosmic], mesh: DeviceMesh) -> str:
    options = {k: v for k, v in PRESETS[kind][1].items() if k != "global_sums"}
    net = Net(mesh, matrices=False)
    optimizer = optimizer_type(net.named_parameters(), lr=1e-2, **options)
    before = wholes(net)
    try:
        train(net, optimizer, 0, 1, mesh)
    except ValueError as error:
        assert all(torch.equal(a, b) for a, b in zip(before, wholes(net), strict=True))
        return str(error)
    return "stepped"


def _not_finite(mesh: DeviceMesh, rank: int) -> list[str]:
    """One infinite element on rank 0, where gradients are clipped first."""
    net, optimizer = made("axiom-clipped", mesh)
    train(net, optimizer, 0, 1, mesh)
    before, said = wholes(net), []
    for param in net.parameters():
        param.grad = cut(normal(1, *param.shape), mesh)
    gradient: Any = net.up.grad
    if rank == 0:
        gradient.to_local()[0, 0] = math.inf
    try:
        optimizer.step()
    except RuntimeError as error:
        said.append(str(error))
    dist.barrier()
    assert all(torch.equal(a, b) for a, b in zip(before, wholes(net), strict=True))
    return said
