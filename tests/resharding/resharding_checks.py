"""What real ranks find under FSDP2: checkpoints of meshes of one, two and three of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from cosmic import Cosmic
from helpers import normal

RANKS = 3
KINDS: dict[str, dict[str, Any]] = {
    "default": {"min_compress_size": 1},
    "budget": {"budget": "20%", "reallocate_every": 2},
    "u4+v4": {"state_dtype": "u4+v4", "min_compress_size": 1, "gate": "snr"},
    "q8": {"state_dtype": "q8", "min_compress_size": 1},
    "bf16": {"state_dtype": "bf16"},
    "muon": {"matrix_rule": "muon", "gate": "agc"},
}
FLAT = ("default", "budget", "bf16")


class Net(nn.Module):
    """Rows of whole blocks, of parts of blocks, and fewer rows than ranks."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.up, self.norm = nn.Linear(128, 260), nn.LayerNorm(260)
        self.down = nn.Linear(260, 2)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.down(self.norm(self.up(x)).relu())
        return found


def run(folder: Path, rank: int) -> Iterator[tuple[str, Any]]:
    """Every check, by all ranks."""
    meshes = {ranks: DeviceMesh("cpu", list(range(ranks))) for ranks in (1, 2, 3)}
    for kind in KINDS:
        for ranks, mesh in meshes.items():
            if rank < ranks:
                path = folder / f"{kind} {ranks}"
                yield f"{kind}, {ranks}", _trained_saved_and_trained(kind, mesh, path)
    dist.barrier()
    for kind in KINDS:
        for before in meshes:
            for after, mesh in meshes.items():
                if rank < after:
                    path = folder / f"{kind} {before}"
                    yield f"{kind}, {before} to {after}", _loaded_and_trained(kind, mesh, path)
    for kind in ("default", "budget", "q8"):
        for broadcast in (False, True):
            how = "from rank 0" if broadcast else "from all"
            yield f"whole {kind}, {how}", _whole(kind, meshes[3], broadcast)
    yield "another model", _another(meshes[3])


def _made(kind: str, mesh: DeviceMesh) -> tuple[Net, Cosmic]:
    net = Net()
    fully_shard(net.up, mesh=mesh)
    fully_shard(net, mesh=mesh)
    return net, Cosmic(net.named_parameters(), **{"lr": 1e-2, **KINDS[kind]})


def _train(net: Net, optimizer: Cosmic, first: int, last: int) -> None:
    for step in range(first, last):
        optimizer.zero_grad()
        net(normal(10 * step + dist.get_rank(), 16, 128)).square().mean().backward()
        optimizer.step()


def _everything(net: Net, optimizer: Cosmic, flat: bool) -> dict[str, Any]:
    options = StateDictOptions(flatten_optimizer_state_dict=flat)
    return {
        "model": get_model_state_dict(net),
        "optim": get_optimizer_state_dict(net, optimizer, options=options),
        "about": optimizer.state_dict()["cosmic"],
    }


def _load(net: Net, optimizer: Cosmic, path: Path, flat: bool, mesh: DeviceMesh) -> None:
    metadata = FileSystemReader(path).read_metadata().state_dict_metadata
    optimizer.shape_state(net, metadata, prefix="optim.")
    state = _everything(net, optimizer, flat)
    load(state, checkpoint_id=path, process_group=mesh.get_group())
    set_model_state_dict(net, state["model"])
    options = StateDictOptions(flatten_optimizer_state_dict=flat)
    set_optimizer_state_dict(net, optimizer, state["optim"], options=options)
    optimizer.load_state_dict({**optimizer.state_dict(), "cosmic": state["about"]})


def _local(value: Any) -> Any:
    return value.to_local() if isinstance(value, DTensor) else value


