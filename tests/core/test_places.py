"""A tensor that is cut into shards has the bits of the whole one: random bits go by an element's
place in the whole tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from conftest import Runner
from cosmic import Rung, _core
from cuts import BLOCK, Place, Stepped, by_columns, by_rows, spans
from helpers import normal, real_dtype_name, same_bits

STEPS = 3

#: Whose blocks know nothing of each other.
IN_BLOCKS = (
    "tier0", "tier2:fp32+fp32", "tier2:bf16+bf16", "tier2:q8+q8", "tier2:u4+v4", "tier2:u2+v4",
    "tier2:u1+v4", "tier2:q8+v4+slow", "tier2:u4+v4+softsign", "tier2:u4+q8",
    "tier2:bf16+bf16+slow",
)  # fmt: skip
#: Of these, such as need no blocks.
PLAIN = ("tier0", "tier2:fp32+fp32", "tier2:bf16+bf16", "tier2:bf16+bf16+slow")
REAL = (torch.float32, torch.bfloat16, torch.float16)


def rung_of(name: str, dtype: torch.dtype) -> Rung:
    if dtype == torch.float64 and name != "tier0":
        return Rung.parse("tier2:fp64+fp64")
    return Rung.parse(name)


def options_of(rung: Rung) -> dict[str, Any]:
    return {"beta_slow": 0.99, "alpha": 2.0} if rung.m_slow != "none" else {}


def made(param: Tensor, name: str, place: Place | None = None) -> Stepped:
    rung = rung_of(name, param.dtype)
    return Stepped(param, rung, place, options=options_of(rung))


def gradients(shape: Sequence[int], dtype: torch.dtype) -> list[Tensor]:
    return [normal(10 + k, *shape, dtype=dtype, scale=0.1) for k in range(STEPS)]


def stepped(param: Tensor, several: Sequence[Tensor], name: str, place: Place | None) -> Stepped:
    subject = made(param.clone(), name, place)
    for gradient in several:
        assert subject.step(gradient.clone()) is not None
    return subject


def joined(
    shards: Sequence[Stepped], whole: Stepped, dim: int = 0
) -> dict[str, tuple[Tensor, Tensor]]:
    """Parameter and state of shards, one after another, and of the whole tensor."""

    def together(tensors: list[Tensor], like: Tensor) -> Tensor:
        if like.dim() == 0:
            for tensor in tensors:
                assert torch.equal(tensor, like)
            return like
        if like.shape == whole.param.shape:
            return torch.cat(tensors, dim)
        if dim == 0:
            return torch.cat(tensors)
        rows = whole.param.shape[0]  # of codes
        return torch.cat([t.view(rows, -1) for t in tensors], 1).flatten()

    found = {"param": (together([s.param for s in shards], whole.param), whole.param)}
    for key, value in whole.state.items():
        found[key] = (together([s.state[key] for s in shards], value), value)
    return found


def assert_same(shards: Sequence[Stepped], whole: Stepped, dim: int = 0) -> None:
    for key, (cut, one) in joined(shards, whole, dim).items():
        assert same_bits(cut, one), key


@pytest.mark.parametrize("cuts", [(2,), (0, 1, 1, 6), (3, 7)], ids=str)
@pytest.mark.parametrize("columns", [128, 256, 384])
@pytest.mark.parametrize("dtype", [*REAL, torch.float64], ids=real_dtype_name)
@pytest.mark.parametrize("name", IN_BLOCKS)
def test_shards_of_rows_have_the_bits_of_the_whole(
    name: str, dtype: torch.dtype, columns: int, cuts: Sequence[int]
) -> None:
    shape = (7, columns)
    param, several = normal(1, *shape, dtype=dtype), gradients(shape, dtype)
    whole = stepped(param, several, name, None)
    places = by_rows(shape, cuts)
    shards = [
        stepped(param[a:b], [g[a:b] for g in several], name, place)
        for (a, b), place in zip(spans(7, cuts), places, strict=True)
    ]
    assert_same(shards, whole)
    assert all(int(s.state["step"]) == STEPS for s in shards if s.rung.counts)


@pytest.mark.parametrize("name", [n for n in IN_BLOCKS if n not in ("tier0", "tier2:fp32+fp32")])
def test_a_shard_without_its_place_has_other_bits(name: str) -> None:
    """What the tests here compare does depend on the place."""
    param, several = normal(1, 4, 256), gradients((4, 256), torch.float32)
    whole = stepped(param, several, name, None)
    here = stepped(param[2:], [g[2:] for g in several], name, None)
    state = [key for key in whole.state if key != "step"]
    assert any(not same_bits(here.state[k], whole.state[k][-len(here.state[k]) :]) for k in state)


@pytest.mark.parametrize("cuts", [(128,), (256, 512), (0, 384)], ids=str)
@pytest.mark.parametrize("dtype", REAL, ids=real_dtype_name)
@pytest.mark.parametrize("name", ["tier0", "tier2:bf16+bf16", "tier2:u4+v4", "tier2:q8+v4+slow"])
def test_shards_of_columns_have_the_bits_of_the_whole(
    name: str, dtype: torch.dtype, cuts: Sequence[int]
) -> None:
    shape = (9, 640)
    param, several = normal(1, *shape, dtype=dtype), gradients(shape, dtype)
    whole = stepped(param, several, name, None)
    shards = [
        stepped(param[:, a:b].contiguous(), [g[:, a:b].contiguous() for g in several], name, place)
        for (a, b), place in zip(spans(640, cuts), by_columns(shape, cuts), strict=True)
    ]
    assert_same(shards, whole, dim=1)


def whole_and_shards(
    name: str, dtype: torch.dtype, shape: tuple[int, ...], cuts: Sequence[int]
) -> tuple[list[Stepped], Stepped]:
    param, several = normal(1, *shape, dtype=dtype), gradients(shape, dtype)
    places = by_rows(shape, cuts, lead=True)
    shards = [
        stepped(param[a:b], [g[a:b] for g in several], name, place)
        for (a, b), place in zip(spans(shape[0], cuts), places, strict=True)
    ]
    return shards, stepped(param, several, name, None)


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(PLAIN),
    dtype=st.sampled_from((*REAL, torch.float64)),
    inner=st.sampled_from([(), (1,), (3,), (77,), (130,), (5, 17)]),
    rows=st.integers(1, 40),
    cuts=st.lists(st.integers(0, 40), max_size=4),
)
@example(
    name="tier2:bf16+bf16", dtype=torch.bfloat16, inner=(), rows=1000, cuts=[1, 127, 128, 129, 700]
)
@example(name="tier2:bf16+bf16", dtype=torch.bfloat16, inner=(), rows=300, cuts=[5, 6, 6, 133, 260])
@example(name="tier2:bf16+bf16", dtype=torch.float32, inner=(77,), rows=300, cuts=[211])
def test_shards_that_begin_in_mid_block_have_the_bits_of_the_whole(
    name: str, dtype: torch.dtype, inner: tuple[int, ...], rows: int, cuts: list[int]
) -> None:
    shape, ends = (rows, *inner), sorted(min(cut, rows) for cut in cuts)
    assert_same(*whole_and_shards(name, dtype, shape, ends))


@pytest.mark.parametrize("cuts", [(5, 6, 133, 260), (128,), (299,)], ids=str)
@pytest.mark.parametrize("name", ["tier0", "tier2:bf16+bf16", "tier2:u4+v4"])
def test_masters_and_copies_are_those_of_the_whole(name: str, cuts: Sequence[int]) -> None:
    """Eight bits more of bfloat16, which are rounded by their place, too, and a float16 copy."""
    rung, packed = Rung.parse(name), name == "tier2:u4+v4"
    shape = (300, 128) if packed else (300,)
    param, several = normal(1, *shape, dtype=torch.bfloat16), gradients(shape, torch.float32)

    def taken(first: int, last: int, place: Place | None) -> tuple[Stepped, Tensor]:
        subject = Stepped(param[first:last].clone(), rung, place, master=True)
        copy = torch.zeros(subject.param.shape, dtype=torch.float16)
        subject.param.grad_dtype = torch.float32
        for gradient in several:
            subject.step(gradient[first:last].clone(), copy=copy)
        return subject, copy

    whole, copy = taken(0, shape[0], None)
    places = by_rows(shape, cuts, lead=True)
    both = [taken(a, b, place) for (a, b), place in zip(spans(shape[0], cuts), places, strict=True)]
    assert_same([shard for shard, _ in both], whole)
    assert same_bits(torch.cat([own for _, own in both]), copy)
    assert bool(whole.state["master_low"].any())


def test_a_shard_that_begins_in_mid_block_divides_no_padding_by_zero() -> None:
    """With eps 0 an element without any gradient is 0/0 of its own, and padding nobody's."""
    param, gradient = normal(1, 200), normal(2, 200) + 3
    rung = Rung.parse("tier2:bf16+bf16")
    shard = Stepped(param[50:].clone(), rung, (0, 1, 1, 50, 200, 200), options={"eps": 0.0})
    shard.step(gradient[50:].clone())
    assert shard.plan.nonfinite == 0
    ((_, _, mean, rms, _, _),) = shard.plan.statistics()
    assert mean == pytest.approx(float(gradient[50:].abs().mean()), rel=1e-6)
    assert rms == pytest.approx(1.0, rel=1e-3)


