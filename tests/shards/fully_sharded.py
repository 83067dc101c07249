"""What ranks find that train one model under fully_shard."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import distribute_tensor

from cosmic import Cosmic
from cosmic.presets import CASMO, Tiger

STEPS = 4


class Model(nn.Module):
    """Uneven: 301 and 5 rows, vectors of fewer elements than ranks."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(301, 128)
        self.up = nn.Linear(128, 256)
        self.down = nn.Linear(256, 128)
        self.head = nn.Linear(128, 5)
        self.scale = nn.Parameter(torch.ones(2))

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = self.embed(tokens) * self.scale[0]
        hidden = hidden + self.down(self.up(hidden).relu()) * self.scale[1]
        out: Tensor = self.head(hidden)
        return out


def _compressed(params: Any) -> Cosmic:
    return Cosmic(params, lr=0.01, rung="tier2:u4+v4")


def _with_memory(params: Any) -> Cosmic:
    """It has factors of whole groups, which go by sums over all shards."""
    optimizer = Tiger(params, lr=0.01, compat="2.2")
    optimizer.global_sums = True
    return optimizer


MAKERS: dict[str, Callable[[Any], Cosmic]] = {
    "given gradients": _compressed, "sums over all shards": _with_memory,
}  # fmt: skip


def everything(rank: int) -> Iterator[tuple[str, Any]]:
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for name, make in MAKERS.items():
        yield name, _given(mesh, make)
    yield "not summed", _refusals(mesh)
    ordinary = _trained(mesh, rank, backward=False)
    yield "losses", ordinary[0]
    in_backward = _trained(mesh, rank, backward=True)
    yield "in backward", _same(ordinary[1], in_backward[1])
    yield "gradients left", in_backward[2]


def _sharded(model: nn.Module, mesh: Any) -> None:
    for layer in (model.up, model.down):
        fully_shard(layer, mesh=mesh)  # type: ignore[arg-type]
    fully_shard(model, mesh=mesh)


def _refusals(mesh: Any) -> list[str]:
    """What is said of factors of whole groups where each shard has its own sums."""
    found = []
    for make in (lambda params: Tiger(params, compat="2.2"), CASMO):
        model = Model()
        _sharded(model, mesh)
        optimizer = make(model.named_parameters())
        try:
            _stepped(mesh, model, Model(), [optimizer])
        except ValueError as error:
            found.append(str(error))
    return found


def _given(mesh: Any, make: Callable[[Any], Cosmic]) -> float:
    """The largest difference from one process, given the same gradients."""
    torch.manual_seed(0)
    model = Model()
    alone = copy.deepcopy(model)
    _sharded(model, mesh)
    optimizers = [make(m.named_parameters()) for m in (model, alone)]
    for _ in range(STEPS):
        _stepped(mesh, model, alone, optimizers)
    found = [
        float((own.full_tensor() - one).detach().abs().max())  # type: ignore[attr-defined]
        for own, one in zip(model.parameters(), alone.parameters(), strict=True)
    ]
    return max(found)


def _stepped(mesh: Any, model: nn.Module, alone: nn.Module, optimizers: Sequence[Cosmic]) -> None:
    """Take a step with gradients that all ranks know."""
    for own, one in zip(model.parameters(), alone.parameters(), strict=True):
        one.grad = torch.randn_like(one)
        own.grad = distribute_tensor(one.grad, mesh, own.placements)  # type: ignore[attr-defined]
    for optimizer in optimizers:
        optimizer.step()


def _trained(mesh: Any, rank: int, *, backward: bool) -> tuple[list[float], nn.Module, int]:
    torch.manual_seed(0)
    model = Model()
    _sharded(model, mesh)
    optimizer = Cosmic(model.named_parameters(), lr=0.01)
    if backward:
        optimizer.step_in_backward(model)
    losses, left = [], 0
    for step in range(STEPS):
        torch.manual_seed(step)
        tokens, labels = torch.randint(0, 301, (24, 7)), torch.randint(0, 5, (24, 7))
        share = slice(rank * 24 // mesh.size(), (rank + 1) * 24 // mesh.size())
        out = model(tokens[share])
        loss = nn.functional.cross_entropy(out.flatten(0, 1), labels[share].flatten())
        loss.backward()  # type: ignore[no-untyped-call]
        left += sum(param.grad is not None for param in model.parameters())
        optimizer.step()
        optimizer.zero_grad()
        whole = loss.detach() / mesh.size()
        dist.all_reduce(whole)
        losses.append(float(whole))
    return losses, model, left


def _same(one: nn.Module, other: nn.Module) -> bool:
    pairs: Any = zip(one.parameters(), other.parameters(), strict=True)
    return all(torch.equal(a._local_tensor, b._local_tensor) for a, b in pairs)
