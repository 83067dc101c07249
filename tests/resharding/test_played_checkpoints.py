"""torch.distributed.checkpoint from any number of ranks to any other, played by one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from helpers import digest
from played_checkpoints import everything, made, read, write
from worlds import numbers_of, ranks_of

WORLDS = (1, 2, 3, 8)
pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
KINDS: dict[str, dict[str, Any]] = {
    "default": {"min_compress_size": 1},
    "budget": {"budget": "20%", "reallocate_every": 2},
    "u4+v4": {"state_dtype": "u4+v4", "gate": "snr", "min_compress_size": 1},
    "bf16": {"state_dtype": "bf16"},
    "muon": {"matrix_rule": "muon"},
}


@pytest.fixture(autouse=True)
def one_thread(set_threads: Any) -> None:
    set_threads(1)


def trained(kind: str, mesh: Any, flat: bool) -> dict[str, Any]:
    net, optimizer = made(KINDS[kind], mesh)
    net.train(optimizer, 0, 3)
    return everything(net, optimizer, flat)


def whole(path: Path, kind: str, ranks: int, flat: bool) -> dict[str, Tensor]:
    """What ranks have that have read a checkpoint, put together from their rows."""
    rows: dict[str, list[Tensor]] = {}
    for rank in numbers_of(ranks):
        with ranks_of(ranks, rank) as mesh:
            net, optimizer = made(KINDS[kind], mesh)
            read(path, net, optimizer, flat)
            state = optimizer.state_dict()["state"]
            for index, name in enumerate(n for n, _ in net.named_parameters()):
                for key, value in state[index].items():
                    if isinstance(value, DTensor):
                        rows.setdefault(f"{name}.{key}", []).append(value.to_local())
    return {key: torch.cat(found) for key, found in rows.items()}


@pytest.mark.parametrize("kind", ["default", "u4+v4", "bf16"])
@pytest.mark.parametrize("before", WORLDS)
def test_a_checkpoint_is_read_by_any_number_of_ranks(
    kind: str, before: int, tmp_path: Path
) -> None:
    flat = before % 2 == 0
    write(tmp_path, before, lambda mesh: trained(kind, mesh, flat))
    as_saved = whole(tmp_path, kind, before, flat)
    of_blocks = 0
    for after in WORLDS:
        found = whole(tmp_path, kind, after, flat)
        assert found.keys() == as_saved.keys()
        for key, value in found.items():
            assert value.shape == as_saved[key].shape
            in_rows = key.startswith("up.weight") and not key.endswith(("_col", "gate_snr"))
            if after == before or in_rows or value.dtype == torch.bfloat16:
                assert torch.equal(value, as_saved[key]), f"{key}, {before} to {after}"
                of_blocks += 1
    assert of_blocks


@pytest.mark.parametrize("kind", KINDS)
def test_training_goes_on_with_the_same_bits(kind: str, tmp_path: Path) -> None:
    """On eight ranks, some of which have none of a parameter; real ones are fewer."""
    ranks = 8
    write(tmp_path, ranks, lambda mesh: trained(kind, mesh, flat=True))
    for rank in numbers_of(ranks):
        with ranks_of(ranks, rank) as mesh:
            net, optimizer = made(KINDS[kind], mesh)
            net.train(optimizer, 0, 6)
            again, resumed = made(KINDS[kind], mesh)
            read(tmp_path, again, resumed, flat=True)
            assert resumed._steps == 3
            again.train(resumed, 3, 6)
            for one, other in zip(net.parameters(), again.parameters(), strict=True):
                assert torch.equal(one.to_local(), other.to_local())  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", KINDS)
def test_one_process_without_shards_reads_and_writes_as_well(kind: str, tmp_path: Path) -> None:
    write(tmp_path / "of shards", 3, lambda mesh: trained(kind, mesh, flat=True))
    net, optimizer = made(KINDS[kind], None)
    read(tmp_path / "of shards", net, optimizer, flat=True)
    before = digest(optimizer)
    write(tmp_path / "whole", 1, lambda _: everything(net, optimizer, flat=True))
    again, resumed = made(KINDS[kind], None)
    read(tmp_path / "whole", again, resumed, flat=True)
    assert digest(resumed) == before
    assert whole(tmp_path / "whole", kind, 2, flat=True).keys()
