"""Moments are rounded without bias: over many seeds a moment means what was encoded."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from cosmic import Cosmic, Rung, _core
from cosmic.rungs import Geometry
from helpers import UNUSUAL, normal

SHAPE = (5, 129)  # five blocks and a tail of five elements
SEEDS = 1500
TAKEN = 7  # steps behind the moments
V = 2.0**-10  # one power of four for all: on the grid of every codec, so that m alone is rounded

#: Of a mean over seeds, in standard errors. Rounding between two levels has a standard deviation
#: of half their gap at most. 645 elements are compared at once: five would fail one run in 2,000.
ERRORS = 5.5


def group() -> dict[str, Any]:
    return Cosmic([torch.zeros(1, requires_grad=True)], **UNUSUAL).param_groups[0]


def over_seeds(state_dtype: str, m: Tensor) -> Tensor:
    """The first moment, encoded and decoded once a seed, beside a second one that is exact."""
    v = torch.full(SHAPE, V)
    decoded = both_over_seeds(state_dtype, m, v)
    torch.testing.assert_close(decoded["exp_avg_sq"], v.expand(SEEDS, *SHAPE))
    return decoded["exp_avg"]


def both_over_seeds(state_dtype: str, m: Tensor, v: Tensor) -> dict[str, Tensor]:
    codecs = state_dtype.split("+")
    rung = Rung(2, codecs[0], "none", codecs[1])
    param, options = torch.zeros(SHAPE), group()
    source = {"exp_avg": m, "exp_avg_sq": v}
    decoded = {key: torch.empty(SHAPE) for key in source}
    out = {key: torch.empty(SEEDS, *SHAPE) for key in source}
    for seed in range(SEEDS):
        state: dict[str, Any] = {"step": torch.tensor(TAKEN)}
        for key, (_, dtype, count, shaped, _) in rung.planes(Geometry.of(param)).items():
            size = SHAPE if shaped else (count,)
            state[key] = torch.zeros(size, dtype=getattr(torch, dtype))
        if rung.m == "ustate":
            state["exp_avg_ustate_steps"] = torch.zeros(2)
        plan = _core.Plan(seed)
        plan.add_row(param, "it", 0, 3, "adam", rung.m, "none", rung.v, "none", False, state)
        plan.write_moments(options, source)
        plan.read_moments(options, decoded)
        for key, values in decoded.items():
            out[key][seed] = values
    return out


def blockwise(x: Tensor) -> list[Tensor]:
    return list(torch.split(x.flatten(), 128))


def held_unbiased(decoded: Tensor, m: Tensor, gap: Tensor, chosen: Tensor) -> None:
    """Element by element, and their sum along the sign, which a codec that shrinks would lose."""
    off = (decoded.double().mean(0) - m)[chosen]
    error = (gap / 2 / math.sqrt(SEEDS)).double().expand(SHAPE)[chosen]
    assert (off.abs() / error).max().item() < ERRORS
    # the elements of a block share one random key: count blocks, not elements
    shrunk = (off * m[chosen].sign() / error).mean().item()
    assert abs(shrunk) < ERRORS / math.sqrt(len(blockwise(m)))


@pytest.mark.parametrize("state_dtype", ["u4+v4", "u4+factored", "q8+q8", "q8+rowmean"])
def test_signed_levels_are_unbiased(state_dtype: str) -> None:
    m = normal(1, *SHAPE, scale=1e-4)
    levels = {"u4": 7, "q8": 127}[state_dtype[:2]]
    gap = [torch.full_like(b, b.abs().max().item() / levels * 1.01) for b in blockwise(m)]
    held_unbiased(over_seeds(state_dtype, m), m, torch.cat(gap).view(SHAPE), torch.ones(SHAPE) > 0)


@pytest.mark.parametrize("dtype", ["bf16+bf16", "bf16+colmean"])
def test_bf16_is_unbiased(dtype: str) -> None:
    m = normal(2, *SHAPE, scale=1e-4)
    held_unbiased(over_seeds(dtype, m), m, m.abs() * 2.0**-7, torch.ones(SHAPE) > 0)


#: Steps of the root mean square, and the outermost level in steps.
MIDRISE = {"u2": (0.996, 1.5), "u1": (1.596, 0.5)}


@pytest.mark.parametrize("codec", MIDRISE)
@pytest.mark.parametrize("v", ["v4", "factored"])
def test_midrise_levels_are_unbiased_within_the_outer_ones(codec: str, v: str) -> None:
    """What lies beyond is clamped to the outer level, always."""
    m = normal(3, *SHAPE, scale=1e-4)
    of_rms, outer = MIDRISE[codec]
    decoded = over_seeds(f"{codec}+{v}", m)
    gap = torch.cat(
        [torch.full_like(b, of_rms * b.square().mean().sqrt().item()) for b in blockwise(m)]
    ).view(SHAPE)
    held_unbiased(decoded, m, gap, m.abs() < outer * gap * 0.99)
    clamped = m.abs() > outer * gap * 1.01
    assert int(clamped.sum()) > 10
    # a step is kept in bf16, to nearest: half a unit of the last place, 2^-8
    level = (m.sign() * outer * gap)[clamped].expand(SEEDS, -1)
    torch.testing.assert_close(decoded[:, clamped], level, rtol=2.0**-8 * 1.01, atol=0)


@pytest.mark.parametrize("v", ["v4", "fp32"])
def test_ustate_is_unbiased_about_its_means(v: str) -> None:
    """What lies beyond the outer levels is clamped to them, and what that adds to the 64 elements'
    mean is taken out again. All elements have one denominator here, so that units do not matter."""
    m = normal(5, *SHAPE, scale=1e-4)
    halves = list(torch.split(m.flatten(), 64))
    rests = [half - half.mean() for half in halves]
    gap = 1.1 * torch.cat(rests).square().mean().sqrt()
    outer = 1.5 * gap
    clamped = [rest.clamp(-outer, outer) for rest in rests]
    assert sum(int((rest.abs() > outer).sum()) for rest in rests) > 10
    wanted = [half.mean() + rest - rest.mean() for half, rest in zip(halves, clamped, strict=True)]
    decoded = over_seeds(f"ustate+{v}", m)
    # means are kept in bf16, to nearest; they do not depend on the seed
    means = [half.mean() for half in torch.split(decoded.mean(0).flatten(), 64)]
    for kept, half in zip(means, halves, strict=True):
        torch.testing.assert_close(kept, half.mean(), rtol=2.0**-8 * 1.01, atol=1e-10)
    exact = torch.cat(
        [want - half.mean() + kept for want, half, kept in zip(wanted, halves, means, strict=True)]
    ).view(SHAPE)
    held_unbiased(decoded, exact, gap.expand(SHAPE), torch.ones(SHAPE) > 0)


@pytest.mark.parametrize("zeros", [False, True])
def test_second_moments_of_q8_are_unbiased_though_their_roots_are_rounded(zeros: bool) -> None:
    """Over 30 binades a block, so that levels lie an eighth of a binade apart. Unless seeds that
    draw a correction make up for it, squares of the rounded roots are too large: by `f (1 - f)
    gap^2`, here a tenth of a percent."""
    v = torch.exp2(normal(6, *SHAPE).abs() * 15)
    if zeros:
        v.view(-1)[::5] = 0
    decoded = both_over_seeds("q8+q8", torch.zeros(SHAPE), v)["exp_avg_sq"].double()
    assert torch.equal(decoded == 0, (v == 0).expand(SEEDS, *SHAPE))
    chosen = v > 0
    off = (decoded.mean(0) / v - 1)[chosen]
    gap = 2.0**-2  # of squares, at most
    assert off.abs().max().item() < ERRORS * gap / 2 / math.sqrt(SEEDS)
    root, roots = v.sqrt()[chosen].double(), decoded.sqrt()[:, chosen]
    uncorrected = ((roots - root).square().mean(0) / root.square()).mean().item()
    assert uncorrected > 5e-4  # what rounding of roots adds to a square
    assert abs(off.mean().item()) < uncorrected / 3


def test_the_errors_would_catch_rounding_to_nearest() -> None:
    m = normal(4, *SHAPE, scale=1e-4)
    gap = m.abs().max() / 7
    nearest = ((m / gap).round() * gap).expand(SEEDS, *SHAPE)
    with pytest.raises(AssertionError):
        held_unbiased(nearest, m, gap, torch.ones(SHAPE) > 0)
