"""Presets whose parameters several ranks share."""

from __future__ import annotations

from functools import partial

import pytest

from preset_checks import LIKE_ONE, PRESETS, RANKS, run
from rank_processes import Findings, found_by_all


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[Findings]:
    folder = tmp_path_factory.mktemp("presets")
    return found_by_all(partial(run, folder), RANKS, tmp_path_factory.mktemp("meeting"))


@pytest.mark.parametrize("kind", PRESETS)
def test_a_checkpoint_goes_on_with_the_same_bits(found: list[Findings], kind: str) -> None:
    assert all(rank[f"{kind}, resumed"] == [True, True] for rank in found)


@pytest.mark.parametrize("kind", LIKE_ONE)
def test_sums_of_all_ranks_make_the_steps_of_one_process(found: list[Findings], kind: str) -> None:
    assert all(rank[f"{kind}, apart"] < 1e-3 for rank in found)


@pytest.mark.parametrize("kind", ["casmo", "tiger-compat"])
def test_factors_of_whole_groups_demand_them(found: list[Findings], kind: str) -> None:
    assert all("global_sums" in rank[f"{kind}, refused"] for rank in found)


def test_what_is_not_finite_on_one_rank_is_told_on_all_though_it_is_clipped(
    found: list[Findings],
) -> None:
    first, second = (rank["not finite"] for rank in found)
    assert "'up' has 1 non-finite" in first[0]
    assert "another rank's shard" in second[0]