def _digest(net: Net, optimizer: Cosmic) -> str:
    """Of parameters and state that are here."""
    found = hashlib.sha256()
    for name, param in net.named_parameters():
        tensors = {"": param, **optimizer.state.get(param, {})}
        if not _local(param).numel():
            continue  # what nobody has says nothing
        for key, value in sorted(tensors.items()):
            found.update(f"{name}.{key}".encode())
            if isinstance(value, Tensor):
                flat = _local(value).detach().contiguous().view(-1).view(torch.uint8)
                found.update(flat.numpy().tobytes())
            else:
                found.update(repr(value).encode())
    return found.hexdigest()


def _whole_digests(net: Net, optimizer: Cosmic) -> dict[str, str]:
    """Of every tensor of a checkpoint as a whole."""
    states = optimizer.state_dict()["state"]
    out = {}
    for index, (name, _) in enumerate(net.named_parameters()):
        for key, value in states[index].items():
            if isinstance(value, DTensor):
                flat = value.full_tensor().detach().contiguous().view(-1).view(torch.uint8)
                out[f"{name}.{key}"] = hashlib.sha256(flat.numpy().tobytes()).hexdigest()
    return out


def _trained_saved_and_trained(kind: str, mesh: DeviceMesh, path: Path) -> dict[str, Any]:
    net, optimizer = _made(kind, mesh)
    _train(net, optimizer, 0, 3)
    state = _everything(net, optimizer, kind in FLAT)
    save(state, checkpoint_id=path, process_group=mesh.get_group())
    whole = _whole_digests(net, optimizer)
    _train(net, optimizer, 3, 6)
    return {"digest": _digest(net, optimizer), "whole": whole}


def _loaded_and_trained(kind: str, mesh: DeviceMesh, path: Path) -> dict[str, Any]:
    net, optimizer = _made(kind, mesh)
    _load(net, optimizer, path, kind in FLAT, mesh)
    whole = _whole_digests(net, optimizer)
    _train(net, optimizer, 3, 6)
    return {"digest": _digest(net, optimizer), "whole": whole}


def _whole(kind: str, mesh: DeviceMesh, broadcast: bool) -> dict[str, Any]:
    """A checkpoint of whole tensors, on every rank or on the first alone."""
    net, optimizer = _made(kind, mesh)
    _train(net, optimizer, 0, 3)
    options = StateDictOptions(full_state_dict=True, cpu_offload=broadcast)
    model = get_model_state_dict(net, options=options)
    state = get_optimizer_state_dict(net, optimizer, options=options)
    about = optimizer.state_dict()["cosmic"]
    held = len(state.get("state", {}))
    again, resumed = _made(kind, mesh)
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=broadcast)
    set_model_state_dict(again, model, options=options)
    set_optimizer_state_dict(again, resumed, state, options=options)
    resumed.load_state_dict({**resumed.state_dict(), "cosmic": about})
    _train(net, optimizer, 3, 6)
    _train(again, resumed, 3, 6)
    return {"held": held, "same": _digest(net, optimizer) == _digest(again, resumed)}


def _another(mesh: DeviceMesh) -> list[str]:
    """What loading another model's state says, and whether anything has changed."""
    net, optimizer = _made("u4+v4", mesh)
    _train(net, optimizer, 0, 2)
    before = _digest(net, optimizer)
    said = []
    for change in (_of_other_rows, _without_codes, _of_other_shape):
        saved = optimizer.state_dict()
        saved["state"] = {k: dict(v) for k, v in saved["state"].items()}
        change(saved["state"][0], mesh)
        try:
            optimizer.load_state_dict(saved)
        except ValueError as error:
            said.append(str(error))
        if _digest(net, optimizer) != before:
            said.append("it has changed")
    return said


def _of_other_rows(state: dict[str, Any], mesh: DeviceMesh) -> None:
    codes = state["exp_avg_u4_codes"]
    state["exp_avg_u4_codes"] = torch.zeros(codes.shape[0] + 1, codes.shape[1], dtype=torch.uint8)


def _without_codes(state: dict[str, Any], mesh: DeviceMesh) -> None:
    del state["exp_avg_u4_codes"]


def _of_other_shape(state: dict[str, Any], mesh: DeviceMesh) -> None:
    state["packed_shape"] = state["packed_shape"] + 1
