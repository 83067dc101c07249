"""Checkpoints that real ranks write and read under FSDP2."""

from __future__ import annotations

from functools import partial

import pytest

from rank_processes import Findings, findings_of
from resharding_checks import KINDS, RANKS, run

COUNTS = (1, 2, 3)
BLOCKS = ("_codes", "_scale", "_row")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[Findings]:
    folder = tmp_path_factory.mktemp("checkpoints")
    meeting = tmp_path_factory.mktemp("meeting")
    found = findings_of(partial(run, folder), RANKS, meeting)
    errors = [rank["error"] for rank in found if "error" in rank]
    assert not errors, errors[0]
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ranks", COUNTS)
def test_as_many_ranks_go_on_with_the_same_bits(
    found: list[Findings], kind: str, ranks: int
) -> None:
    for rank in range(ranks):
        straight = found[rank][f"{kind}, {ranks}"]
        assert found[rank][f"{kind}, {ranks} to {ranks}"] == straight


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("before", COUNTS)
def test_other_ranks_have_the_same_whole(found: list[Findings], kind: str, before: int) -> None:
    """To the byte: of any ranks what lies in rows of whole blocks or is one number an element, of
    as many all."""
    saved = found[0][f"{kind}, {before}"]["whole"]
    of_elements = [k for k in saved if k.endswith((".exp_avg", ".exp_avg_sq"))]
    of_blocks = [k for k in saved if k.startswith("up.weight.") and k.endswith(BLOCKS)]
    assert of_blocks or of_elements
    for after in COUNTS:
        whole = found[0][f"{kind}, {before} to {after}"]["whole"]
        assert whole.keys() == saved.keys()
        for key in saved if before == after else (*of_elements, *of_blocks):
            assert whole[key] == saved[key], f"{key}, to {after}"


@pytest.mark.parametrize("kind", ["default", "budget", "q8"])
def test_whole_tensors_are_given_and_taken(found: list[Findings], kind: str) -> None:
    assert all(rank[f"whole {kind}, from all"] == {"held": 6, "same": True} for rank in found)
    of_one = [rank[f"whole {kind}, from rank 0"] for rank in found]
    assert [one["held"] for one in of_one] == [6, 0, 0]
    assert all(one["same"] for one in of_one)


def test_another_models_checkpoint_is_refused_by_every_rank(found: list[Findings]) -> None:
    for rank in found:
        rows, missing, shape = rank["another model"]
        assert "exp_avg_u4_codes of shape (261, 64); expected (260, 64)" in rows
        assert "no 'exp_avg_u4_codes'" in missing
        assert "packed_shape (261, 129)" in shape
