"""State that shards of one cut save and those of another load: rows, columns, both, none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributed.tensor import Replicate, Shard
from torch.distributed.tensor.placement_types import Placement

from played_checkpoints import everything, made, read, write
from worlds import KINDS, World, numbers_of, ranks_of, whole_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
#: Sizes of a mesh, and placements on it; no ranks: no DTensors.
CUTS: dict[str, tuple[Sequence[int] | int, Sequence[Placement]]] = {
    "none": (0, (Shard(0),)),
    "rows": ((3,), (Shard(0),)),
    "columns": ((2,), (Shard(1),)),
    "uneven-columns": ((3,), (Shard(1),)),
    "both": ((2, 2), (Shard(0), Shard(1))),
    "replicas": ((2, 2), (Replicate(), Shard(0))),
}
ANOTHER = [(a, b) for a in CUTS for b in CUTS if a != b and "columns" in a + b]
#: Columns of whole blocks in all cuts but one; in none; more dimensions than two.
SHAPES = ((64, 256), (40, 66), (6, 4, 160))


@pytest.fixture(autouse=True)
def one_thread(set_threads: Callable[[int], None]) -> None:
    set_threads(1)


def decoded(options: Any, saved: dict[str, Any], **about: Any) -> list[tuple[Tensor, Tensor]]:
    """First and second moments, by one process that has loaded them."""
    with ranks_of(0, 0) as mesh:
        world = World(options, mesh, **about)
        world.optimizer.load_state_dict(saved)
        found = [world.optimizer.moments(param) for param in world.params]
    assert all(moments.step == 3 for moments in found)
    return [(m.exp_avg, m.exp_avg_sq) for m in found]  # type: ignore[misc]


@pytest.mark.parametrize("kind", ["default", "u4+v4", "bf16", "q8", "u2+rowmean"])
@pytest.mark.parametrize(("before", "after"), ANOTHER)
def test_moments_are_the_same_but_for_rounding(kind: str, before: str, after: str) -> None:
    options = KINDS[kind]
    about: dict[str, Any] = {"shapes": SHAPES}
    saved = whole_checkpoint(options, *CUTS[before], **about)
    again = whole_checkpoint(options, *CUTS[after], steps=0, start=saved, **about)
    exact = kind == "bf16"
    pairs = zip(decoded(options, saved, **about), decoded(options, again, **about), strict=True)
    for index, (was, now) in enumerate(pairs):
        for limit, one, other in zip((0.75, 0.25), was, now, strict=True):
            assert torch.equal(one, other) or not exact
            assert (one - other).norm() < limit * one.norm(), f"{index}"


@pytest.mark.parametrize("parts", [(0, {"q": 24, "k": 40}), (1, 2)], ids=["rows", "columns"])
@pytest.mark.parametrize(("before", "after"), [("rows", "columns"), ("columns", "rows")])
def test_parts_are_cut_otherwise_as_well(parts: Any, before: str, after: str) -> None:
    options = {"parts": parts, "state_dtype": "u4+v4", "min_compress_size": 1}
    about: dict[str, Any] = {"shapes": ((64, 512),)}
    saved = whole_checkpoint(options, *CUTS[before], **about)
    again = whole_checkpoint(options, *CUTS[after], steps=0, start=saved, **about)
    ((was_m, was_v),), ((now_m, now_v),) = (
        decoded(options, one, **about) for one in (saved, again)
    )
    assert (was_m - now_m).norm() < 0.6 * was_m.norm()
    assert (was_v - now_v).norm() < 0.25 * was_v.norm()


def test_bytes_of_a_shard_are_taken_back_where_all_of_them_are() -> None:
    """Of two and of three ranks the first has the same columns, but not as many rows of a table."""
    shapes = ((6, 4, 160),)
    saved = whole_checkpoint(KINDS["u4+v4"], (2,), (Shard(1),), shapes=shapes)
    again = whole_checkpoint(KINDS["u4+v4"], (3,), (Shard(1),), steps=0, start=saved, shapes=shapes)
    before, after = (one["state"][0]["exp_avg_u4_codes"] for one in (saved, again))
    assert (before - after).norm() < 0.6 * before.norm()


@pytest.mark.parametrize("kind", ["default", "q8", "bf16"])
@pytest.mark.parametrize("columns", [False, True])
def test_distributed_checkpoints_are_read_by_another_cut(
    kind: str, columns: bool, tmp_path: Path
) -> None:
    def trained(mesh: Any) -> dict[str, Any]:
        net, optimizer = made(KINDS[kind], mesh, columns)
        net.train(optimizer, 0, 3)
        return everything(net, optimizer, flat=True)

    write(tmp_path, 2, trained)
    alone, whole = made(KINDS[kind], None)
    read(tmp_path, alone, whole, flat=True)
    expected = whole.moments(alone.up.weight)
    assert expected.exp_avg is not None
    for rank in numbers_of(3):
        with ranks_of(3, rank) as mesh:
            net, optimizer = made(KINDS[kind], mesh, not columns)
            read(tmp_path, net, optimizer, flat=True)
            found: Any = optimizer.moments(net.up.weight)
            local = found.exp_avg.to_local()
            there = torch.chunk(expected.exp_avg, 3, dim=0 if columns else 1)[rank]
            assert found.step == 3 and local.shape == there.shape
            assert (local - there).norm() < 0.75 * there.norm()
            net.train(optimizer, 3, 4)
