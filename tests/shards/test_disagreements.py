"""Ranks that differ in what they must share: every rank says so, and nothing has changed."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

import disagreements
from rank_processes import findings_of

RANKS = 2


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    checks = partial(disagreements.everything, tmp_path_factory.mktemp("again"))
    return findings_of(checks, RANKS, tmp_path_factory.mktemp("ranks"))


def test_ranks_that_are_alike_step(found: list[dict[str, Any]]) -> None:
    assert [one.get("error") for one in found] == [None] * RANKS
    assert [one["alike"] for one in found] == [("", False)] * RANKS


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("lr", "ranks differ in options: rank 0 has param_groups[0]['lr']=0.001, rank 1 has "
               "param_groups[0]['lr']=0.002"),
        ("budget", "ranks differ in options: rank 0 has budget='50%', rank 1 has budget='60%'"),
        ("order", "ranks differ in parameters: rank 0 has 0.weight of group 0: torch.float32 "
                  "(64, 128) (Shard(dim=0),), rank 1 has 1.bias of group 0: torch.float32 (8,)"),
        ("missing", "ranks differ in parameters: rank 0 has 1.bias of group 0: torch.float32 (8,) "
                    "(Shard(dim=0),), rank 1 has nothing"),
        ("no gradient", "ranks differ in what each parameter keeps: rank 0 has 0.weight: "
                        "rung:tier2:u4+factored, rank 1 has 0.weight: no state, as it has had no"),
        ("in mid-run", "ranks differ in options: rank 0 has param_groups[0]['weight_decay']=0.0"),
    ],
)  # fmt: skip
def test_a_difference_is_named_on_every_rank(
    name: str, what: str, found: list[dict[str, Any]]
) -> None:
    errors, untouched = zip(*(one[name] for one in found), strict=True)
    assert errors[0].startswith(f"DisagreementError: {what}"), errors[0]
    assert len(set(errors)) == 1
    assert all(untouched)


def test_what_one_rank_refuses_none_steps(found: list[dict[str, Any]]) -> None:
    (of_others, untouched), (own, own_untouched) = (one["too small"] for one in found)
    assert own.startswith("ValueError: the budget is 1 bytes, but")
    assert of_others.startswith(
        "DisagreementError: rank 1 cannot step: ValueError: the budget is 1 bytes"
    )
    assert untouched and own_untouched


def test_what_is_not_finite_on_one_rank_raises_on_all(found: list[dict[str, Any]]) -> None:
    (of_others, *others), (own, *rest) = (one["raise"] for one in found)
    assert own.startswith("NonfiniteGradientError: gradient of parameter '0.weight' has 1")
    assert of_others.startswith("NonfiniteGradientError: a gradient has non-finite elements in")
    assert others == rest == [True, 0, ""]


def test_what_is_not_finite_on_one_rank_is_skipped_by_all(found: list[dict[str, Any]]) -> None:
    assert [one["skip"] for one in found] == [("", True, 1, "")] * RANKS


def test_ranks_that_step_differently_often_do_not_wait_for_ever(
    found: list[dict[str, Any]],
) -> None:
    (left, untouched), (waiting, still) = (one["late"] for one in found)
    assert waiting.startswith("DisagreementError: rank 0 has not come to step(); rank 1 has")
    assert left.startswith("DisagreementError: rank 1 cannot step: it has waited for the others")
    assert untouched and still


def test_a_process_group_that_is_made_anew_meets_anew(found: list[dict[str, Any]]) -> None:
    assert [one.get("met again") for one in found] == [("", False)] * RANKS


@pytest.mark.parametrize("name", ["first", *disagreements.LATER])
def test_a_mesh_without_a_process_group_is_refused(name: str, found: list[dict[str, Any]]) -> None:
    for error, untouched in (one[f"unmet, {name}"] for one in found):
        assert "no process group is initialized" in error
        assert untouched
