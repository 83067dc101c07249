"""Entries of a checkpoint that do not fit shards: every rank names them, and nothing changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from worlds import KINDS, World, numbers_of, ranks_of, whole_checkpoint

RANKS = 3
#: Codes by rows and decoded; rows and columns; numbers; no more rows than ranks.
SHAPES = ((64, 128), (30, 33), (2, 200))
ENTRIES = [
    ("default", "exp_avg_u4_codes"),
    ("default", "exp_avg_u4_scale"),
    ("default", "exp_avg_sq_row"),
    ("default", "exp_avg_sq_col"),
    ("default", "packed_shape"),
    ("u4+v4", "gate_snr"),
    ("bf16", "exp_avg"),
    ("tier1", "magnitude"),
]


def longer(old: Tensor) -> Tensor:
    return torch.cat([old, old[:1]])


def flat_but_more(old: Tensor) -> Tensor:
    return longer(old).flatten()


def one_number(old: Tensor) -> Tensor:
    return torch.tensor(1.0)


def sparse(old: Tensor) -> Tensor:
    return old.to_sparse()


def without_memory(old: Tensor) -> Tensor:
    return old.to("meta")


def text(old: Tensor) -> str:
    return "codes"


SPOILS: list[Callable[[Tensor], object]] = [
    longer, flat_but_more, one_number, sparse, without_memory, text
]  # fmt: skip
#: Where "packed_shape" is no tensor the parameter's own is taken.
CASES = [(*e, s) for e in ENTRIES for s in SPOILS if (e[1], s) != ("packed_shape", text)]


def refusals(kind: str, saved: dict[str, Any]) -> set[str]:
    """What each rank says that loads it over other state, which must stay."""
    said = set()
    for rank in numbers_of(RANKS):
        with ranks_of(RANKS, rank) as mesh:
            world = World(KINDS[kind], mesh, shapes=SHAPES).train(7, 9)
            before = [{**state} for state in world.states()]
            steps = world.optimizer._steps
            with pytest.raises(ValueError) as error:
                world.optimizer.load_state_dict(saved)
            said.add(str(error.value))
            assert world.optimizer._steps == steps
            for was, now in zip(before, world.states(), strict=True):
                assert was.keys() == now.keys() and all(was[key] is now[key] for key in was)
    return said


@pytest.mark.parametrize("index", range(len(SHAPES)))
@pytest.mark.parametrize(("kind", "key", "spoil"), CASES)
def test_every_rank_names_the_entry(
    kind: str, key: str, spoil: Callable[[Tensor], object], index: int
) -> None:
    saved = whole_checkpoint(KINDS[kind], 2, shapes=SHAPES, steps=1)
    saved["state"][index][key] = spoil(saved["state"][index][key])
    said = refusals(kind, saved)
    assert len(said) == 1
    (message,) = said
    assert message.startswith(f"parameter {index} ") and key in message


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool])
def test_means_that_are_no_floats_are_named(dtype: torch.dtype) -> None:
    saved = whole_checkpoint(KINDS["default"], 2, shapes=SHAPES, steps=1)
    state = saved["state"][0]
    state["exp_avg_sq_col"] = state["exp_avg_sq_col"].to(dtype)
    (message,) = refusals("default", saved)
    assert f"exp_avg_sq_col of {dtype}; expected torch.float32" in message


def test_a_marker_that_is_no_number_is_named() -> None:
    saved = whole_checkpoint(KINDS["default"], 2, shapes=SHAPES, steps=1)
    saved["state"][0]["rung:tier2:u4+factored"] = torch.zeros(3)
    (message,) = refusals("default", saved)
    assert "rung:tier2:u4+factored tensor([0., 0., 0.]); expected format 2" in message
