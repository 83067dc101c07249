"""Gradients under a mask, as pruning makes them: rows and columns do not describe where they are
not zero, and steps must not be longer for it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import AdamW

from cosmic import Cosmic, _core
from cosmic.rungs import MATRIX, combinations
from cosmic.step.looks import DENSE
from helpers import bits, digest, normal, parameter, through_a_file

SHAPE = (48, 128)
#: Those whose steps are not AdamW's but for rounding: clamped, or without an average.
SPECIAL = ("ustate", "costate")
KEPT = [0.5, 0.1, 0.02]


def mask_of(kept: float, seed: int = 7) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(SHAPE, generator=generator) < kept


def step_lengths(optimizer: torch.optim.Optimizer, mask: Tensor, steps: int = 40) -> list[float]:
    """Root mean square of each step's change."""
    (p,) = optimizer.param_groups[0]["params"]
    out = []
    for step in range(steps):
        p.grad = normal(step, *SHAPE) * mask
        before = p.detach().clone()
        optimizer.step()
        out.append(float((p.detach() - before).square().mean().sqrt()))
    return out


@pytest.mark.parametrize("kept", KEPT)
@pytest.mark.parametrize(
    "state_dtype", [f"{m}+{v}" for m, v in combinations() if m not in SPECIAL and "vlog" not in v]
)
def test_no_step_is_much_longer_than_adamws(state_dtype: str, kept: float) -> None:
    mask = mask_of(kept)
    optimizer = Cosmic([parameter(0, *SHAPE)], lr=1e-3, state_dtype=state_dtype)
    adamw = AdamW([parameter(0, *SHAPE)], lr=1e-3, weight_decay=0.0)
    mine, theirs = step_lengths(optimizer, mask), step_lengths(adamw, mask)
    ratios = [a / b for a, b in zip(mine, theirs, strict=True)]
    assert max(ratios) <= 1.3, (max(ratios), ratios.index(max(ratios)))
    held = optimizer.tiers()[0].codecs["exp_avg_sq"]
    if state_dtype.split("+")[1] in MATRIX:
        assert (held == "v4") == (kept < DENSE)


@pytest.mark.parametrize("kept", [1.0, 0.1])
@pytest.mark.parametrize("options", [{"rung": "tier1:factored"}, {"max_tier": 1}])
def test_without_momentum_it_is_the_same(options: dict[str, Any], kept: float) -> None:
    optimizer = Cosmic([parameter(0, *SHAPE)], **options)
    step_lengths(optimizer, mask_of(kept), 2)
    assert optimizer.tiers()[0].rung == ("tier1:v4" if kept < DENSE else "tier1:factored")


ROWS_SILENT = torch.ones(SHAPE, dtype=torch.bool)
ROWS_SILENT[5:42] = False
BOTH_SILENT = ROWS_SILENT.clone()
BOTH_SILENT[:, 17:111] = False
NOTHING = torch.zeros(SHAPE, dtype=torch.bool)


@pytest.mark.parametrize("mask", [ROWS_SILENT, ROWS_SILENT.roll(3, 1), BOTH_SILENT, NOTHING])
def test_silent_rows_and_columns_are_no_mask(mask: Tensor) -> None:
    """As an embedding's, whose rows see little of any batch, or a matrix behind dead units."""
    optimizer = Cosmic([parameter(0, *SHAPE)])
    step_lengths(optimizer, mask, 3)
    assert optimizer.tiers()[0].rung == "tier2:u4+factored"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", ["contiguous", "transposed"])
def test_density_is_counted_among_rows_and_columns_that_have_something(
    dtype: torch.dtype, layout: str
) -> None:
    gradient = (normal(0, *SHAPE) * mask_of(0.3)).to(dtype)
    gradient[10:20], gradient[:, 40:50] = 0, 0
    used = gradient[gradient.any(dim=1)][:, gradient.any(dim=0)]
    param = torch.zeros(SHAPE, dtype=dtype)
    if layout == "transposed":
        param, gradient = param.t(), gradient.t()
    expected = int(used.count_nonzero()) / used.numel()
    assert _core.density(param, gradient, "w") == pytest.approx(expected, abs=1e-12)
    assert _core.density(param, torch.zeros_like(param), "w") == 1
    assert _core.density(param, torch.full_like(param, float("nan")), "w") == 1


def started(**options: Any) -> Cosmic:
    params = [("w", parameter(0, *SHAPE)), ("dense", parameter(1, *SHAPE))]
    return Cosmic(params, **{"role": "matrix", "reallocate_every": 4, **options})


