"""Ranks under fully_shard: the bits of one process, and steps within backward."""

from __future__ import annotations

from typing import Any

import pytest

import fully_sharded
from rank_processes import findings_of

RANKS = 3


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return findings_of(fully_sharded.everything, RANKS, tmp_path_factory.mktemp("ranks"))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return findings_of(fully_sharded.everything, 1, tmp_path_factory.mktemp("rank"))[0]


def test_given_gradients_leave_the_bits_of_one_process(
    found: list[dict[str, Any]], alone: dict[str, Any]
) -> None:
    assert [one.get("error") for one in (alone, *found)] == [None] * (RANKS + 1)
    assert [one["given gradients"] for one in (alone, *found)] == [0.0] * (RANKS + 1)


def test_factors_of_whole_groups_are_those_of_one_process(
    found: list[dict[str, Any]], alone: dict[str, Any]
) -> None:
    assert alone["sums over all shards"] == 0.0
    assert all(one["sums over all shards"] < 2e-6 for one in found)


def test_factors_of_whole_groups_are_refused_where_shards_have_their_own(
    found: list[dict[str, Any]], alone: dict[str, Any]
) -> None:
    assert alone["not summed"] == []
    for of_tiger, of_casmo in (one["not summed"] for one in found):
        for said in (of_tiger, of_casmo):
            assert "has one factor for what all of the group's tensors are like" in said
            assert said.endswith("set optimizer.global_sums = True")


def test_losses_are_those_of_one_process_but_for_the_order_of_sums(
    found: list[dict[str, Any]], alone: dict[str, Any]
) -> None:
    for one in found:
        assert one["losses"] == pytest.approx(alone["losses"], rel=0.05)
        assert one["losses"] == found[0]["losses"]
        assert one["losses"][0] == pytest.approx(alone["losses"][0], rel=1e-5)


def test_steps_in_backward_leave_the_bits_of_ordinary_ones(
    found: list[dict[str, Any]], alone: dict[str, Any]
) -> None:
    for one in (alone, *found):
        assert one["in backward"]
        assert one["gradients left"] == 0