@pytest.mark.parametrize("name", ["tier2:u4+v4", "tier2:q8+q8"])
def test_packed_blocks_are_the_shards_own_where_they_would_straddle(name: str) -> None:
    """What comes before the shard in its first block is not looked at."""
    param, several = normal(1, 300), gradients((300,), torch.float32)
    with_lead = stepped(param[7:], [g[7:] for g in several], name, (4, 1, 1, 7, 300, 300))
    without = stepped(param[7:], [g[7:] for g in several], name, (5, 1, 1, 0, 300, 300))
    assert_same([with_lead], without)


@pytest.mark.parametrize("dtype", REAL, ids=real_dtype_name)
def test_moments_are_encoded_by_their_place(dtype: torch.dtype) -> None:
    """What carries moments to another rung draws the whole tensor's random bits, too."""
    numel, cut = 1000, 333
    moments = {"exp_avg": normal(1, numel), "exp_avg_sq": normal(2, numel).square()}

    def encoded(first: int, last: int, place: Place | None) -> Stepped:
        subject = made(torch.zeros(last - first, dtype=dtype), "tier2:bf16+bf16", place)
        subject.state["step"].fill_(3)
        subject.plan.write_moments(
            subject.group, {key: value[first:last].clone() for key, value in moments.items()}
        )
        return subject

    whole = encoded(0, numel, None)
    places = by_rows((numel,), (cut,), lead=True)
    shards = [encoded(0, cut, places[0]), encoded(cut, numel, places[1])]
    assert_same(shards, whole)
    out = {key: torch.empty(numel - cut) for key in moments}
    shards[1].plan.read_moments(shards[1].group, out)
    for key, value in out.items():
        assert torch.equal(value, whole.state[key][cut:].float()), key


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=real_dtype_name)
def test_rows_and_columns_step_shards_of_one_row_and_of_none(dtype: torch.dtype) -> None:
    """Where a codec keeps rows and columns, each shard has its own; all count the step."""
    rung, (rows, columns) = Rung.parse("tier2:u4+factored"), (5, 256)
    param, gradient = normal(1, rows, columns, dtype=dtype), normal(2, rows, columns, dtype=dtype)
    places = by_rows((rows, columns), (4, 5))
    for (a, b), place in zip(spans(rows, (4, 5)), places, strict=True):
        matrix = ((b - a, columns), (rows, columns), "rows")
        shard = Stepped(param[a:b].clone(), rung, place, matrix)
        before = shard.param.clone()
        shard.step(gradient[a:b].clone())
        assert int(shard.state["step"]) == 1
        assert torch.equal(before, shard.param) == (a == b)
        assert bool(shard.state["exp_avg_sq_col"].all()) == (a < b)


