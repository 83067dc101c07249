"""Sums of a tensor's shards, exchanged within the step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from cosmic import Rung
from cosmic.parts import GATES
from cosmic.presets import CASMO, Tiger
from cuts import Matrix, Place, Ranks, Stepped, by_columns, by_rows, side_by_side, spans
from helpers import normal, same_bits

STEPS = 4
SHAPE = (48, 256)

#: What keeps sums of the whole tensor, with the gates that do.
SUBJECTS: dict[str, dict[str, Any]] = {
    "tier1": {"rung": "tier1"},
    "tier1:v4": {"rung": "tier1:v4"},
    "tier1:factored": {"rung": "tier1:factored"},
    "tier1:rowmean": {"rung": "tier1:rowmean"},
    "u4+factored": {"rung": "tier2:u4+factored"},
    "ustate": {"rung": "tier2:ustate+v4"},
    "snr": {"rung": "tier2:bf16+bf16", "gate": "snr"},
    "trust": {"rung": "tier2:fp32+fp32", "gate": "trust"},
    "trust-exact": {"rung": "tier2:u4+factored", "gate": "trust", "exact": True},
    "agc+clip-exact": {"rung": "tier2:fp32+fp32", "gate": "agc+update_clipping", "exact": True},
    "casmo": {"rung": "tier2:fp32+fp32", "gate": "calibrated_agar", "exact": True,
              "preset": "casmo"},
    "tiger": {"rung": "tier2:fp32+factored+tiger", "gate": "tiger_literal", "exact": True,
              "preset": "tiger"},
    "agar": {"rung": "tier2:u4+v4+centered", "gate": "agar"},
    "agar-exact": {"rung": "tier2:fp32+fp32+centered", "gate": "agar", "exact": True},
}  # fmt: skip


def subject(
    name: str, param: Tensor, place: Place | None = None, matrix: Matrix | None = None
) -> Stepped:
    about = dict({**SUBJECTS, **OF_SHARDS}[name])
    rung = Rung.parse(about.pop("rung"))
    keeps_sides = rung.v in ("factored", "rowmean", "colmean")
    options: dict[str, Any] = {"clip_update": 0.9} if "clip" in name else {}
    if "norm_granularity" in about:
        options["norm_granularity"] = about.pop("norm_granularity")
    if "preset" in about:
        about.update(preset_of(about.pop("preset"), param))
    return Stepped(param, rung, place, matrix if keeps_sides else None, options=options, **about)


def gradients(shape: Sequence[int]) -> list[Tensor]:
    """Of a size that differs by row, column and step."""
    rows = torch.linspace(0.2, 3, shape[0]).unsqueeze(1)
    columns = torch.linspace(0.5, 2, shape[1])
    return [(0.5 + k) * rows * columns * normal(10 + k, *shape) + 0.1 for k in range(STEPS)]


def cut_up(name: str, cuts: Sequence[int], dim: int = 0) -> list[Stepped]:
    """A shard for each rank, stepped side by side."""
    param, several = normal(1, *SHAPE), gradients(SHAPE)
    places = by_rows(SHAPE, cuts) if dim == 0 else by_columns((SHAPE[0], SHAPE[1]), cuts)
    ranks = Ranks(len(places))
    shards, works = [], []
    for rank, ((a, b), place) in enumerate(zip(spans(SHAPE[dim], cuts), places, strict=True)):
        here = (b - a, SHAPE[1]) if dim == 0 else (SHAPE[0], b - a)
        matrix = (here, (SHAPE[0], SHAPE[1]), "columns" if dim else "rows")
        shard = subject(name, param.narrow(dim, a, b - a).clone(), place, matrix)
        shard.plan.set_exchange(ranks.exchange(rank))

        def work(shard: Stepped = shard, a: int = a, b: int = b) -> None:
            for gradient in several:
                shard.step(gradient.narrow(dim, a, b - a).clone())

        shards.append(shard)
        works.append(work)
    side_by_side(works)
    assert all(calls == ranks.calls[0] for calls in ranks.calls)
    return shards


def one_process(name: str) -> Stepped:
    whole = subject(name, normal(1, *SHAPE))
    for gradient in gradients(SHAPE):
        whole.step(gradient.clone())
    return whole


def kept_of_all(shard: Stepped) -> list[str]:
    """Entries that are the same in every process."""
    gates = [GATES[name].numbers for name in shard.gate.split("+") if name != "none"]
    keys = ["step", *(n.key for n in (*shard.rung.numbers, *gates) if n)]
    if shard.matrix:
        keys.append("exp_avg_sq_row" if shard.matrix[2] == "columns" else "exp_avg_sq_col")
    return [key for key in keys if key in shard.state]


def close(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a.double(), b.double(), rtol=2e-5, atol=1e-12)


@pytest.mark.parametrize("cuts", [(17,), (0, 40)], ids=["two", "empty-among-three"])
@pytest.mark.parametrize("name", SUBJECTS)
def test_ranks_know_the_same_of_a_tensor_and_what_one_process_knows(
    name: str, cuts: Sequence[int]
) -> None:
    shards, whole = cut_up(name, cuts), one_process(name)
    for shard in shards:
        for key in kept_of_all(shard):
            assert same_bits(shard.state[key], shards[0].state[key]), key
            assert close(shard.state[key], whole.state[key]), key
        about = shard.plan.statistics()[0][2:]
        assert about == pytest.approx(whole.plan.statistics()[0][2:], rel=1e-4, nan_ok=True)
        assert about == pytest.approx(shards[0].plan.statistics()[0][2:], rel=0, nan_ok=True)
    if "exp_avg_sq_row" in whole.state:
        rows = torch.cat([shard.state["exp_avg_sq_row"] for shard in shards])
        assert close(rows, whole.state["exp_avg_sq_row"])
    moved = torch.cat([shard.param for shard in shards]) - normal(1, *SHAPE)
    assert torch.allclose(moved, whole.param - normal(1, *SHAPE), rtol=2e-3, atol=2e-5)


#: Where each process finds some numbers of its own shard, by norms that shards do not share.
OF_SHARDS: dict[str, dict[str, Any]] = {
    "rows": {"rung": "tier2:fp32+fp32", "gate": "trust", "norm_granularity": "row"},
    "rows-exact": {"rung": "tier2:u4+factored", "gate": "agc+snr", "exact": True,
                   "norm_granularity": "row"},
    "muon": {"rung": "tier2:muon:m4", "gate": "trust"},
    "muon-exact": {"rung": "tier1:muon", "gate": "trust+agc", "exact": True},
    "muon-rows": {"rung": "tier2:muon:bf16", "gate": "trust+snr", "norm_granularity": "row"},
    "costate": {"rung": "tier2:costate+fp32"},
}  # fmt: skip


@pytest.mark.parametrize("cuts", [(17,), (0, 40), (48,)], ids=["two", "three", "all-and-none"])
@pytest.mark.parametrize("name", OF_SHARDS)
def test_ranks_exchange_the_same_sums_whatever_is_their_own(name: str, cuts: Sequence[int]) -> None:
    """A rank whose shard is empty would else wait for others that do not come."""
    shards = cut_up(name, cuts)
    for shard in shards:
        assert int(shard.state["step"]) == STEPS if shard.rung.counts else True
        assert bool(torch.isfinite(shard.param).all())
        if name == "costate":
            assert same_bits(
                shard.state["exp_avg_costate_alpha"], shards[0].state["exp_avg_costate_alpha"]
            )


def preset_of(name: str, param: Tensor) -> dict[str, Any]:
    """A preset's group and what its gate keeps of it."""
    params = [torch.nn.Parameter(param.clone())]
    if name == "tiger":
        tiger = Tiger(params, lr=1e-3, compat="2.2")
        return {"preset": tiger, "memory": tiger._average_by_group()[0]}
    casmo = CASMO(params, lr=1e-3, exact=True, total_steps=1000)
    return {"preset": casmo, "memory": casmo._calibrations[0]}


