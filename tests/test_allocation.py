"""Who gets which rung: the allocator alone, and what the optimizer makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from cosmic import Candidate, Cosmic, Rung, SignalAllocator
from helpers import UNUSUAL, digest, normal, parameters, take_steps

FULL = Rung(2, "fp32", "none", "fp32")
LADDER = (Rung(0), Rung(1), FULL)


def candidate(index: int, numel: int, signal: float, current: Rung | None = None) -> Candidate:
    return Candidate(index, numel, LADDER, current, signal)


def tiers(rungs: Sequence[Rung]) -> list[int]:
    return [rung.tier for rung in rungs]


def cost(rungs: Sequence[Rung], candidates: Sequence[Candidate]) -> int:
    return sum(r.nbytes(c.numel) for r, c in zip(rungs, candidates, strict=True))


# ---- the allocator -----------------------------------------------------------------------------


def test_the_strongest_signal_goes_first() -> None:
    candidates = [candidate(k, 1000, signal) for k, signal in enumerate([0.1, 0.9, 0.5])]
    one, two = FULL.nbytes(1000), 2 * FULL.nbytes(1000)
    allocate = SignalAllocator().allocate
    assert tiers(allocate(candidates, one)) == [0, 2, 0]
    assert tiers(allocate(candidates, one + 24)) == [0, 2, 1]
    assert tiers(allocate(candidates, two)) == [0, 2, 2]
    assert tiers(allocate(candidates, two + 23)) == [0, 2, 2]
    assert tiers(allocate(candidates, two + 24)) == [1, 2, 2]


def test_what_does_not_fit_leaves_room_for_the_next() -> None:
    candidates = [candidate(0, 10**6, 9.0), candidate(1, 100, 1.0)]
    assert tiers(SignalAllocator().allocate(candidates, FULL.nbytes(100) + 24)) == [1, 2]


def test_signal_counts_per_byte() -> None:
    """With the same mean |g| a rung that costs half is twice as good a buy."""
    half = Rung(2, "bf16", "none", "bf16")
    dear = candidate(0, 1000, 1.0)
    cheap = Candidate(1, 1000, (Rung(0), Rung(1), half), None, 0.8)
    assert tiers(SignalAllocator().allocate([dear, cheap], FULL.nbytes(1000))) == [1, 2]


@pytest.mark.parametrize(
    ("challenger", "expected"), [(1.2, [2, 0]), (1.3, [0, 2])], ids=["below", "above"]
)
def test_a_holder_is_displaced_only_by_a_clearly_stronger_one(
    challenger: float, expected: list[int]
) -> None:
    candidates = [
        candidate(0, 500, 1.0, current=FULL),
        candidate(1, 500, challenger, current=Rung(0)),
    ]
    allocator = SignalAllocator(hysteresis=1.25)
    assert tiers(allocator.allocate(candidates, FULL.nbytes(500))) == expected


@pytest.mark.parametrize("signal", [1.0, 0.0])
def test_a_tie_goes_to_the_first_parameter(signal: float) -> None:
    candidates = [candidate(k, 500, signal) for k in range(3)]
    budget = FULL.nbytes(500)
    assert tiers(SignalAllocator().allocate(candidates, budget)) == [2, 0, 0]


sizes = st.sampled_from([0, 1, 7, 128, 1000, 10**6])
worths = st.floats(0, 1e30, allow_nan=False)
populations = st.lists(st.tuples(sizes, worths, st.sampled_from([None, *LADDER])), max_size=12)


@settings(max_examples=150, deadline=None)
@given(population=populations, budget=st.integers(0, 10**7))
def test_no_population_costs_more_than_the_budget(
    population: list[tuple[int, float, Rung | None]], budget: int
) -> None:
    candidates = [candidate(k, n, s, current) for k, (n, s, current) in enumerate(population)]
    allocator = SignalAllocator()
    chosen = allocator.allocate(candidates, budget)
    assert cost(chosen, candidates) <= budget
    assert all(r in c.ladder for r, c in zip(chosen, candidates, strict=True))
    assert chosen == allocator.allocate(candidates, budget), "deterministic"
    assert cost(allocator.allocate(candidates, budget + 50), candidates) <= budget + 50


# ---- the optimizer -----------------------------------------------------------------------------


def two_tensors(*, spare: int = 10, **options: Any) -> tuple[Cosmic, list[nn.Parameter]]:
    """Two tensors of the same size, and a budget for the full state of one."""
    params = parameters((20, 30), (20, 30))
    budget = FULL.nbytes(600) + 16 + spare  # 16: two signals
    named = [("a", params[0]), ("b", params[1])]
    return Cosmic(named, budget=budget, reallocate_every=5, **{**UNUSUAL, **options}), params


def feed(optimizer: Cosmic, params: list[nn.Parameter], steps: int, *scales: float) -> list[int]:
    for step in range(steps):
        for k, (p, scale) in enumerate(zip(params, scales, strict=True)):
            p.grad = normal(10 * step + k, 20, 30, scale=scale)
        optimizer.step()
    return [info.tier for info in optimizer.tiers()]


def test_the_first_step_looks_at_the_gradients() -> None:
    for scales, expected in [((1.0, 3.0), [0, 2]), ((3.0, 1.0), [2, 0])]:
        optimizer, params = two_tensors()
        assert feed(optimizer, params, 1, *scales) == expected


def test_rungs_follow_the_signal_every_so_many_steps() -> None:
    optimizer, params = two_tensors()
    assert feed(optimizer, params, 5, 3.0, 1.0) == [2, 0]
    assert feed(optimizer, params, 5, 1.0, 90.0) == [2, 0], "not before the next look"
    assert feed(optimizer, params, 1, 1.0, 90.0) == [0, 2]


def test_rungs_do_not_swap_over_nothing() -> None:
    optimizer, params = two_tensors()
    assert feed(optimizer, params, 5, 1.0, 0.95) == [2, 0]
    for scales in ((1.0, 1.15), (1.0, 0.9), (1.0, 1.15)):
        assert feed(optimizer, params, 15, *scales) == [2, 0]


def test_transitions_are_told_once_each() -> None:
    optimizer, params = two_tensors()
    told: list[dict[str, Any]] = []
    optimizer.add_listener(
        lambda event, fields: told.append(fields) if event == "transition" else None
    )
    feed(optimizer, params, 5, 3.0, 1.0)
    feed(optimizer, params, 6, 1.0, 90.0)
    full, sign = "tier2:fp32+fp32", "tier0"
    assert told == [
        {"step": 0, "name": "a", "before": None, "after": full},
        {"step": 0, "name": "b", "before": None, "after": sign},
        {"step": 10, "name": "a", "before": full, "after": sign},
        {"step": 10, "name": "b", "before": sign, "after": full},
    ]


@pytest.mark.parametrize(("spare", "lower"), [(10, 0), (24, 1)], ids=["tier0", "tier1"])
def test_a_promoted_tensor_starts_with_bias_correction_of_its_own(spare: int, lower: int) -> None:
    """Its first step in tier 2 is AdamW's first step: lr in every element."""
    optimizer, params = two_tensors(spare=spare, weight_decay=0.0, lr=1e-3, eps=1e-12)
    assert feed(optimizer, params, 5, 3.0, 1.0) == [2, lower]
    assert feed(optimizer, params, 5, 1.0, 90.0) == [2, lower]
    before = params[1].detach().clone()
    assert feed(optimizer, params, 1, 1.0, 90.0) == [lower, 2]
    moved = (params[1].detach() - before).abs()
    torch.testing.assert_close(moved, torch.full_like(moved, 1e-3), rtol=1e-3, atol=0.0)