@pytest.mark.parametrize(
    ("shape", "cuts"), [((6, 256), (1, 2, 5)), ((1, 384), ()), ((1, 2, 640), (0,))], ids=str
)
def test_gates_of_rows_see_those_of_the_whole(shape: tuple[int, ...], cuts: Sequence[int]) -> None:
    """Also where a shard has a single row; a tensor that has but one is looked at as a whole."""
    rung, options = Rung.parse("tier2:fp32+fp32"), {"norm_granularity": "row"}
    param, gradient = normal(1, *shape), normal(2, *shape) + 0.5

    def taken(first: int, last: int, place: Place | None) -> Stepped:
        subject = Stepped(
            param[first:last].clone(), rung, place, gate="trust", exact=True, options=dict(options)
        )
        for k in range(STEPS):
            subject.step((k + 1) * gradient[first:last])
        return subject

    places = by_rows(shape, cuts)
    shards = [
        taken(a, b, place) for (a, b), place in zip(spans(shape[0], cuts), places, strict=True)
    ]
    whole = taken(0, shape[0], None)
    assert same_bits(torch.cat([shard.param for shard in shards]), whole.param)
    factor = whole.plan.statistics()[0][4]
    assert factor != 1
    if shape[0] == 1:
        assert [s.plan.statistics()[0][4] for s in shards if s.param.numel()] == [factor]