@pytest.mark.parametrize("cuts", [(128,), (0,)], ids=["two", "empty"])
@pytest.mark.parametrize("name", ["tier1:factored", "u4+factored", "tier1:rowmean", "trust-exact"])
def test_shards_of_columns_share_the_means_of_rows(name: str, cuts: Sequence[int]) -> None:
    shards, whole = cut_up(name, cuts, dim=1), one_process(name)
    for shard in shards:
        assert close(shard.state["exp_avg_sq_row"], whole.state["exp_avg_sq_row"])
    if "exp_avg_sq_col" in whole.state:
        columns = torch.cat([shard.state["exp_avg_sq_col"] for shard in shards])
        assert close(columns, whole.state["exp_avg_sq_col"])


def test_sums_are_those_of_all_shards_in_the_order_of_ranks() -> None:
    """The first numbers of a row are its sums of |g| and of squared updates."""
    gradient = normal(3, 4, 128)
    seen: list[Tensor] = []

    def others(sums: Any, rows: list[tuple[int, int]]) -> None:
        assert rows == [(0, len(sums))]
        mine = torch.frombuffer(sums, dtype=torch.float64)
        seen.append(mine.clone())
        mine[0] += 1000

    shard = Stepped(torch.zeros(4, 128), Rung.parse("tier2:fp32+fp32"), (0, 4, 4, 0, 2048, 16))
    shard.plan.set_exchange(others)
    shard.step(gradient)
    (first,) = seen
    assert float(first[0]) == pytest.approx(float(gradient.abs().double().sum()), rel=1e-6)
    assert shard.plan.statistics()[0][2] == (float(first[0]) + 1000) / 2048


