"""The same trajectory as torch.optim.AdamW, to float rounding, and AdEMAMix's schedules."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler

from cosmic import Cosmic
from helpers import SIZES, UNUSUAL, normal, parameter
from reference.options import Options
from trajectories import Case, run_cosmic, run_reference

STEPS = 200
SHAPES = [(n,) for n in SIZES] + [(33, 65), ()]

#: Both optimizers round every step; what they may differ by after STEPS of them, in units of the
#: last place of the largest element of the tensor.
PARAM_ULPS, MOMENT_ULPS = 4, 8

Scheduler = Callable[[Optimizer], LRScheduler]


def warm_up(optimizer: Optimizer) -> LRScheduler:
    return LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 50))


def cosine(optimizer: Optimizer) -> LRScheduler:
    return CosineAnnealingLR(optimizer, T_max=STEPS, eta_min=1e-5)


def uneven_groups(params: list[nn.Parameter]) -> list[dict[str, Any]]:
    """Parameters dealt to three groups, each with options of its own."""
    return [
        {"params": params[:2], "weight_decay": 0.0, "lr": 1e-2},
        {"params": params[2:3], "betas": (0.95, 0.98), "eps": 1e-4},
        {"params": params[3:]},
    ]


def comes_and_goes(step: int, index: int) -> bool:
    """Whether a parameter has a gradient: every one is away at times, one for long."""
    return step >= 60 if index == 1 else (step + index) % 7 != 0


def distance(a: Tensor, b: Tensor) -> float:
    """Largest difference in units of the last place of the largest element."""
    if a.numel() == 0:
        return 0.0
    unit = torch.finfo(a.dtype).eps * max(float(b.abs().max()), 1e-30)
    return float((a - b).abs().max()) / unit


@cache
def gradient(step: int, index: int, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return normal(1000 * step + index, *shape, dtype=dtype)


def train(
    optimizer: Optimizer, params: list[nn.Parameter], scheduler: Scheduler | None, steps: int
) -> None:
    schedule = scheduler(optimizer) if scheduler else None
    for step in range(steps):
        for k, p in enumerate(params):
            here = comes_and_goes(step, k)
            p.grad = gradient(step, k, tuple(p.shape), p.dtype) if here else None
        optimizer.step()
        if schedule:
            schedule.step()


@pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])
@pytest.mark.parametrize("maximize", [False, True], ids=["minimize", "maximize"])
@pytest.mark.parametrize("scheduler", [None, cosine, warm_up], ids=["constant", "cosine", "warm"])
def test_200_steps_of_adamw(fused: bool, maximize: bool, scheduler: Scheduler | None) -> None:
    theirs = [parameter(k, *shape) for k, shape in enumerate(SHAPES)]
    ours = [parameter(k, *shape) for k, shape in enumerate(SHAPES)]
    adamw = AdamW(uneven_groups(theirs), **UNUSUAL, maximize=maximize, fused=fused)
    cosmic = Cosmic(uneven_groups(ours), **UNUSUAL, maximize=maximize, state_dtype="fp32")

    train(adamw, theirs, scheduler, STEPS)
    train(cosmic, ours, scheduler, STEPS)

    for a, b in zip(ours, theirs, strict=True):
        assert distance(a.data, b.data) <= PARAM_ULPS, a.shape
        for moment in ("exp_avg", "exp_avg_sq"):
            assert distance(cosmic.state[a][moment], adamw.state[b][moment]) <= MOMENT_ULPS
        assert int(cosmic.state[a]["step"]) == int(adamw.state[b]["step"])


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.complex64, torch.complex128], ids=["f64", "c64", "c128"]
)
def test_adamw_in_other_arithmetics(dtype: torch.dtype) -> None:
    theirs, ours = ([parameter(k, 37, dtype=dtype) for k in range(3)] for _ in range(2))
    adamw, cosmic = AdamW(theirs, **UNUSUAL), Cosmic(ours, **UNUSUAL, state_dtype="fp32")
    train(adamw, theirs, None, 50)
    train(cosmic, ours, None, 50)
    for a, b in zip(ours, theirs, strict=True):
        # the parameter with gradients from step 60 on has not moved in either
        real = torch.view_as_real if dtype.is_complex else torch.Tensor.detach
        assert distance(real(a.data), real(b.data)) <= PARAM_ULPS


def test_the_measure_of_parity_can_fail() -> None:
    """A change of one part in 10,000 of the decay shows after 200 steps."""
    theirs, ours = [parameter(0, 129)], [parameter(0, 129)]
    train(AdamW(theirs, lr=3e-3, weight_decay=0.1), theirs, None, STEPS)
    train(Cosmic(ours, lr=3e-3, weight_decay=0.10001, state_dtype="fp32"), ours, None, STEPS)
    assert distance(ours[0].data, theirs[0].data) > PARAM_ULPS


@pytest.mark.parametrize("warmup", [None, 30], ids=["at-once", "warm-up"])
@pytest.mark.parametrize("state_dtype", ["fp32", "bf16", "u4+factored"])
def test_ademamix_equals_the_reference(warmup: int | None, state_dtype: str) -> None:
    options = Options(
        **UNUSUAL, beta_slow=0.999, alpha=8.0, slow_warmup=warmup, state_dtype=state_dtype,
        min_compress_size=0,
    )  # fmt: skip
    case = Case("ademamix", shape=(9, 29), steps=45, absent=(3, 4, 20), options=options)
    got, want = run_cosmic(case).arrays, run_reference(case).arrays
    for key, array in want.items():
        assert np.array_equal(got[key], array), key


def test_the_slow_average_matches_a_plain_implementation() -> None:
    """AdEMAMix as published, in a few lines of float64, without its warm-up."""
    beta1, beta2, beta3, alpha, lr, eps, decay = 0.8, 0.95, 0.99, 4.0, 3e-3, 1e-6, 0.1
    p = normal(1, 50, dtype=torch.float64)
    m, v, slow = (torch.zeros_like(p) for _ in range(3))
    ours = nn.Parameter(p.clone())
    cosmic = Cosmic([ours], **UNUSUAL, beta_slow=beta3, alpha=alpha)
    for t in range(1, 41):
        ours.grad = g = normal(100 + t, 50, dtype=torch.float64)
        cosmic.step()
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        slow = beta3 * slow + (1 - beta3) * g
        m_hat, v_hat = m / (1 - beta1**t), v / (1 - beta2**t)
        p = p - lr * ((m_hat + alpha * slow) / (v_hat.sqrt() + eps) + decay * p)
    torch.testing.assert_close(ours.data, p, rtol=1e-12, atol=1e-14)


def test_half_life_of_the_slow_average_rises_linearly() -> None:
    """beta_slow(t), read off the state, has a half-life that rises linearly from beta1's."""
    beta1, beta_slow, warmup = 0.8, 0.999, 40
    p = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = Cosmic([p], betas=(beta1, 0.95), beta_slow=beta_slow, slow_warmup=warmup)
    slow, inverse_logs = 0.0, []
    for t in range(1, warmup + 6):
        g = float(-1) ** t
        p.grad = torch.tensor([g], dtype=torch.float64)
        optimizer.step()
        now = float(optimizer.state[p]["exp_avg_slow"])
        inverse_logs.append(1 / math.log((now - g) / (slow - g)))
        slow = now
    start, end = 1 / math.log(beta1), 1 / math.log(beta_slow)
    share = [min(t / warmup, 1.0) for t in range(1, warmup + 6)]
    want = [start + s * (end - start) for s in share]
    assert inverse_logs == pytest.approx(want, rel=1e-9)
