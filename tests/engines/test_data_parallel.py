"""Engines whose ranks hold the whole model each: one launch of three ranks, many checks."""

from __future__ import annotations

from typing import Any

import pytest

from data_parallel_checks import OPTIONS, RANKS, SAVED, SHARDED, run
from engine_models import Net
from rank_processes import Findings, found_by_all, same_on

ELEMENTS = sum(p.numel() for p in Net().parameters())

either = pytest.mark.parametrize("ranks", [2, 3])


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[Findings]:
    return found_by_all(run, RANKS, tmp_path_factory.mktemp("ranks"))


def each(found: list[Findings], ranks: int, name: str) -> list[dict[str, Any]]:
    """What every rank of so many has found."""
    return [findings[f"{ranks} {name}"] for findings in found[:ranks]]


# ---- DistributedDataParallel -----------------------------------------------------------------


@either
@pytest.mark.parametrize("name", [*OPTIONS, "accumulated"])
def test_ranks_stay_identical_and_as_one_process(
    found: list[Findings], ranks: int, name: str
) -> None:
    """With the gradients that DistributedDataParallel left, the one process has the same bits."""
    same = same_on(found, f"{ranks} ranks, {name}")
    assert same["digest"] == same["by hand"]
    assert same["first gradient"] < 1e-6, "the mean over ranks is that over all data"


def test_options_make_a_difference(found: list[Findings]) -> None:
    digests = [same_on(found, f"3 ranks, {name}")["digest"] for name in OPTIONS]
    assert len(set(digests)) == len(OPTIONS) - 1, "all but skipping, where nothing is to be skipped"


@either
def test_a_gradient_that_is_not_finite_on_one_rank_is_seen_by_all(
    found: list[Findings], ranks: int
) -> None:
    same = same_on(found, f"{ranks} ranks, not finite")
    assert same == {"raise": ["NonfiniteGradientError", True], "skip": ["none", True]}


# ---- ZeroRedundancyOptimizer -----------------------------------------------------------------


@either
@pytest.mark.parametrize(("name", "views"), SHARDED)
def test_every_element_is_stepped_by_one_rank(
    found: list[Findings], ranks: int, name: str, views: bool
) -> None:
    findings = each(found, ranks, f"shards, {name}, {views}")
    assert len({f["parameters"] for f in findings}) == 1, "all ranks have the same parameters"
    assert sum(f["elements"] for f in findings) == ELEMENTS
    assert {f["steps"] for f in findings} == {4}


@either
@pytest.mark.parametrize("views", [False, True])
def test_uncompressed_state_has_the_bits_of_one_process(
    found: list[Findings], ranks: int, views: bool
) -> None:
    for of in each(found, ranks, f"shards, fp32, {views}"):
        assert of["parameters"] == of["by hand"]
    bytes_of_all = sum(f["bytes"] for f in each(found, ranks, f"shards, fp32, {views}"))
    assert bytes_of_all == found[0][f"{ranks} shards, fp32, {views}"]["bytes by hand"]


@either
def test_views_of_buckets_make_no_difference(found: list[Findings], ranks: int) -> None:
    for plain, views in zip(
        each(found, ranks, "shards, default, False"),
        each(found, ranks, "shards, default, True"),
        strict=True,
    ):
        assert plain == views


@either
def test_a_budget_is_of_what_a_rank_steps(found: list[Findings], ranks: int) -> None:
    for of in each(found, ranks, "shards, budget, False"):
        assert 0 < of["bytes"] <= 0.05 * 8 * of["elements"]


@either
def test_groups_and_schedules_reach_the_ranks(found: list[Findings], ranks: int) -> None:
    rungs: dict[str, str] = {}
    for of in each(found, ranks, "shards, groups"):
        assert of["rates"] == [0.005, 0.005] and of["decay"] == [0.1, 0.0]
        rungs |= of["rungs"]
    matrices = ("table.weight", "hidden.weight", "narrow.weight", "head.weight")
    vectors = ("hidden.bias", "norm.weight", "norm.bias", "narrow.bias", "head.bias")
    assert rungs == {**dict.fromkeys(matrices, "tier2:u4+v4"),
                     **dict.fromkeys(vectors, "tier2:fp32+fp32")}  # fmt: skip


@either
def test_roles_are_to_be_given_by_the_groups(found: list[Findings], ranks: int) -> None:
    """Names do not reach the ranks, and none of them sees all shapes."""
    given: dict[str, tuple[str, str]] = {}
    found_alone: dict[str, tuple[str, str]] = {}
    for of in each(found, ranks, "shards, roles"):
        given |= of["given"]
        found_alone |= of["not given"]
    assert len(given) == len(found_alone) == 9
    assert all(here == alone for here, alone in given.values())
    assert found_alone["table.weight"] == ("tier2:u4+factored", "tier2:u4+v4")


@either
@pytest.mark.parametrize("name", SAVED)
def test_a_run_goes_on_from_the_gathered_state(
    found: list[Findings], ranks: int, name: str
) -> None:
    for of in each(found, ranks, f"shards, saved, {name}"):
        assert of["resumed"] == of["whole"]


@either
@pytest.mark.parametrize("name", SAVED)
def test_a_run_goes_on_from_what_each_rank_saved(
    found: list[Findings], ranks: int, name: str
) -> None:
    for of in each(found, ranks, f"shards, saved by each, {name}"):
        assert of["resumed"] == of["whole"]


@either
def test_a_step_within_the_buckets_is_torchs_alone(found: list[Findings], ranks: int) -> None:
    kind, text = same_on(found[:ranks], f"{ranks} shards, overlapped")
    assert kind == "ValueError" and "functional optimizer" in text