def train(optimizer: Cosmic, first: int, last: int, masked_from: int) -> None:
    for step in range(first, last):
        for k, p in enumerate(optimizer.param_groups[0]["params"]):
            p.grad = normal(100 * step + k, *SHAPE)
            if k == 0 and step >= masked_from:
                p.grad *= mask_of(0.1)
        optimizer.step()


def rungs(optimizer: Cosmic) -> list[str]:
    return [tier.rung for tier in optimizer.tiers()]


@pytest.mark.parametrize("options", [{}, {"budget": "8%", "policy": "uniform"}])
def test_a_mask_that_comes_in_mid_run_is_seen_at_the_next_look(options: dict[str, Any]) -> None:
    optimizer, seen = started(**options), []
    optimizer.add_listener(lambda event, fields: seen.append((event, fields)))
    train(optimizer, 0, 5, masked_from=2)
    assert all("v4" not in rung for rung in rungs(optimizer))
    train(optimizer, 5, 6, masked_from=2)  # the look was in the step before
    assert "v4" in rungs(optimizer)[0] and "v4" not in rungs(optimizer)[1]
    assert "w" in [f["name"] for e, f in seen if e == "transition" and f["step"] == 5]
    train(optimizer, 6, 12, masked_from=100)
    assert "v4" in rungs(optimizer)[0]  # it stays
    limit = optimizer.budget_bytes()
    assert limit is None or optimizer.state_bytes() <= limit


@pytest.mark.parametrize("options", [{}, {"budget": "8%", "policy": "uniform"}])
@pytest.mark.parametrize("masked_from", [0, 2])
@pytest.mark.parametrize("saved_after", [1, 4, 5, 6])
def test_it_is_saved_and_loaded(
    options: dict[str, Any], masked_from: int, saved_after: int
) -> None:
    optimizer, twin = started(**options), started(**options)
    train(optimizer, 0, saved_after, masked_from)
    with torch.no_grad():
        for a, b in zip(twin.param_groups[0]["params"], optimizer.param_groups[0]["params"],
                        strict=True):  # fmt: skip
            a.copy_(b)
    twin.load_state_dict(through_a_file(optimizer.state_dict()))
    train(optimizer, saved_after, 9, masked_from)
    train(twin, saved_after, 9, masked_from)
    assert digest(twin) == digest(optimizer)


@pytest.mark.parametrize("options", [{}, {"budget": "8%", "policy": "uniform"}])
def test_a_step_in_backward_sees_the_same(options: dict[str, Any]) -> None:
    def run(in_backward: bool) -> list[Tensor]:
        w, dense = parameter(0, *SHAPE), parameter(1, *SHAPE)
        optimizer = Cosmic([w, dense], role="matrix", reallocate_every=4, **options)
        if in_backward:
            optimizer.step_in_backward()
        for step in range(7):
            mask = mask_of(0.1) if step >= 2 or not options else torch.ones(SHAPE)
            loss = (w * normal(step, *SHAPE) * mask).sum() + (
                dense * normal(50 + step, *SHAPE)
            ).sum()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()
        assert "v4" in optimizer.tiers()[0].rung and "v4" not in optimizer.tiers()[1].rung
        state = [
            t for p in (w, dense) for t in optimizer.state[p].values() if isinstance(t, Tensor)
        ]
        return [bits(t) for t in (w, dense, *state)]

    plain, within = run(in_backward=False), run(in_backward=True)
    assert all(torch.equal(a, b) for a, b in zip(plain, within, strict=True))


def test_small_and_double_tensors_are_left_alone() -> None:
    small, double = parameter(0, 8, 9), parameter(1, *SHAPE, dtype=torch.float64)
    optimizer = Cosmic([small, double])
    small.grad = torch.eye(9)[:8]
    double.grad = normal(0, *SHAPE, dtype=torch.float64) * mask_of(0.1)
    optimizer.step()
    assert rungs(optimizer) == ["tier2:fp32+fp32", "tier2:fp64+fp64"]
    assert all("masked" not in optimizer.state[p] for p in (small, double))


def test_a_gradient_that_cannot_be_stepped_is_named_not_looked_at() -> None:
    w = nn.Parameter(torch.zeros(SHAPE))
    optimizer = Cosmic([("w", w)])
    w.grad = torch.zeros(SHAPE).to_sparse()
    with pytest.raises(TypeError, match=r"'w'.*sparse"):
        optimizer.step()