def test_only_shards_are_exchanged() -> None:
    calls: list[Any] = []
    alone = Stepped(torch.zeros(4, 128), Rung.parse("tier2:u4+factored"))
    alone.plan.set_exchange(lambda sums, rows: calls.append(rows))
    alone.step(normal(3, 4, 128))
    assert calls == []


def test_looking_at_gradients_exchanges_nothing() -> None:
    calls: list[Any] = []
    shard = Stepped(torch.zeros(4, 128), Rung.parse("tier2:fp32+fp32"), (0, 4, 4, 0, 2048, 16))
    shard.plan.set_exchange(lambda sums, rows: calls.append(rows))
    shard.param.grad = normal(3, 4, 128)
    found = shard.plan.inspect([shard.group], shard.states, 1)
    assert found is not None
    ((index, mean, nonfinite),) = found
    assert (index, nonfinite) == (5, 0)
    assert mean == pytest.approx(float(shard.param.grad.abs().mean()))
    assert calls == []


def test_an_empty_shard_has_nothing_to_look_at() -> None:
    place = (0, 1, 1, 0, 2048, 16)
    shard = Stepped(torch.zeros(0, 128), Rung.parse("tier2:fp32+fp32"), place)
    shard.plan.set_exchange(lambda sums, rows: None)
    shard.param.grad = torch.zeros(0, 128)
    assert shard.plan.inspect([shard.group], shard.states, 1) == [(5, 0.0, 0)]


def test_what_an_exchange_raises_leaves_the_step() -> None:
    def broken(sums: Any, rows: list[tuple[int, int]]) -> None:
        del sums, rows
        raise ConnectionError("a rank is gone")

    shard = Stepped(torch.zeros(4, 128), Rung.parse("tier2:fp32+fp32"), (0, 4, 4, 0, 2048, 16))
    shard.plan.set_exchange(broken)
    with pytest.raises(ConnectionError, match="a rank is gone"):
        shard.step(normal(3, 4, 128))
    shard.plan.set_exchange(None)
    shard.step(normal(3, 4, 128))
    assert int(shard.state["step"]) == 1


def test_an_exchange_that_fails_before_the_step_has_changed_nothing() -> None:
    """And the next step takes the passes that it would have taken without."""

    def broken(sums: Any, rows: list[tuple[int, int]]) -> None:
        del sums, rows
        raise ConnectionError("a rank is gone")

    rung, place = Rung.parse("tier2:u4+v4"), (0, 4, 4, 0, 1024, 8)
    calls: list[Any] = []
    shard = Stepped(normal(1, 4, 128), rung, place, gate="trust", exact=True)
    before = {key: value.clone() for key, value in shard.state.items()}
    shard.plan.set_exchange(broken)
    with pytest.raises(ConnectionError):
        shard.step(normal(3, 4, 128))
    assert same_bits(shard.param, normal(1, 4, 128))
    assert all(same_bits(shard.state[key], value) for key, value in before.items())
    shard.plan.set_exchange(lambda sums, rows: calls.append(rows))
    shard.step(normal(3, 4, 128))
    assert len(calls) == 2  # the measuring pass's sums, and the step's


def test_elements_that_are_not_finite_are_counted_everywhere() -> None:
    ranks, shards = Ranks(2), []
    for rank, place in enumerate(by_rows((4, 128), (2,))):
        shard = Stepped(torch.zeros(2, 128), Rung.parse("tier1"), place)
        shard.plan.set_exchange(ranks.exchange(rank))
        shards.append(shard)
    bad = torch.ones(2, 128)
    bad[1, 5] = torch.inf
    side_by_side([lambda: shards[0].step(torch.ones(2, 128)), lambda: shards[1].step(bad)])
    assert [shard.plan.nonfinite for shard in shards] == [1, 1]
    assert [int(shard.state["step"]) for shard in shards] == [0, 0]  # as of one tensor


def test_a_step_of_one_row_exchanges_its_sums() -> None:
    ranks, shards = Ranks(2), []
    gradient = normal(3, 4, 128)
    for rank, place in enumerate(by_rows((4, 128), (1,))):
        shard = Stepped(torch.zeros(3 if rank else 1, 128), Rung.parse("tier1"), place)
        shard.plan.set_exchange(ranks.exchange(rank))
        shards.append(shard)

    def work(shard: Stepped, own: Tensor) -> None:
        shard.param.grad = own.clone()
        assert shard.plan.begin([shard.group], shard.states)
        assert shard.plan.step_one([shard.group], shard.states, 1, 0, 0, shard.param)

    side_by_side([lambda: work(shards[0], gradient[:1]), lambda: work(shards[1], gradient[1:])])
    for shard in shards:
        assert shard.plan.statistics()[0][2] == pytest.approx(float(gradient.abs().mean()))
    assert same_bits(shards[0].state["magnitude"], shards[1].state["magnitude"])