def test_a_shard_counts_its_steps_whatever_its_own_gradient_is() -> None:
    """Of the whole tensor, whose scalars such a step leaves alone, no count would be taken."""
    shard = Stepped(torch.ones(4, 128), Rung.parse("tier1"), (0, 4, 4, 0, 1024, 8))
    alone = Stepped(torch.ones(4, 128), Rung.parse("tier1"))
    for subject in (shard, alone):
        gradient = torch.ones(4, 128)
        gradient[1, 1] = torch.nan
        subject.step(gradient)
    assert (int(shard.state["step"]), int(alone.state["step"])) == (1, 0)


def digest_of_shards(name: str, threads: int) -> list[bytes]:
    """Several work items, cut in mid-block, in 16-bit parameters."""
    shards, whole = whole_and_shards(name, torch.bfloat16, (BLOCK * BLOCK * 2 + 77,), (16_999,))
    again = [made(normal(1, len(s.param), dtype=torch.bfloat16), name, s.place) for s in shards]
    for subject in again:
        for k in range(STEPS):
            subject.step(normal(k, len(subject.param), dtype=torch.bfloat16), threads)
    tensors = [t for s in (*shards, whole, *again) for t in (s.param, *s.state.values())]
    return [t.contiguous().view(-1).view(torch.uint8).numpy().tobytes() for t in tensors]


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("name", ["tier2:bf16+bf16", "tier2:fp32+fp32", "tier2:bf16+bf16+slow"])
def test_bits_of_shards_depend_neither_on_isa_nor_on_threads(
    name: str, threads: int, on_isa: Runner
) -> None:
    assert on_isa(digest_of_shards, name, threads) == digest_of_shards(name, 1)


@pytest.mark.parametrize(
    ("place", "matrix"),
    [
        ((-1, 1, 1, 0, 1024, 8), None),
        ((0, 1, 1, 128, 1024, 8), None),
        ((0, 1, 1, -1, 1024, 8), None),
        ((0, 2, 1, 0, 1024, 8), None),
        ((0, 0, 2, 0, 1024, 8), None),
        ((0, 1, 2, 5, 1024, 8), None),
        ((0, 1, 1, 0, 511, 8), None),
        ((0, 1, 1, 0, 1024, 8), ((3, 128), (8, 128), "rows")),
        ((0, 1, 1, 0, 1024, 8), ((64, 8), (128, 8), "rows")),
        ((0, 1, 1, 0, 1024, 8), ((4, 128), (8, 128), "cells")),
    ],
)  # fmt: skip
def test_a_place_that_cannot_be_is_refused(place: Place, matrix: Any) -> None:
    with pytest.raises(ValueError, match=r"it (cannot lie there|is said to be)|is cut along"):
        Stepped(torch.ones(4, 128), Rung.parse("tier2:fp32+fp32"), place, matrix)


def test_an_exchange_is_a_callable_or_none() -> None:
    plan = _core.Plan(0)
    plan.set_exchange(None)
    plan.set_exchange(lambda sums, rows: None)
