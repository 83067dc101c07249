"""Gate "snr": scales a tensor's update down while its gradient is noisy or jumps, never up."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from cosmic import Cosmic
from helpers import UNUSUAL, normal, parameters, same_bits, take_steps

WARM_UP = 20  # steps


def gated(**options: Any) -> tuple[Cosmic, nn.Parameter]:
    param = nn.Parameter(normal(0, 300))
    return Cosmic([("w", param)], **{**UNUSUAL, "gate": "snr", "c_min": 0.2, **options}), param


def feed(optimizer: Cosmic, *scales: float) -> list[float]:
    """A step with gradients of each scale; the gate's factor in each."""
    factors = []
    for scale in scales:
        for group in optimizer.param_groups:
            for p in group["params"]:
                p.grad = normal(5, *p.shape, dtype=p.dtype) * scale
        optimizer.step()
        factors.append(min(optimizer.gate_factors().values()))
    return factors


def test_the_gate_is_open_during_the_warm_up() -> None:
    optimizer, param = gated()
    plain, twin = gated(gate=None)
    scales = [10.0 ** (k % 5) for k in range(WARM_UP)]
    assert feed(optimizer, *scales) == [1.0] * WARM_UP
    for scale in scales:
        twin.grad = normal(5, 300) * scale
        plain.step()
    assert same_bits(param, twin)


def test_a_steady_gradient_keeps_it_open() -> None:
    optimizer, _ = gated()
    assert min(feed(optimizer, *[3.0] * 60)) > 0.999


def test_a_noisy_gradient_closes_it_in_proportion() -> None:
    """mean^2 / (mean^2 + variance): 0.92 for steps of 1 and 1.8, 0.53 for 1 and 30."""
    calm, _ = gated()
    wild, _ = gated()
    calm_factors = feed(calm, *[1.0, 1.8] * 40)[WARM_UP + 5 :]
    wild_factors = feed(wild, *[1.0, 30.0] * 40)[WARM_UP + 5 :]
    assert 0.85 < min(calm_factors) < max(calm_factors) < 0.96
    assert 0.4 < min(wild_factors) < max(wild_factors) < 0.6


def test_a_jump_closes_it_at_once_and_it_opens_again() -> None:
    optimizer, _ = gated()
    feed(optimizer, *[1.0] * 40)
    assert feed(optimizer, 1000.0, 1.0) == [pytest.approx(1.0), 0.2]
    recovered = feed(optimizer, *[1.0] * 900)
    assert recovered[-1] > 0.95


def test_one_outlier_is_not_remembered_for_long() -> None:
    optimizer, _ = gated()
    feed(optimizer, *[1.0, 1.1] * 50)
    after = feed(optimizer, 1000.0, *[1.0, 1.1] * 100)[1:]
    assert after[0] == pytest.approx(0.2)  # the jump itself: c_min
    assert min(after[20:]) > 0.5 and after[-1] > 0.9


def test_a_lasting_change_of_level_is_followed() -> None:
    optimizer, _ = gated()
    feed(optimizer, *[1.0] * 50)
    assert feed(optimizer, *[1000.0] * 200)[-1] > 0.9


def test_it_acts_one_step_later() -> None:
    """The step that jumps is full, the next one is scaled: p moves by lr, scale and factor."""
    optimizer, param = gated(tier=0, lr=1.0, betas=(0.0, 0.9), weight_decay=0.0)
    feed(optimizer, *[1.0] * 40)
    moved = []
    for scale in (1000.0, 1.0):
        before = param.detach().clone()
        feed(optimizer, scale)
        moved.append(float((param.detach() - before).abs().mean()))
    assert moved == pytest.approx([1.0, 0.2], rel=1e-5)


def test_reports_after_a_group_was_taken_away() -> None:
    optimizer = Cosmic([{"params": parameters((3,), (4,))} for _ in range(2)], gate="snr")
    take_steps(optimizer, 0, 1)
    del optimizer.param_groups[1]
    assert optimizer.gate_factors() == {} and len(optimizer.stats()) == 1
    take_steps(optimizer, 1, 2)
    assert len(optimizer.gate_factors()) == 2


