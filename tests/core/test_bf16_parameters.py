"""Parameters in bf16 without a float32 copy neither stall nor drift."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cosmic import Cosmic
from helpers import SIZES, UNUSUAL, digest, normal, parameter, same_bits, take_steps

BF16 = torch.bfloat16
ULP = 2.0**-7  # of bf16 in [1, 2)
STEP = 2.0**-13  # of a parameter at each step: a 64th of a unit of the last place
STEPS = 512

TIERS: dict[str, dict[str, Any]] = {
    "tier0": {"tier": 0, "betas": (0.0, 0.95)},  # betas: a sign step is then 1, as Adam's is
    "tier1": {"tier": 1, "betas": (0.0, 0.95)},
    "fp32": {"state_dtype": "fp32", "betas": (0.8, 0.95)},
    "u4+v4": {"state_dtype": "u4+v4", "betas": (0.8, 0.95)},
    "u2+factored": {"state_dtype": "u2+factored", "betas": (0.8, 0.95)},
}


def constant_run(param: Tensor, steps: int, **options: Any) -> Tensor:
    """With a gradient of one: every step is the learning rate, down."""
    optimizer = Cosmic([param], lr=STEP, eps=1e-9, min_compress_size=0, **options)
    param.grad = torch.ones_like(param)
    for _ in range(steps):
        optimizer.step()
    return param.detach().float()


# ---- neither stalled nor biased ----------------------------------------------------------------


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("layout", ["contiguous", "transposed", "gaps"])
def test_tiny_updates_move_it_by_the_right_amount(tier: str, layout: str) -> None:
    """From 1.75 down by 8 units of the last place. A step rounds up with probability 1/64, so that
    an element's standard deviation is sqrt(512 (1/64) (63/64)) units: 2.8, of 4,095 elements the
    mean's 0.044."""
    base = torch.full((91, 90 if layout == "gaps" else 45), 1.75, dtype=BF16)
    view = {"contiguous": base, "transposed": base.t(), "gaps": base[:, ::2]}[layout]
    moved = (1.75 - constant_run(nn.Parameter(view), STEPS, **TIERS[tier])) / ULP
    deviation = math.sqrt(STEPS * STEP / ULP * (1 - STEP / ULP))
    expected = STEPS * STEP / ULP
    assert moved.mean().item() == pytest.approx(expected, abs=5 * deviation / math.sqrt(4095))
    # and each on its own: neither in step with the others nor twice as wild
    assert 0.8 < moved.std().item() / deviation < 1.2


@pytest.mark.parametrize("tier", TIERS)
def test_to_nearest_it_stalls(tier: str) -> None:
    p = parameter(0, 45, 91, dtype=BF16)
    with torch.no_grad():
        p.fill_(1.75)
    after = constant_run(p, 50, stochastic_rounding=False, **TIERS[tier])
    assert torch.equal(after, torch.full_like(after, 1.75))


@pytest.mark.parametrize("size", [1, 7, 127, 129])
def test_every_place_of_a_short_tensor_is_unbiased(size: int) -> None:
    """The mean of each place over many tensors: padding and tails have random bits of their own."""
    count, steps = 200, 40
    params = [nn.Parameter(torch.full((size,), 1.75, dtype=BF16)) for _ in range(count)]
    optimizer = Cosmic(params, lr=2 * ULP / steps, betas=(0.0, 0.9), tier=0)
    for p in params:
        p.grad = torch.ones_like(p)
    for _ in range(steps):
        optimizer.step()
    moved = (1.75 - torch.stack([p.detach().float() for p in params])) / ULP
    error = math.sqrt(steps * 0.05 * 0.95 / count)
    assert (moved.mean(0) - 2).abs().max().item() < 4.5 * error
    assert moved.mean().item() == pytest.approx(2, abs=5 * error)  # by the weakest: one tensor each


def test_weight_decay_far_below_the_last_place_decays() -> None:
    p = nn.Parameter(torch.full((4097,), 1.75, dtype=BF16))
    optimizer = Cosmic([p], lr=STEP, weight_decay=1.0, tier=0)
    p.grad = torch.zeros_like(p)
    for _ in range(STEPS):
        optimizer.step()
    lost = 1.75 * (1 - (1 - STEP) ** STEPS)
    error = ULP * math.sqrt(STEPS * STEP * 1.75 / ULP / 4097)
    assert 1.75 - p.detach().float().mean().item() == pytest.approx(lost, abs=5 * error)


def test_what_bf16_holds_exactly_is_not_dithered() -> None:
    """No update, no change; not by a bit."""
    p = parameter(0, 511, dtype=BF16)
    before = p.detach().clone()
    optimizer = Cosmic([p], tier=0)
    p.grad = torch.zeros_like(p)
    for _ in range(20):
        optimizer.step()
    assert same_bits(p, before)


