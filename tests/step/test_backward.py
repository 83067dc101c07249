"""Stepping within backward: the ordinary step's bits, gradients freed at once."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from backward_steps import (
    give,
    in_backward,
    normal_gradients,
    ordinary_step,
    pair,
    params_of,
    tied,
)
from cosmic import Candidate, Cosmic
from cosmic.state.entries import MASKED
from cosmic.step import plans
from helpers import UNUSUAL, digest, normal, parameter, parameters
from scenarios import SCENARIOS, by_state_dict, make, run, steps_of

#: Without a budget, whose tiers depend on who has had a gradient; that has tests of its own. Nor
#: presets, one of which refuses.
UNBUDGETED = [
    name for name, options in SCENARIOS.items() if not {"budget", "optimizer"} & options.keys()
]

# ---- the same bits -----------------------------------------------------------------------------


@pytest.mark.parametrize("scenario", UNBUDGETED)
def test_bits_are_those_of_the_ordinary_step(
    scenario: str, set_threads: Callable[[int], None]
) -> None:
    """Some parameters lack a gradient at each step: they are left alone, as ordinarily."""
    set_threads(1)
    last = steps_of(scenario)
    ordinary = run(make(scenario, split=3), scenario, 0, last)
    for threads in (1, 3):
        set_threads(threads)
        ours = in_backward(make(scenario, split=3), scenario, 0, last)
        assert digest(ours) == digest(ordinary)
        assert repr(ours.stats()) == repr(ordinary.stats()), "NaN and all"
        assert ours._steps == ordinary._steps
        assert ours.gate_factors() == ordinary.gate_factors()


@pytest.mark.parametrize("scenario", ["ordinary", "bfloat16-tier0", "gate-compressed", "tier1"])
def test_the_mode_may_begin_and_end_in_mid_run(scenario: str) -> None:
    last = steps_of(scenario)
    optimizer = run(make(scenario), scenario, 0, 1)
    in_backward(optimizer, scenario, 1, 3)
    run(optimizer, scenario, 3, last)
    assert digest(optimizer) == digest(run(make(scenario), scenario, 0, last))


@pytest.mark.parametrize("scenario", ["ordinary", "bfloat16-tier0", "bfloat16"])
def test_a_checkpoint_in_between_changes_no_bit(scenario: str) -> None:
    optimizer = in_backward(make(scenario, split=3), scenario, 0, 2)
    resumed = in_backward(by_state_dict(optimizer, scenario), scenario, 2, 4)
    assert digest(resumed) == digest(run(make(scenario, split=3), scenario, 0, 4))


class BySize:
    """A policy that counts how often it is asked: full history to the largest that fit."""

    name, uses_signal = "by size", True

    def __init__(self) -> None:
        self.asked = 0

    def worths(self, candidates: Sequence[Candidate]) -> list[list[float]]:
        self.asked += 1
        return [[c.numel**2 * (rung.tier == 2) for rung in c.ladder] for c in candidates]


def test_under_a_budget_the_policy_is_asked_at_the_same_steps() -> None:
    policies = BySize(), BySize()
    ours, ordinary = (
        Cosmic(
            parameters((300,), (65, 70), (80, 90)), **UNUSUAL, budget=6000, state_dtype="u4+v4",
            reallocate_every=3, policy=p,
        )
        for p in policies
    )  # fmt: skip
    told: dict[Cosmic, list[Any]] = {ours: [], ordinary: []}
    for optimizer, events in told.items():
        optimizer.add_listener(lambda *event, events=events: events.append(event))
    asked = []
    with ours.step_in_backward():
        for step in range(8):
            if step == 5:
                ours.budget = ordinary.budget = 2500
            grads = normal_gradients(ours, step)
            give(params_of(ours), grads)
            ours.step()
            ordinary_step(ordinary, grads)
            asked.append((policies[0].asked, policies[1].asked))
            assert ours.state_bytes() <= int(ours.budget or 0)
    assert digest(ours) == digest(ordinary)
    assert all(a == b for a, b in asked) and asked[-1][0] >= 4
    assert told[ours] == told[ordinary]
    assert {t.tier for t in ours.tiers()} == {0, 2}


@pytest.mark.parametrize("policy", ["role", "signal"])
def test_what_gradients_show_changes_no_bit(policy: str) -> None:
    """The second matrix turns out to be masked, and the budget is spent anew."""
    ours, ordinary = (
        Cosmic(parameters((80, 64), (80, 64), (64,)), lr=1e-3, budget=4000, policy=policy)
        for _ in range(2)
    )
    for optimizer in (ours, ordinary):
        optimizer.reallocate_every = 3
    with ours.step_in_backward():
        for step in range(8):
            grads = normal_gradients(ours, step)
            grads[0][4:] = 0.0
            grads[1][::2, ::2] = 0.0
            grads[1][1::2, 1::2] = 0.0
            give(params_of(ours), grads)
            ours.step()
            ordinary_step(ordinary, grads)
            assert digest(ours) == digest(ordinary), step
    assert MASKED in ours.state[params_of(ours)[1]]
    assert ours.tiers()[1].rung in ("tier1:v4", "tier2:u1+v4")


def test_state_for_all_is_there_from_the_first_gradient_on() -> None:
    """The budget must hold for everyone before anyone is stepped."""
    ours, _ = pair(budget="40%", state_dtype="fp32")
    limit = ours.budget_bytes()
    assert limit is not None
    seen: list[int] = []
    params = params_of(ours)
    for p in params:
        p.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
            lambda _: seen.append(ours.state_bytes())
        )
    with ours.step_in_backward():
        for step in range(3):
            give(params, normal_gradients(ours, step))
            ours.step()
    assert len(ours.state) == len(params)
    assert max(seen) <= limit == ours.budget_bytes()


def test_plans_are_made_no_more_often_than_ordinarily(monkeypatch: pytest.MonkeyPatch) -> None:
    """One for all steps: a gradient that comes costs nothing for the other parameters."""
    made: list[int] = []
    compile_plan = plans.compile_plan
    monkeypatch.setattr(
        "cosmic.step.planned.compile_plan",
        lambda *a, **k: made.append(1) or compile_plan(*a, **k),  # type: ignore[func-returns-value]
    )
    ours = Cosmic(parameters(*[(9, 7)] * 50), **UNUSUAL)
    with ours.step_in_backward():
        for step in range(4):
            give(params_of(ours), normal_gradients(ours, step))
            ours.step()
    assert len(made) == 1


# ---- models ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"min_compress_size": 0}, {"state_dtype": "q8+rowmean", "min_compress_size": 0},
        {"state_dtype": "bf16", "beta_slow": 0.99}, {"tier": 1, "gate": "snr"},
        {"maximize": True, "state_dtype": "u2+v4", "min_compress_size": 0},
        {"lr": torch.tensor(0.01)},
    ],
    ids=str,
)  # fmt: skip
def test_a_model_with_groups_tied_weights_and_a_schedule(options: dict[str, Any]) -> None:
    ours, ordinary = tied(**copy.deepcopy(options)), tied(**copy.deepcopy(options))
    with ours[1].step_in_backward(ours[0]):
        for step in range(5):
            for model, optimizer, schedule in (ours, ordinary):
                loss = model.loss(step)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
            assert ours[1].param_groups[1]["lr"] == ordinary[1].param_groups[1]["lr"]
            assert ours[1].stats() == ordinary[1].stats()
    assert digest(ours[1]) == digest(ordinary[1])


def test_a_model_in_bf16_learns() -> None:
    model, optimizer, _ = tied()
    model.bfloat16()
    before = model.loss(0).item()
    with optimizer.step_in_backward(model, max_norm=1.0):
        for _ in range(30):
            model.loss(0).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    assert model.loss(0).item() < before - 0.5


def test_two_backwards_for_different_parameters_make_one_step() -> None:
    ours, ordinary = pair()
    grads = normal_gradients(ours, 0)
    params = params_of(ours)
    with ours.step_in_backward():
        give(params[:1], grads[:1])
        give(params[1:], grads[1:])
        ours.step()
    ordinary_step(ordinary, grads)
    assert digest(ours) == digest(ordinary) and ours._steps == 1


# ---- memory ------------------------------------------------------------------------------------


def test_gradients_are_freed_before_the_next_is_made() -> None:
    """Counted while backward runs; ordinarily they gather."""
    width, depth = 32, 12

    def most_alive(within: bool) -> int:
        model = nn.Sequential(*(nn.Linear(width, width, bias=False) for _ in range(depth)))
        optimizer = Cosmic(model.parameters())
        alive: list[weakref.ref[Tensor]] = []
        most = 0

        def count(p: Tensor) -> None:
            nonlocal most
            assert p.grad is not None
            alive.append(weakref.ref(p.grad))
            most = max(most, sum(ref() is not None for ref in alive))

        for p in model.parameters():
            p.register_post_accumulate_grad_hook(count)  # type: ignore[no-untyped-call]
        if within:
            optimizer.step_in_backward(model)
        model(torch.ones(4, width)).sum().backward()
        assert len(alive) == depth
        assert sum(p.grad is not None for p in model.parameters()) == (0 if within else depth)
        return most

    assert most_alive(within=True) == 1
    assert most_alive(within=False) == depth


def test_the_memory_of_gradients_is_that_of_one() -> None:
    """Bytes that torch's allocator hands out and takes back during backward."""
    width, depth = 256, 8
    size = 4 * width * width

    def peak(within: bool) -> int:
        model = nn.Sequential(*(nn.Linear(width, width, bias=False) for _ in range(depth)))
        optimizer = Cosmic(model.parameters(), tier=0)
        if within:
            optimizer.step_in_backward(model)
        output = model(torch.ones(1, width)).sum()
        with torch.profiler.profile(profile_memory=True) as profiled:
            output.backward()
        held = most = 0
        events: Any = profiled.profiler
        for event in events.kineto_results.events():
            if event.name() == "[memory]":
                held += event.nbytes()
                most = max(most, held)
        return most

    assert peak(within=True) < 3 * size
    assert peak(within=False) >= depth * size


def test_a_dropped_optimizer_is_not_kept_alive_by_its_parameters() -> None:
    p = parameter(0, 30)
    optimizer = Cosmic([p])
    optimizer.step_in_backward()
    gone = weakref.ref(optimizer)
    del optimizer
    gc.collect()
    assert gone() is None
    give([p], [normal(1, 30)])
    assert p.grad is not None