def test_reports_are_of_the_step_that_was_taken() -> None:
    """gate_factors() and stats() say what scaled the last update, as update_rms does."""
    optimizer, _ = gated(tier=0, betas=(0.0, 0.9))
    feed(optimizer, *[1.0] * 40, 1000.0)
    stats = optimizer.stats()[0]
    assert stats["update_rms"] == pytest.approx(1.0)
    assert optimizer.gate_factors()["w"] == pytest.approx(stats["update_rms"])
    assert stats["gate"] == pytest.approx(stats["update_rms"])


def test_weight_decay_is_not_gated() -> None:
    """Where the gradient is zero only the decay acts, whatever the factor."""
    optimizer, param = gated(tier=0, lr=0.5, weight_decay=0.1)
    feed(optimizer, *[1.0] * 40, 1000.0)
    before = param.detach().clone()
    param.grad = torch.zeros(300)
    optimizer.step()
    torch.testing.assert_close(param.detach(), before * 0.95)


def test_each_tensor_has_a_gate_of_its_own() -> None:
    names = ["steady", "jumping"]
    params = [nn.Parameter(normal(k, 50)) for k in range(2)]
    optimizer = Cosmic(list(zip(names, params, strict=True)), gate="snr", c_min=0.25)
    for step in range(43):
        params[0].grad = normal(5, 50)
        params[1].grad = normal(5, 50) * (1000.0 if step == 41 else 1.0)
        optimizer.step()
    assert optimizer.gate_factors() == {"steady": pytest.approx(1.0), "jumping": 0.25}
    assert optimizer.stats()[0]["gate_min"] == 0.25
    assert optimizer.stats()[0]["gate"] == pytest.approx(0.625)


@pytest.mark.parametrize("tier", [0, 1, 2])
def test_a_gate_that_may_not_close_is_no_gate(tier: int) -> None:
    optimizer, param = gated(tier=tier, c_min=1.0)
    plain, twin = gated(tier=tier, gate=None)
    for step in range(40):
        param.grad = twin.grad = normal(step, 300) * 10.0 ** (step % 4)
        optimizer.step()
        plain.step()
    assert same_bits(param, twin)


@settings(max_examples=25, deadline=None)
@given(
    scales=st.lists(st.floats(0, 1e30, allow_subnormal=False), min_size=25, max_size=45),
    c_min=st.floats(0, 1),
)
def test_the_factor_stays_in_its_range(scales: list[float], c_min: float) -> None:
    optimizer, _ = gated(c_min=c_min)
    factors = feed(optimizer, *scales)
    assert all(c_min <= factor <= 1.0 for factor in factors)
    assert factors[:WARM_UP] == [1.0] * WARM_UP


@pytest.mark.parametrize("bad", [float("inf"), float("nan")], ids=str)
def test_a_gradient_that_is_not_finite_closes_it_for_a_step(bad: float) -> None:
    optimizer, param = gated()
    feed(optimizer, *[1.0] * 30)
    param.grad = normal(5, 300)
    param.grad[7] = bad
    with pytest.warns(RuntimeWarning):
        optimizer.step()
    assert feed(optimizer, 1.0, 1.0) == [0.2, pytest.approx(1.0)]


def test_a_gate_comes_and_goes_in_mid_run() -> None:
    optimizer, param = gated(gate=None)
    feed_plain = [normal(5, 300)] * 3
    for param.grad in feed_plain:
        optimizer.step()
    before = optimizer.state_bytes()
    moment = optimizer.state[param]["exp_avg"].clone()
    optimizer.param_groups[0]["gate"] = "snr"
    assert feed(optimizer, 1.0) == [1.0]
    assert optimizer.state_bytes() == before + 32
    assert not torch.equal(optimizer.state[param]["exp_avg"], torch.zeros_like(moment))

    optimizer.param_groups[0]["gate"] = None
    param.grad = normal(5, 300)
    optimizer.step()
    assert optimizer.gate_factors() == {}
    assert optimizer.state_bytes() == before
    assert int(optimizer.state[param]["step"]) == 5


def test_the_gate_remembers_over_a_change_of_tier() -> None:
    optimizer, param = gated(tier=1)
    feed(optimizer, *[1.0] * 30)
    optimizer.param_groups[0]["tier"] = 2
    assert feed(optimizer, 1000.0, 1.0) == [pytest.approx(1.0), 0.2]
    assert int(optimizer.state[param]["step"]) == 2
