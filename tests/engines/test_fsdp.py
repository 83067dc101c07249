"""FSDP2, replicated shards and tensor parallel layers: one launch of three ranks, many checks."""

from __future__ import annotations

from typing import Any

import pytest

from engine_models import ROWS, WIDTH
from fsdp_checks import LAYERED, RANKS, ROUNDED, SAME_BITS, STEPS, WAYS, Deep, run
from fsdp_models import KINDS
from rank_processes import Findings, found_by_all, same_on

NAMES = [name for name, _ in Deep().named_parameters()]
ELEMENTS = sum(p.numel() for p in Deep().parameters())

either = pytest.mark.parametrize("ranks", [2, 3])
every_way = pytest.mark.parametrize("name", WAYS)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[Findings]:
    return found_by_all(run, RANKS, tmp_path_factory.mktemp("ranks"))


def each(found: list[Findings], ranks: int, name: str) -> list[Any]:
    """What every rank of so many has found."""
    return [findings[f"{ranks} ranks, {name}"] for findings in found[:ranks]]


# ---- training ---------------------------------------------------------------------------------

#: How far losses may be from one process's: without compression, the noise of sums; with it, where
#: numbers for all of a tensor are made for each shard; and where bfloat16 computes.
NOISE = {
    **dict.fromkeys(("fp32", "clipped", "accumulated", "in backward, accumulated"), 1e-5),
    "budget": 0.02, "matrices": 0.01, "bf16": 0.002, "bf16, reduced too": 0.002,
}  # fmt: skip


@either
@every_way
def test_losses_are_those_of_one_process(found: list[Findings], ranks: int, name: str) -> None:
    wanted = pytest.approx(found[0][f"alone, {name}"]["losses"], rel=NOISE.get(name, 5e-4))
    for of in each(found, ranks, name):
        assert of["losses"] == wanted


@either
@every_way
def test_rungs_are_those_of_the_whole_model(found: list[Findings], ranks: int, name: str) -> None:
    """Decided by names, roles and shapes of whole tensors, not of shards."""
    for of in each(found, ranks, name):
        if name != "budget":  # whose prices count what each shard rounds up
            assert of["rungs"] == found[0][f"alone, {name}"]["rungs"]
        assert of["rungs"] == each(found, ranks, name)[0]["rungs"]


@either
@every_way
def test_ranks_do_not_talk_within_a_step(found: list[Findings], ranks: int, name: str) -> None:
    for of in each(found, ranks, name):
        assert of["collectives"] == (STEPS if name == "summed" else 0)