def test_the_largest_numbers_round_and_do_not_overflow_in_the_middle() -> None:
    """An infinite or NaN parameter stays what it is."""
    p = nn.Parameter(torch.tensor([3.0e38, -3.0e38, math.inf, -math.inf, math.nan], dtype=BF16))
    before = p.detach().clone()
    optimizer = Cosmic([p], lr=1e-3, tier=0)
    p.grad = torch.ones_like(p)
    for _ in range(20):
        optimizer.step()
    assert same_bits(p[:4], before[:4])
    assert bool(p[4].isnan())


# ---- the random bits ---------------------------------------------------------------------------

RUNGS: dict[str, dict[str, Any]] = {
    "tier0": {"tier": 0},
    "tier1": {"tier": 1},
    "tier1:factored": {"rung": "tier1:factored"},
    "fp32": {"state_dtype": "fp32"},
    "u4+factored": {"state_dtype": "u4+factored"},
    "u2+v4+slow": {"state_dtype": "u2+v4", "beta_slow": 0.97},
}


def optimizer_of(rung: str, dtype: torch.dtype = BF16, **options: Any) -> Cosmic:
    params = [parameter(k, size, dtype=dtype) for k, size in enumerate(SIZES)]
    params.append(parameter(9, 60, 70, dtype=dtype))
    return Cosmic(params, **{**UNUSUAL, "min_compress_size": 0, **RUNGS[rung], **options})


@pytest.mark.parametrize("rung", RUNGS)
def test_the_same_seed_gives_the_same_bits(rung: str) -> None:
    ours, twin = optimizer_of(rung, seed=5), optimizer_of(rung, seed=5)
    take_steps(ours, 0, 6)
    take_steps(twin, 0, 6)
    assert digest(ours) == digest(twin)


@pytest.mark.parametrize("rung", RUNGS)
def test_a_save_and_load_in_the_middle_changes_no_bit(rung: str) -> None:
    ours, twin, third = (optimizer_of(rung, seed=5) for _ in range(3))
    take_steps(ours, 0, 6)
    take_steps(twin, 0, 3)
    for p, q in zip(third.param_groups[0]["params"], twin.param_groups[0]["params"], strict=True):
        p.data.copy_(q)
    third.load_state_dict(copy.deepcopy(twin.state_dict()))
    take_steps(third, 3, 6)
    assert digest(ours) == digest(third)


@pytest.mark.parametrize("rung", RUNGS)
def test_another_seed_gives_other_bits(rung: str) -> None:
    ours, other = optimizer_of(rung, seed=5), optimizer_of(rung, seed=6)
    for optimizer in (ours, other):
        take_steps(optimizer, 0, 1)
    assert differing(ours.param_groups[0]["params"][-1], other.param_groups[0]["params"][-1]) > 0.2


def differing(a: Tensor, b: Tensor) -> float:
    """Share of elements."""
    return (a != b).float().mean().item()


@pytest.mark.parametrize("rung", ["tier0", "tier1", "fp32"])
def test_every_step_and_every_parameter_has_bits_of_its_own(rung: str) -> None:
    """Tier 0 has no counter: the optimizer's is taken."""
    start = normal(0, 4097).to(BF16)
    params = [nn.Parameter(start.clone()) for _ in range(2)]
    optimizer = Cosmic(params, lr=1e-3, betas=(0.0, 0.0), **RUNGS[rung])
    results = []
    for _ in range(3):
        for p in params:
            p.data.copy_(start)
            p.grad = torch.ones_like(p)
        optimizer.step()
        results += [p.detach().clone() for p in params]
    for k, one in enumerate(results):
        for other in results[k + 1 :]:
            assert differing(one, other) > 0.1


@pytest.mark.parametrize("rung", ["tier0", "tier1", "fp32"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64], ids=str)
def test_other_dtypes_do_not_know_the_option(dtype: torch.dtype, rung: str) -> None:
    """Nor the seed: they are stored to nearest."""
    digests = set()
    for rounding, seed in [(True, 5), (False, 5), (True, 6)]:
        optimizer = optimizer_of(rung, dtype, stochastic_rounding=rounding, seed=seed)
        take_steps(optimizer, 0, 4)
        digests.add(digest(optimizer))
    assert len(digests) == 1


def test_to_nearest_the_seed_does_not_matter() -> None:
    a, b = (optimizer_of("fp32", stochastic_rounding=False, seed=s) for s in (5, 6))
    take_steps(a, 0, 4)
    take_steps(b, 0, 4)
    assert digest(a) == digest(b)


def test_a_group_may_change_it_in_the_middle() -> None:
    p = nn.Parameter(torch.full((4097,), 1.75, dtype=BF16))
    optimizer = Cosmic([p], lr=STEP, tier=0, stochastic_rounding=False)
    p.grad = torch.ones_like(p)
    optimizer.step()
    assert bool((p == 1.75).all())
    optimizer.param_groups[0]["stochastic_rounding"] = True
    optimizer.step()
    assert 0 < int((p != 1.75).sum()) < 200


@pytest.mark.parametrize("value", ["yes", None, 1])
def test_it_is_true_or_false(value: object) -> None:
    with pytest.raises((TypeError, ValueError), match="stochastic_rounding"):
        Cosmic([parameter(0, 3)], stochastic_rounding=value)  # type: ignore[arg-type]
