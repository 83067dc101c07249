"""Optimizers of shards, as each rank of several worlds has them, and checkpoints put together from
what all ranks save."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Shard
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset
from torch.distributed.tensor.placement_types import Placement

from cosmic import Cosmic
from helpers import normal
from played_ranks import placed, played

Options = Mapping[str, Any]
#: Rows of whole blocks; of parts of blocks; fewer rows than ranks; vectors.
SHAPES = ((256, 128), (100, 33), (5, 256), (300,), (40,))
ROWS: tuple[Placement, ...] = (Shard(0),)

KINDS: dict[str, Options] = {
    "default": {"min_compress_size": 1},
    "u4+v4": {"state_dtype": "u4+v4", "min_compress_size": 1, "gate": "snr"},
    "u2+rowmean": {"rung": "tier2:u2+rowmean", "min_compress_size": 1},
    "colmean": {"state_dtype": "u4+colmean", "min_compress_size": 1},
    "q8": {"state_dtype": "q8", "min_compress_size": 1, "gate": "agc"},
    "bf16": {"state_dtype": "bf16"},
    "fp32": {"state_dtype": "fp32", "gate": "trust"},
    "ustate": {"rung": "tier2:ustate+v4"},
    "slow": {"beta_slow": 0.99, "min_compress_size": 1},
    "agar": {"state_dtype": "u4+v4", "gate": "agar", "min_compress_size": 1},
    "muon": {"matrix_rule": "muon"},
    "tier1": {"tier": 1},
    "tier1:factored": {"rung": "tier1:factored"},
    "tier0": {"tier": 0},
    "budget": {"budget": "20%", "reallocate_every": 2},
}


class World:
    """One rank's parameters and optimizer. With 0 ranks they are whole and no DTensors."""

    def __init__(
        self,
        options: Options,
        mesh: Any,
        placements: Sequence[Placement] = ROWS,
        shapes: Sequence[tuple[int, ...]] = SHAPES,
        dtype: torch.dtype = torch.float32,
        scale: Tensor | float = 1.0,
    ) -> None:
        self.scale = scale  # of gradients
        self.mesh, self.placements, self.shapes, self.dtype = mesh, placements, shapes, dtype
        self.params = [nn.Parameter(self._cut(k, 0)) for k in range(len(shapes))]
        self.optimizer = Cosmic(self.params, **{"lr": 1e-2, **options})

    def _cut(self, index: int, seed: int) -> Tensor:
        whole = normal(1000 * seed + index, *self.shapes[index], dtype=self.dtype)
        if seed:
            whole = whole * self.scale
        return whole if self.mesh is None else placed(whole, self.mesh, self.placements)

    def train(self, first: int, last: int) -> World:
        for step in range(first, last):
            for index, param in enumerate(self.params):
                param.grad = self._cut(index, step + 1)
            self.optimizer.step()
        return self

    def states(self) -> list[dict[str, Any]]:
        """What ``optimizer.state`` has, by parameter."""
        return [dict(self.optimizer.state.get(param, {})) for param in self.params]


@contextmanager
def ranks_of(sizes: Sequence[int] | int, rank: int) -> Iterator[Any]:
    """A mesh as a rank sees it; None for no ranks."""
    if sizes == 0:
        yield None
        return
    with played(rank, sizes) as mesh:
        yield mesh


def numbers_of(sizes: Sequence[int] | int) -> range:
    """The ranks of a mesh."""
    shape = (sizes,) if isinstance(sizes, int) else tuple(sizes)
    world = 1
    for size in shape:
        world *= max(size, 1)
    return range(world)


def whole_checkpoint(
    options: Options,
    sizes: Sequence[int] | int,
    placements: Sequence[Placement] = ROWS,
    steps: int = 3,
    start: Mapping[str, Any] | None = None,
    **about: Any,
) -> dict[str, Any]:
    """A state dict with whole tensors, put together from what every rank of a mesh saves after some
    steps, from a checkpoint if there is one."""
    whole: dict[str, Any] = {}
    for rank in numbers_of(sizes):
        with ranks_of(sizes, rank) as mesh:
            world = World(options, mesh, placements, **about)
            if start is not None:
                world.optimizer.load_state_dict(dict(start))
            saved = world.train(0, steps).optimizer.state_dict()
            whole = _joined(whole or {**saved, "state": {}}, saved["state"])
    for index, state in whole["state"].items():
        for key, value in state.items():
            if isinstance(value, _Pieces):
                state[key] = value.whole(f"{index}.{key}")
    return whole


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Entries of two states that are not the same to the bit."""
    assert set(one) == set(other)
    return [key for key, value in one.items() if not _same(value, other[key])]


def _same(one: Any, other: Any) -> bool:
    return torch.equal(one, other) if isinstance(one, Tensor) else bool(one == other)


class _Pieces:
    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        self.tensor = torch.zeros(shape, dtype=dtype)
        self.covered = torch.zeros(shape, dtype=torch.int64)

    def put(self, value: DTensor) -> None:
        local = value.to_local()
        shape, start = compute_local_shape_and_global_offset(
            value.shape, value.device_mesh, value.placements
        )
        assert tuple(local.shape) == tuple(shape)
        at = tuple(slice(s, s + n) for s, n in zip(start, shape, strict=True))
        self.tensor[at] = local
        self.covered[at] += 1

    def whole(self, name: str) -> Tensor:
        assert (self.covered > 0).all(), name
        return self.tensor


def _joined(whole: dict[str, Any], states: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    for index, state in states.items():
        held = whole["state"].setdefault(index, {})
        for key, value in state.items():
            if isinstance(value, DTensor):
                pieces = held.setdefault(key, _Pieces(tuple(value.shape), value.dtype))
                pieces.put(value)
            elif isinstance(value, Tensor):
                assert torch.equal(held.setdefault(key, value.clone()), value), f"{index}.{key}"
            else:
                assert held.setdefault(key, value) == value
    return whole
