"""Preset Tiger against its reference, and what its steps promise."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from cosmic.presets import Tiger
from helpers import digest, normal, parameter
from tiger_runs import SHAPES, ZERO, as_array, fresh, gradients, params_of, reference, take_steps

#: Single changes of the defaults, which are tried two by two.
CHANGES: tuple[dict[str, Any], ...] = (
    {"betas": (0.8, 0.99)}, {"eps": 1e-4}, {"weight_decay": 0.1}, {"lr_scale": 0.5},
    {"factored": False}, {"sign_tau": 0.5}, {"sign_blend": 0.7},
    {"blend_steps": 30, "blend_to": 0.9}, {"blend_steps": 20, "blend_schedule": "linear"},
    {"use_trust_ratio": False}, {"trust_clip": 0.05}, {"trust_ema_beta": 0.9}, {"agc_clip": 0.02},
    {"rms_clip_threshold": 0.4},
    {"rms_clip_threshold": 0.4, "rms_clip_granularity": "group", "use_trust_ratio": False},
    {"rms_clip_threshold": 0.4, "rms_clip_granularity": "row", "use_trust_ratio": False},
    {"param_floor": 0.1},
)  # fmt: skip


def refused(options: dict[str, Any]) -> bool:
    """A ratio to parameters that are clipped together, or an average of what keeps nothing."""
    granularity = options.get("rms_clip_granularity")
    return (granularity is not None and "agc_clip" in options) or (
        granularity == "row" and "trust_ema_beta" in options
    )


PAIRS = [
    {**a, **b}
    for a, b in itertools.combinations(CHANGES, 2)
    if not set(a) & set(b) and not refused({**a, **b})
]


def made(options: dict[str, Any], **more: Any) -> Tiger:
    group = {"params": fresh(), **{k: v for k, v in options.items() if k == "lr_scale"}}
    return Tiger([group], **{k: v for k, v in options.items() if k != "lr_scale"}, **more)


@pytest.mark.parametrize(
    "options",
    [{}, *PAIRS],
    ids=lambda options: "-".join(f"{k}={v}" for k, v in options.items()) or "defaults",
)
def test_fifty_steps_are_the_references(options: dict[str, Any]) -> None:
    options = {"lr": 3e-3, **options}
    optimizer = take_steps(made(options), 0, 50)
    for p, expected, start in zip(
        params_of(optimizer), reference(options, 50), fresh(), strict=True
    ):
        moved = np.linalg.norm(expected - as_array(start))
        rounding = 4e-7 * np.linalg.norm(expected)  # of fifty stored parameters
        assert moved > 4 * rounding
        assert np.linalg.norm(as_array(p) - expected) < 2e-5 * moved + rounding


def test_a_lagged_step_comes_near_to_the_exact_one() -> None:
    exact, lagged = (take_steps(made({"lr": 3e-3}, exact=x), 0, 50) for x in (True, False))
    for a, b, start in zip(params_of(exact), params_of(lagged), fresh(), strict=True):
        apart, moved = (np.linalg.norm(as_array(a) - as_array(x)) for x in (b, start))
        assert 0 < apart < 0.1 * moved


@pytest.mark.parametrize("scale", [1.0, 1e-4, 1e3])
def test_a_step_is_as_long_as_the_rate_says_whatever_the_gradient(scale: float) -> None:
    optimizer = Tiger(fresh(torch.float64), lr=3e-2, eps=0.0)
    for step in range(5):
        before = [as_array(p) for p in params_of(optimizer)]
        take_steps(optimizer, step, step + 1, dtype=torch.float64, scale=scale)
        for k, (p, old) in enumerate(zip(params_of(optimizer), before, strict=True)):
            own = max(np.linalg.norm(old), 1e-3 * old.size**0.5 if k == ZERO else 0.0)
            assert np.linalg.norm(as_array(p) - old) == pytest.approx(3e-2 * own, rel=1e-6)


@pytest.mark.parametrize("scale", [2.0**-12, 2.0**9])
@pytest.mark.parametrize("options", [{}, {"agc_clip": 0.02}, {"state_dtype": "bf16"}], ids=str)
def test_a_power_of_two_on_the_loss_changes_no_bit(options: dict[str, Any], scale: float) -> None:
    plain, scaled = (
        take_steps(Tiger(fresh(), lr=3e-3, eps=0.0, **options), 0, 10, scale=s) for s in (1, scale)
    )
    for a, b in zip(params_of(plain), params_of(scaled), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("granularity", ["row", "group"])
def test_the_granularity_of_a_clip_leaves_each_tensor_its_own_size(granularity: str) -> None:
    """Without a clip it is of nothing, and beside one a ratio to the parameter is refused."""
    choices: tuple[dict[str, Any], ...] = ({}, {"rms_clip_granularity": granularity})
    plain, other = (take_steps(Tiger(fresh(), lr=3e-3, **options), 0, 3) for options in choices)
    assert digest(plain) == digest(other)
    ratios: tuple[dict[str, Any], ...] = (
        {"use_trust_ratio": True},
        {"use_trust_ratio": False, "agc_clip": 0.02},
    )
    for ratio in ratios:
        with pytest.raises(ValueError, match=r"expected (use_trust_ratio=False|agc_clip=0\.0)"):
            Tiger(fresh(), rms_clip_threshold=1.0, rms_clip_granularity=granularity, **ratio)


def test_clipping_under_trust_leaves_the_packages_relative_steps() -> None:
    """1 lr at a clip of 0.2, 0.2 lr at 0.02, and 0.1 lr with a largest ratio of 5."""
    found = []
    for clip, most in ((0.2, 10.0), (0.02, 10.0), (0.02, 5.0)):
        p = nn.Parameter(normal(0, 64, 64, dtype=torch.float64, scale=0.05))
        before = p.detach().clone()
        optimizer = Tiger([p], lr=1e-2, agc_clip=clip, trust_clip=most)
        p.grad = normal(1, 64, 64, dtype=torch.float64)
        optimizer.step()
        found.append(((p - before).norm() / before.norm()).item() / 1e-2)
    assert found == pytest.approx([1.0, 0.2, 0.1], rel=1e-6)


@pytest.mark.parametrize("options", [{}, {"exact": False}, {"trust_ema_beta": 0.9}], ids=str)
def test_steps_within_backward_are_the_same_bits(options: dict[str, Any]) -> None:
    def run(within: bool) -> str:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(70, 60), nn.Tanh(), nn.Linear(60, 3))
        optimizer = Tiger(model.parameters(), lr=1e-2, **options)
        mode = optimizer.step_in_backward(model) if within else None
        for step in range(4):
            optimizer.zero_grad()
            model(normal(step, 8, 70)).square().sum().backward()
            optimizer.step()
        if mode:
            mode.remove()
        return digest(optimizer)

    assert run(True) == run(False)


def test_one_factor_for_a_group_cannot_be_had_within_backward() -> None:
    model = nn.Linear(7, 3)
    optimizer = Tiger(
        model.parameters(), rms_clip_granularity="group", rms_clip_threshold=0.5,
        use_trust_ratio=False,
    )  # fmt: skip
    with pytest.raises(ValueError, match="group"), optimizer.step_in_backward(model):
        model(torch.ones(2, 7)).sum().backward()


def test_state_takes_sixteen_bytes_a_tensor_more_than_without_factors() -> None:
    gated, plain = (
        take_steps(Tiger(fresh(), use_trust_ratio=trust), 0, 2) for trust in (True, False)
    )
    assert gated.state_bytes() - plain.state_bytes() == 16 * len(SHAPES)
    momenta = sum(p.numel() for p in fresh()) * 4
    whole = sum(p.numel() for p in fresh()[1:]) * 4
    factored = sum(SHAPES[0]) * 4 + 8 * len(SHAPES[0])  # and the shape
    counts = 8 * len(SHAPES)
    assert plain.state_bytes() == momenta + whole + factored + counts


def test_few_bits_of_state_end_near_the_full_ones() -> None:
    full, few = (
        take_steps(Tiger([parameter(0, 128, 64)], lr=3e-3, state_dtype=d), 0, 0)
        for d in ("fp32", "u4+factored")
    )
    for step in range(50):
        for optimizer in (full, few):
            (p,) = params_of(optimizer)
            p.grad = normal(step, 128, 64) + normal(99, 128, 64)
            optimizer.step()
    (a,), (b,) = (map(as_array, params_of(optimizer)) for optimizer in (full, few))
    moved = np.linalg.norm(a - as_array(normal(0, 128, 64)))
    assert np.linalg.norm(a - b) < 0.2 * moved
    assert few.state_bytes() < 0.1 * full.state_bytes()


def test_gradients_are_of_different_sizes() -> None:
    """What the tests above rest on: tensors of a group that a shared number would mix up."""
    sizes = [float(g.square().mean().sqrt()) for g in gradients(0)]
    assert all(b > 5 * a for a, b in itertools.pairwise(sizes))
