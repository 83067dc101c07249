"""Ranks that train together and compress what they send: one launch of three, many checks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from cosmic.distributed import CODECS, bytes_of
from rank_checks import DISAGREEING, RANKS, WAYS_TO_BUCKET, run
from rank_processes import Findings, findings_of
from wire_models import CLASSES, WIDTH

PAIR = [0, 1]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[Findings]:
    """What every rank has found; a rank that failed says so here."""
    everyone = findings_of(run, RANKS, tmp_path_factory.mktemp("ranks"))
    errors = [findings["error"] for findings in everyone if "error" in findings]
    assert not errors, "\n".join(errors)
    return everyone


def same_on(found: list[Findings], ranks: list[int], name: str) -> Any:
    """A finding that all of these ranks have alike."""
    findings = [found[rank][name] for rank in ranks]
    assert all(finding == findings[0] for finding in findings[1:]), f"{name}: {findings}"
    return findings[0]


def parameters_in(found: list[Findings], ranks: list[int], name: str) -> dict[str, str]:
    """By codec, the digest of parameters that all of these ranks have alike."""
    by_rank = [{c: both[0] for c, both in found[rank][name].items()} for rank in ranks]
    assert all(digests == by_rank[0] for digests in by_rank[1:]), f"{name}: {by_rank}"
    return by_rank[0]


def test_what_was_sent_and_what_is_kept_is_the_sum_of_gradients(found: list[Findings]) -> None:
    """To the rounding of a float, or of what is kept in bfloat16 at each of six steps."""
    gaps = same_on(found, list(range(RANKS)), "sums")
    assert len(gaps) == 2 * len(CODECS)
    for name, by_parameter in gaps.items():
        assert set(by_parameter) >= {"table.weight", "hidden.weight", "head.weight", "norm.bias"}
        assert max(by_parameter.values()) < (1e-6 if "fp32" in name else 6 * 2**-8), name


@pytest.mark.parametrize("name", ["three ranks", "threads"])
def test_ranks_end_with_the_same_bits(found: list[Findings], name: str) -> None:
    digests = parameters_in(found, list(range(RANKS)), name)
    assert len(set(digests.values())) == len(CODECS)
    kept = {found[rank][name]["u4"][1] for rank in range(RANKS)}
    assert len(kept) == RANKS, "ranks keep what each has not sent"


def test_threads_make_no_difference(found: list[Findings]) -> None:
    for findings in found:
        assert findings["threads"] == findings["three ranks"]


def test_buckets_make_no_difference(found: list[Findings]) -> None:
    parameters_in(found, PAIR, "bucket one")
    for findings in found[:2]:
        ways = [findings[f"bucket {name}"] for name in WAYS_TO_BUCKET]
        assert all(way == ways[0] for way in ways)


def test_a_static_graph_makes_no_difference(found: list[Findings]) -> None:
    for findings in found[:2]:
        for codec, (parameters, _) in findings["steady"].items():
            assert findings["static"][codec][0] == parameters


def test_a_rank_alone_compresses_as_well(found: list[Findings]) -> None:
    digests = [findings["alone"]["u4"][0] for findings in found]
    assert len(set(digests)) == RANKS, "nothing was exchanged"
    assert all(len({d[0] for d in f["alone"].values()}) == len(CODECS) for f in found)


def test_small_gradients_are_averaged_in_the_order_of_ranks(found: list[Findings]) -> None:
    total = np.float32(0)
    for findings in found:
        total = total + findings["mean as it is"][0].astype(np.float32)
    wanted = (total / np.float32(RANKS)).astype(np.float16)
    for findings in found:
        assert np.array_equal(findings["mean as it is"][1], wanted)


def test_a_gradient_may_have_any_layout(found: list[Findings]) -> None:
    """Torch's own list of a bucket's gradients has half of a complex one, and does not know in
    which order the memory of another is."""
    for name in found[0]["layouts"]:
        far, _ = same_on([f["layouts"] for f in found], list(range(RANKS)), name)
        assert far < 1e-6, name


def test_a_state_takes_the_group_of_its_model(found: list[Findings]) -> None:
    assert same_on(found, list(range(RANKS)), "its own group")


def test_a_run_that_is_resumed_has_the_same_bits(found: list[Findings]) -> None:
    for findings in found[:2]:
        whole, resumed = findings["resumed"]
        assert resumed == whole
    assert found[0]["resumed"][0][0] == found[1]["resumed"][0][0]


def test_gradients_that_were_accumulated_are_sent_once(found: list[Findings]) -> None:
    for findings in found[:2]:
        steps, gap = findings["accumulated"]
        assert steps == 1 and gap < 1e-6


def test_nothing_is_sent_of_a_parameter_that_a_rank_did_not_use(found: list[Findings]) -> None:
    """Where all have none, torch takes no gradient: what would be sent then would be lost."""
    for rank in PAIR:
        steps = found[rank]["resting"]
        assert steps["0"] == (True, False)
        assert steps["1"][1], "no rank used it"
        assert steps["2"] == (True, rank == 1)


def test_other_types_of_parameters(found: list[Findings]) -> None:
    for dtype in (torch.bfloat16, torch.float64):
        name, _, moved = same_on(found, PAIR, "types")[str(dtype)]
        assert name == str(dtype) and moved


def test_what_is_not_finite_spoils_its_block_on_every_rank(found: list[Findings]) -> None:
    for codec in CODECS:
        for findings in found[:2]:
            of = findings["nonfinite"][codec]
            assert of["spoiled"] == [5] and of["wholly"]
            assert of["step"] == "NonfiniteGradientError"
        assert found[1]["nonfinite"][codec]["kept"] == [row for row in range(16) if row != 5]
        assert found[0]["nonfinite"][codec]["kept"] == list(range(16))


def test_a_hook_may_come_after_some_steps(found: list[Findings]) -> None:
    steps, _ = same_on(found, PAIR, "late")
    assert steps == 2


def test_copies_go_on_as_the_original(found: list[Findings]) -> None:
    for findings in found[:2]:
        assert len(set(findings["copies"])) == 1


def test_a_frozen_parameter_keeps_nothing_and_sends_nothing(found: list[Findings]) -> None:
    names, kept, sent = same_on(found, PAIR, "frozen")
    assert names == ["head.weight", "hidden.weight", "other.weight"]
    assert kept == 2 * (WIDTH * WIDTH + 2 * CLASSES * WIDTH)
    encoded = bytes_of(WIDTH * WIDTH, "u4") + 2 * bytes_of(CLASSES * WIDTH, "u4")
    plain = 4 * (WIDTH + 2 * WIDTH + 2 * CLASSES)
    assert encoded + plain <= sent < encoded + plain + 64


def test_a_rank_may_have_more_batches_than_another(found: list[Findings]) -> None:
    same_on(found, PAIR, "uneven")


@pytest.mark.parametrize("name", DISAGREEING)
def test_ranks_that_disagree_all_raise(found: list[Findings], name: str) -> None:
    kind, text = same_on(found, PAIR, f"disagreeing {name}")
    assert "DisagreementError" in kind + text and f"ranks differ in {name}: rank 0 has " in text


def test_a_state_serves_one_model(found: list[Findings]) -> None:
    kind, text = same_on(found, PAIR, "another model")
    assert "UsageError" in kind + text and "belongs to no parameter of this state" in text


def test_a_second_hook_is_refused(found: list[Findings]) -> None:
    kind, _ = same_on(found, PAIR, "twice")
    assert kind == "RuntimeError"


def test_ranks_do_not_step_before_they_have_the_mean(found: list[Findings]) -> None:
    kind, text = same_on(found, list(range(RANKS)), "steps in backward")
    assert kind == "ValueError" and "call step() after backward" in text


def test_a_rank_that_dies_ends_the_others(found: list[Findings]) -> None:
    assert "death" not in found[2]
    for findings in found[:2]:
        kind, text = findings["death"]
        assert kind != "none" and text, "no collective waits for ever"