def test_fixed_tiers_are_kept_and_paid_first() -> None:
    params = parameters((20, 30), (20, 30), (600,))
    groups: list[dict[str, Any]] = [{"params": params[:1]}, {"params": params[1:], "tier": 2}]
    optimizer = Cosmic(groups, budget=2 * FULL.nbytes(600) + 40)
    for step in range(4):
        for k, p in enumerate(params):
            p.grad = normal(step, *p.shape, scale=1e6 if k == 0 else 1e-6)
        optimizer.step()
        assert [info.tier for info in optimizer.tiers()] == [1, 2, 2]


def test_without_a_budget_everything_is_tier_2() -> None:
    optimizer = Cosmic(parameters((20, 30), (5,)))
    take_steps(optimizer, 0, 2)
    assert {info.rung for info in optimizer.tiers()} == {"tier2:fp32+fp32"}


class Recorder:
    """An allocator of one's own: the rung at a place of every ladder."""

    def __init__(self, place: int) -> None:
        self.place = place
        self.calls: list[tuple[list[Candidate], int]] = []

    def allocate(self, candidates: Sequence[Candidate], budget: int) -> list[Rung]:
        self.calls.append((list(candidates), budget))
        return [c.ladder[self.place] for c in candidates]


def test_an_allocator_of_ones_own() -> None:
    recorder = Recorder(place=1)
    optimizer, params = two_tensors(allocator=recorder)
    assert feed(optimizer, params, 11, 1.0, 2.0) == [1, 1]
    assert len(recorder.calls) == 3, "at the first step and every five steps"
    first, budget = recorder.calls[0]
    assert [(c.index, c.numel, c.ladder, c.current) for c in first] == [
        (0, 600, LADDER, None), (1, 600, LADDER, None),
    ]  # fmt: skip
    assert budget == FULL.nbytes(600) + 10
    expected = [float(normal(k, 20, 30, scale=s).abs().mean()) for k, s in ((0, 1.0), (1, 2.0))]
    assert [c.signal for c in first] == pytest.approx(expected, rel=1e-6)
    assert [c.current for c in recorder.calls[1][0]] == [Rung(1), Rung(1)]


def test_an_allocator_that_overspends_is_refused() -> None:
    """The budget is never exceeded, whoever spends it."""
    optimizer, params = two_tensors(allocator=Recorder(place=2))
    before = [p.detach().clone() for p in params]
    for p in params:
        p.grad = normal(0, 20, 30)
    with pytest.raises(ValueError, match="budget"):
        optimizer.step()
    assert optimizer.state_bytes() == 0
    assert all(torch.equal(p, q) for p, q in zip(params, before, strict=True))


class Spendthrift(SignalAllocator):
    """Keeps to the budget once, and never again."""

    spent = False

    def allocate(self, candidates: Sequence[Candidate], budget: int) -> list[Rung]:
        if self.spent:
            return [c.ladder[-1] for c in candidates]
        object.__setattr__(self, "spent", True)
        return super().allocate(candidates, budget)


def test_a_step_that_an_allocator_spoils_has_changed_nothing() -> None:
    """Wherever the look is taken, the step that raises because of it has not been taken."""
    optimizer, params = two_tensors(allocator=Spendthrift())
    for _ in range(8):
        before = digest(optimizer)
        try:
            feed(optimizer, params, 1, 1.0, 2.0)
        except ValueError as error:
            assert "budget" in str(error)
            assert digest(optimizer) == before
            return
    pytest.fail("the overspending was not noticed")
