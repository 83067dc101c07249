"""State of shards that are cut otherwise than by rows over one dimension: replicas, columns, both,
parts, and parameters with more precision than their dtype has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.distributed.tensor.placement_types import Placement

from cosmic import Cosmic
from helpers import normal
from played_ranks import placed
from worlds import KINDS, World, differing, numbers_of, ranks_of, whole_checkpoint

#: Sizes of a mesh, and placements on it.
CUTS: dict[str, tuple[Sequence[int], Sequence[Placement]]] = {
    "replicas": ((3,), (Replicate(),)),
    "columns": ((2,), (Shard(1),)),
    "uneven-columns": ((3,), (Shard(1),)),
    "replicas-of-rows": ((2, 3), (Replicate(), Shard(0))),
    "rows-and-columns": ((2, 2), (Shard(0), Shard(1))),
    "rows-of-rows": ((2, 3), (Shard(0), Shard(0))),
}
SHAPES = ((64, 256), (40, 66))


@pytest.fixture(autouse=True)
def one_thread(set_threads: Callable[[int], None]) -> None:
    set_threads(1)


@pytest.mark.parametrize("kind", ["default", "u4+v4", "u2+rowmean", "colmean", "bf16", "tier1"])
@pytest.mark.parametrize("cut", CUTS)
def test_the_same_cut_has_its_bits_back(cut: str, kind: str) -> None:
    sizes, placements = CUTS[cut]
    saved = whole_checkpoint(KINDS[kind], sizes, placements, shapes=SHAPES)
    for rank in numbers_of(sizes):
        with ranks_of(sizes, rank) as mesh:
            before = World(KINDS[kind], mesh, placements, SHAPES).train(0, 3)
            loaded = World(KINDS[kind], mesh, placements, SHAPES)
            loaded.optimizer.load_state_dict(saved)
            for pair in zip(before.states(), loaded.states(), strict=True):
                assert differing(*pair) == []


@pytest.mark.parametrize("cut", ["replicas", "replicas-of-rows", "rows-of-rows"])
def test_cuts_by_rows_have_one_form(cut: str) -> None:
    """A checkpoint of one is another's, to the byte where blocks lie in rows."""
    kind, shapes = "u4+v4", ((64, 256),)
    sizes, placements = CUTS[cut]
    saved = whole_checkpoint(KINDS[kind], sizes, placements, shapes=shapes)
    again = whole_checkpoint(KINDS[kind], 3, steps=0, start=saved, shapes=shapes)
    assert differing(saved["state"][0], again["state"][0]) in ([], ["gate_snr"])


def test_columns_of_whole_blocks_have_the_form_of_rows() -> None:
    sizes, placements = CUTS["columns"]
    saved = whole_checkpoint(KINDS["u4+v4"], sizes, placements, shapes=((64, 256),))
    again = whole_checkpoint(KINDS["u4+v4"], 3, steps=0, start=saved, shapes=((64, 256),))
    assert differing(saved["state"][0], again["state"][0]) == ["gate_snr"]


@pytest.mark.parametrize(("before", "after"), [(1, 1), (2, 2), (3, 3), (2, 3), (8, 1), (0, 3)])
@pytest.mark.parametrize("parts", [(0, {"q": 24, "k": 40}), (1, 2)], ids=["rows", "columns"])
def test_parts_are_cut_as_their_parameter(parts: Any, before: int, after: int) -> None:
    shapes = ((64, 256),)
    options = {"parts": parts, "state_dtype": "u4+v4"}
    saved = whole_checkpoint(options, before, shapes=shapes)
    again = whole_checkpoint(options, after, steps=0, start=saved, shapes=shapes)
    if before:
        assert differing(saved["state"][0], again["state"][0]) == []
    else:
        back = whole_checkpoint(options, 0, steps=0, start=again, shapes=shapes)
        assert differing(saved["state"][0], back["state"][0]) == []