def test_shards_may_be_empty_and_uneven(found: list[Findings]) -> None:
    shares = [of["local"] for of in each(found, 3, "plain")]
    assert [share["few.weight"] for share in shares] == [100, 100, 0]
    rows = [share["table.weight"] // WIDTH for share in shares]
    assert rows == [67, 67, 66] and sum(rows) == ROWS


@either
def test_state_is_shared_out(found: list[Findings], ranks: int) -> None:
    """Each rank holds tensors of its own shard, and all of them what one process holds."""
    held = [of["bytes"] for of in each(found, ranks, "fp32")]
    counts = 8 * len(NAMES) * ranks
    assert sum(held) == 8 * ELEMENTS + counts
    assert max(held) - min(held) < 0.05 * sum(held)
    for of in each(found, ranks, "plain"):
        assert of["keys"] == ["Tensor", "int"], "no DTensors at run time"
    total = sum(of["bytes"] for of in each(found, ranks, "plain"))
    assert total == pytest.approx(found[0]["alone, plain"]["bytes"], rel=0.1)


@either
def test_a_budget_is_of_the_whole_model(found: list[Findings], ranks: int) -> None:
    findings = each(found, ranks, "budget")
    assert {of["budget"] for of in findings} == {int(0.05 * 8 * ELEMENTS)}
    total = sum(of["bytes"] for of in findings)
    assert 0.5 * findings[0]["budget"] < total <= findings[0]["budget"]


@either
def test_gradients_are_freed_in_backward(found: list[Findings], ranks: int) -> None:
    """FSDP2 steps a shard once its gradient has been reduced; the same bits as afterwards."""
    for of in each(found, ranks, "in backward"):
        assert of["gradients"] == 0
    for name, plain in (("in backward", "plain"), ("in backward, accumulated", "accumulated")):
        for of, other in zip(each(found, ranks, name), each(found, ranks, plain), strict=True):
            assert of["losses"] == other["losses"]
            assert other["gradients"] == STEPS * len(NAMES)


@either
@pytest.mark.parametrize("name", ["offloaded", "compiled"])
def test_where_the_model_lies_and_runs_changes_no_bit(
    found: list[Findings], ranks: int, name: str
) -> None:
    for of, plain in zip(each(found, ranks, name), each(found, ranks, "plain"), strict=True):
        assert of["losses"] == plain["losses"] and of["bytes"] == plain["bytes"]


@pytest.mark.parametrize(("name", "copies"), [("two shards", 1), ("two replicas", 2)])
def test_replicas_of_shards(found: list[Findings], name: str, copies: int) -> None:
    alone = found[0]["alone, fp32"]
    findings = [f[f"hybrid, {name}"] for f in found[:2]]
    for of in findings:
        assert of["losses"] == pytest.approx(alone["losses"], rel=1e-5)
    counts = 8 * len(NAMES)
    assert sum(of["bytes"] - counts for of in findings) == copies * (alone["bytes"] - counts)


# ---- bits -------------------------------------------------------------------------------------


@either
@pytest.mark.parametrize("name", [*SAME_BITS, *ROUNDED])
def test_given_gradients_the_bits_are_those_of_one_process(
    found: list[Findings], ranks: int, name: str
) -> None:
    """All but a packed tensor whose rows of 72 numbers are no whole blocks."""
    other = [] if name in ("bf16", "fp32") else ["head.weight"]
    for of in each(found, ranks, f"given, {name}"):
        assert [n for n, same in of["parameters"].items() if not same] == other
        states = of["state"]
        assert set(states) == set(NAMES) and all(states.values())
        assert [n for n, entries in states.items() if not all(entries.values())] == other


@either
def test_a_copy_goes_on_as_the_original(found: list[Findings], ranks: int) -> None:
    assert all(each(found, ranks, "copied"))


@either
def test_an_optimizer_from_before_the_shards_says_so_once(
    found: list[Findings], ranks: int
) -> None:
    for said in each(found, ranks, "made before"):
        assert len(said) == 1 and "fsdp_checks.py: no parameter has a gradient at the" in said[0]


# ---- a language model, and layers -------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_language_model_trains_alike_on_any_number_of_ranks(
    found: list[Findings], kind: str
) -> None:
    alone = same_on(found, f"language, alone, {kind}")
    assert alone[-1] < alone[0] - 1
    noise = {"fp32": 2e-5, "u4+v4": 1e-3, "default": 3e-3}[kind]
    for ranks in (1, 2, 3):
        losses = same_on(found, f"language, {ranks} ranks, {kind}")
        assert losses == pytest.approx(alone, rel=1e-6 if ranks == 1 else noise)


@pytest.mark.parametrize("kind", LAYERED)
def test_tensor_parallel_layers(found: list[Findings], kind: str) -> None:
    """Rows of one matrix are cut, columns of the other."""
    of = same_on(found, f"layers, {kind}")
    assert of["placements"] == {
        "up.weight": "S(0)", "up.bias": "S(0)", "down.weight": "S(1)", "down.bias": "R",
    }  # fmt: skip
    assert of["gap"] < (1e-4 if kind == "fp32" else 5e-3)
    assert 0.5 <= of["bytes"] / of["bytes alone"] < 0.53
    of_default = {"default": "tier2:u4+factored", "summed": "tier2:u4+factored"}
    rung = of_default.get(kind, f"tier2:{'fp32+fp32' if kind == 'fp32' else kind}")
    assert of["rungs"]["up.weight"] == of["rungs"]["down.weight"] == rung


# ---- what must be refused ---------------------------------------------------------------------


@either
@pytest.mark.parametrize("what", ["lr", "budget", "gate", "parameters"])
def test_ranks_that_disagree_all_raise(found: list[Findings], ranks: int, what: str) -> None:
    for of in each(found, ranks, "disagreeing"):
        kind, text, unchanged = of[what]
        assert kind == "DisagreementError" and "ranks differ in " in text
        assert f"rank {ranks - 1} has" in text and unchanged


@either
def test_a_gradient_that_is_not_finite_on_one_rank_is_an_error_on_all(
    found: list[Findings], ranks: int
) -> None:
    for rank, (kind, text, unchanged) in enumerate(each(found, ranks, "not finite")):
        assert kind == "NonfiniteGradientError" and unchanged
        assert ("'table.weight' has 1" if rank == 1 else "in another rank's shard") in text


@either
def test_a_step_is_left_out_on_all_ranks_or_on_none(found: list[Findings], ranks: int) -> None:
    for left_out, text, unchanged, taken, other, same in each(found, ranks, "skipped"):
        assert (left_out, text, unchanged) == ("none", "", True)
        assert (taken, other, same) == ("none", "", False)
