"""Cosmic as DeepSpeed's client optimizer, ZeRO's stages 0 to 3, with two and three ranks."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import pytest

from deepspeed_checks import FEW, SAVED, STEPS, WAYS, run
from engine_models import Net
from rank_processes import Findings, found_by_all, same_on

pytestmark = pytest.mark.skipif(not find_spec("deepspeed"), reason="DeepSpeed is not installed")

ELEMENTS = sum(p.numel() for p in Net().parameters())


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[Findings]:
    return found_by_all(run, 2, tmp_path_factory.mktemp("pair"))


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> list[Findings]:
    return found_by_all(run, 3, tmp_path_factory.mktemp("three"))


CASES = [*(("pair", name) for name in WAYS), *(("three", name) for name in FEW)]


@pytest.fixture(params=CASES, ids=lambda case: " ".join(case))
def each(request: pytest.FixtureRequest) -> tuple[str, list[dict[str, Any]]]:
    """A configuration by name, and what every rank has found with it."""
    ranks, name = request.param
    return name, [findings[name] for findings in request.getfixturevalue(ranks)]


def test_state_is_that_of_an_optimizer_for_each_partition(
    each: tuple[str, list[dict[str, Any]]],
) -> None:
    """Bit for bit: DeepSpeed exchanges the groups at each call, and no call forgets the others."""
    name, findings = each
    for of in findings:
        assert of["as alone"], name
        assert of["steps"] == [STEPS] * len(of["shapes"])
        assert of["calls"] == STEPS * (1 if WAYS[name].stage == 0 else len(of["shapes"]))


def test_all_ranks_have_the_same_parameters(each: tuple[str, list[dict[str, Any]]]) -> None:
    name, findings = each
    assert len({of["parameters"] for of in findings}) == 1
    for of in findings:
        if WAYS[name].accumulate == 1:
            assert len(of["losses"]) == STEPS


def test_partitions_are_flat_and_have_no_rows(each: tuple[str, list[dict[str, Any]]]) -> None:
    """So a second moment takes four bits an element, not a number a row and a column."""
    name, findings = each
    if WAYS[name].stage == 0:
        return
    for of in findings:
        assert all(len(shape) == 1 for shape in of["shapes"])
        if not WAYS[name].options:
            assert set(of["rungs"]) <= {"tier2:u4+v4", "tier2:fp32+fp32"}
    held = sum(shape[0] for of in findings for shape in of["shapes"])
    assert ELEMENTS <= held < ELEMENTS + 100, "each element is one rank's, but for padding"


@pytest.mark.parametrize("name", ["0 fp32", "1 fp32", "2 fp32", "3 fp32"])
def test_uncompressed_state_steps_as_adamw(pair: list[Findings], name: str) -> None:
    assert same_on([{name: f[name]["gap to AdamW"]} for f in pair], name) < 1e-5


def test_stages_step_alike(pair: list[Findings]) -> None:
    """To the order of sums."""
    for rank in range(2):
        first, *others = (pair[rank][name]["losses"] for name in ("0 fp32", "1 fp32", "3 fp32"))
        for other in others:
            assert other == pytest.approx(first, rel=1e-5)


def test_a_share_is_of_each_partition(pair: list[Findings]) -> None:
    for findings in pair:
        of = findings["1 budget"]
        assert 0 < of["bytes"] <= 0.1 * 8 * sum(shape[0] for shape in of["shapes"])


def test_bytes_of_a_whole_budget_are_refused(pair: list[Findings]) -> None:
    kind, text = same_on(pair, "budget in bytes")
    assert kind == "ValueError" and "parameters are stepped some at a time" in text


@pytest.mark.parametrize("name", SAVED)
@pytest.mark.parametrize("ranks", ["pair", "three"])
def test_a_run_goes_on_from_a_checkpoint(
    request: pytest.FixtureRequest, ranks: str, name: str
) -> None:
    for findings in request.getfixturevalue(ranks):
        if f"{name} saved" in findings:
            assert findings[f"{name} saved"]["resumed"] == findings[f"{name} saved"]["whole"]