@pytest.mark.parametrize(("before", "after"), [(2, 2), (1, 3), (8, 2), (0, 3)])
def test_bits_below_bfloat16_are_cut_by_elements(before: int, after: int) -> None:
    about: dict[str, Any] = {"shapes": ((100, 33), (40,)), "dtype": torch.bfloat16}
    options = {"master_bits": 24, "state_dtype": "fp32"}
    saved = whole_checkpoint(options, before, **about)
    again = whole_checkpoint(options, after, steps=0, start=saved, **about)
    for index, state in saved["state"].items():
        assert state["master_low"].shape == about["shapes"][index] and state["master_low"].any()
        assert differing(state, again["state"][index]) == []


@pytest.mark.parametrize("ranks", [1, 3])
def test_numbers_without_dimensions_and_complex_ones(ranks: int) -> None:
    shapes: tuple[tuple[int, ...], ...] = ((),)
    placements = (Replicate(),)
    saved = whole_checkpoint({"gate": "snr"}, ranks, placements, shapes=shapes)
    again = whole_checkpoint({"gate": "snr"}, 0, steps=0, start=saved, shapes=shapes)
    assert again["state"][0]["exp_avg"].shape == ()
    about: dict[str, Any] = {"shapes": ((6, 64),), "dtype": torch.complex64}
    saved = whole_checkpoint(KINDS["u4+v4"], ranks, **about)
    again = whole_checkpoint(KINDS["u4+v4"], 2, steps=0, start=saved, **about)
    assert set(differing(saved["state"][0], again["state"][0])) <= {"gate_snr"}


def test_sums_over_all_ranks_are_the_same_on_any_number_of_them() -> None:
    """Then each shard has the means of all rows, and keeps them."""
    options = {"global_sums": True, "gate": "snr"}
    shapes = ((64, 256),)
    saved = whole_checkpoint(options, 1, shapes=shapes)
    for ranks in (2, 3):
        again = whole_checkpoint(options, ranks, steps=0, start=saved, shapes=shapes)
        assert differing(saved["state"][0], again["state"][0]) == []


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_adamw_under_shards_hands_its_moments_on_and_takes_them(ranks: int) -> None:
    for rank in numbers_of(ranks):
        with ranks_of(ranks, rank) as mesh:
            params = [nn.Parameter(placed(normal(k, 100, 33), mesh)) for k in range(2)]
            adamw = torch.optim.AdamW(params, lr=1e-2)
            for param in params:
                param.grad = placed(normal(7, 100, 33), mesh)
            adamw.step()
            optimizer = Cosmic(params, lr=1e-2, state_dtype="fp32")
            optimizer.load_state_dict(adamw.state_dict())
            found = optimizer.state[params[1]]
            theirs = adamw.state[params[1]]
            for key in ("exp_avg", "exp_avg_sq"):
                assert torch.equal(found[key], theirs[key].to_local())
            for param in params:
                param.grad = placed(normal(8, 100, 33), mesh)
            optimizer.step()
            given = optimizer.to_adamw_state_dict()
            assert isinstance(given["state"][0]["exp_avg"], DTensor)
            adamw.load_state_dict(given)
            adamw.step()


def test_what_is_cut_otherwise_is_refused() -> None:
    saved = whole_checkpoint(KINDS["u4+v4"], 1, shapes=((64, 256),))
    with ranks_of((2, 2), 0) as mesh:
        placements = (Replicate(), Shard(0))
        world = World(KINDS["u4+v4"], mesh, placements, ((64, 256),))
        state = saved["state"][0]
        codes = state["exp_avg_u4_codes"]
        state["exp_avg_u4_codes"] = placed(codes, mesh, (Shard(0), Shard(1)))
        with pytest.raises(ValueError, match=r"exp_avg_u4_codes with placements .* redistribute"):
            world.optimizer.load_state_dict(saved)
        assert not world.optimizer.state
