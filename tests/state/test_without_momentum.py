"""Tier 1 with a second moment: its arithmetic in plain torch, bad gradients, asking for it."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch
from torch import nn

from cosmic import Cosmic
from cosmic.rungs import without_momentum
from helpers import UNUSUAL, digest, give_gradients, normal, parameter, same_bits, take_steps
from one_param import SHAPE, only_param, optimizer_of, state_of, trained

LR, (BETA1, BETA2), EPS = UNUSUAL["lr"], UNUSUAL["betas"], UNUSUAL["eps"]


# ---- the arithmetic ----------------------------------------------------------------------------


@pytest.mark.parametrize("maximize", [False, True])
def test_it_is_the_expression(maximize: bool) -> None:
    """In float64, with steps that are clipped and steps that are not."""
    optimizer = optimizer_of("tier1:fp32", maximize=maximize)
    param = only_param(optimizer)
    p, v, last = param.detach().double(), torch.zeros(SHAPE, dtype=torch.float64), 0.0
    clipped = set()
    for t in range(1, 21):
        scale = 5.0 if t % 7 == 0 else 1.0
        param.grad = normal(t, *SHAPE, scale=scale)
        g = param.grad.double() * (-1 if maximize else 1)
        v = BETA2 * v + (1 - BETA2) * g * g
        u = g / ((v / (1 - BETA2**t)).sqrt() + EPS)
        length = 1 / max(1.0, last)
        p = (1 - LR * UNUSUAL["weight_decay"]) * p - LR * length * u
        clipped.add(last > 1)
        last = u.square().mean().sqrt().item()
        optimizer.step()
        torch.testing.assert_close(param.double(), p, rtol=1e-5, atol=1e-6)
        assert optimizer.stats()[0]["update_rms"] == pytest.approx(length * last, rel=1e-5)
        assert state_of(optimizer)["update_rms"].item() == pytest.approx(last, rel=1e-5)
    assert clipped == {False, True}
    torch.testing.assert_close(state_of(optimizer)["exp_avg_sq"].double(), v, rtol=1e-5, atol=0)


def test_it_is_rmsprop_once_its_bias_is_corrected() -> None:
    """torch's has no correction, which is no more than 1 after many steps; and its learning rate
    is given what ours is clipped to."""
    optimizer = optimizer_of("tier1:fp32", weight_decay=0.0)
    param, twin = only_param(optimizer), parameter(0, *SHAPE)
    theirs = torch.optim.RMSprop([twin], alpha=BETA2, eps=EPS)
    take_steps(optimizer, 0, 1)
    with torch.no_grad():
        twin.copy_(param)
        state_of(optimizer)["step"].fill_(10_000)
    theirs.state[twin] = {
        "step": torch.tensor(10_000.0), "square_avg": state_of(optimizer)["exp_avg_sq"].clone()
    }  # fmt: skip
    for step in range(1, 20):
        last = state_of(optimizer)["update_rms"].item()
        theirs.param_groups[0]["lr"] = LR / max(1.0, last)
        give_gradients([param], step)
        give_gradients([twin], step)
        optimizer.step()
        theirs.step()
    torch.testing.assert_close(param, twin, rtol=1e-5, atol=1e-6)


def test_the_first_step_is_not_clipped_and_as_long_as_a_sign() -> None:
    optimizer = optimizer_of("tier1:fp32", weight_decay=0.0)
    param = only_param(optimizer)
    before = param.detach().clone()
    give_gradients([param], 0, scale=100.0)
    optimizer.step()
    torch.testing.assert_close((param - before).abs(), torch.full(SHAPE, LR), rtol=1e-3, atol=0)


@pytest.mark.parametrize("v", without_momentum())
def test_a_small_problem_is_solved_with_the_learning_rate_of_adamw(v: str) -> None:
    def loss_after(**options: Any) -> float:
        target, inputs = normal(1, 40, 32), normal(2, 256, 40)
        weight = nn.Parameter(torch.zeros(40, 32))
        optimizer = Cosmic([weight], lr=1e-2, min_compress_size=0, **options)
        for _ in range(300):
            optimizer.zero_grad()
            loss = (inputs @ (weight - target)).square().mean()
            torch.autograd.backward(loss)
            optimizer.step()
        return loss.item()

    start = (normal(2, 256, 40) @ normal(1, 40, 32)).square().mean().item()
    assert loss_after(state_dtype="fp32") < 0.1 * start
    assert loss_after(rung=f"tier1:{v}") < 0.25 * start


# ---- what is not finite ------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("v", without_momentum())
def test_a_bad_gradient_does_not_decide_how_the_next_step_is_clipped(v: str, bad: float) -> None:
    ours, twin = trained(f"tier1:{v}"), trained(f"tier1:{v}")
    last = state_of(ours)["update_rms"].clone()
    for optimizer, value in ((ours, bad), (twin, 0.0)):
        param = only_param(optimizer)
        param.grad = normal(9, *SHAPE)
        param.grad[3, 4] = value
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            optimizer.step()
    spoiled = torch.zeros(SHAPE, dtype=torch.bool)
    spoiled[3, 4] = True
    mine, theirs = only_param(ours).detach(), only_param(twin).detach()
    assert torch.equal(mine[~spoiled], theirs[~spoiled])
    assert mine[3, 4].isnan()
    assert same_bits(state_of(ours)["update_rms"], last)
    assert not same_bits(state_of(twin)["update_rms"], last)
    take_steps(ours, 5, 6)
    assert only_param(ours)[~spoiled].isfinite().all()


def test_a_skipped_step_leaves_everything_as_it_was() -> None:
    optimizer = trained("tier1:factored", nonfinite="skip")
    before = digest(optimizer)
    param = only_param(optimizer)
    param.grad = normal(9, *SHAPE)
    param.grad[0, 0] = math.inf
    optimizer.step()
    assert digest(optimizer) == before


# ---- the option --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rung", "same"),
    [
        ("tier0", {"tier": 0}),
        ("tier1", {"tier": 1}),
        ("tier2:u2+factored", {"tier": 2, "state_dtype": "u2+factored"}),
        ("tier2:bf16+rowmean", {"state_dtype": "bf16+rowmean"}),
    ],
)
@pytest.mark.parametrize("beta_slow", [None, 0.99])
def test_a_rung_says_what_tier_and_state_dtype_say(
    rung: str, same: dict[str, Any], beta_slow: float | None
) -> None:
    ours = trained(rung, beta_slow=beta_slow)
    theirs = trained(None, beta_slow=beta_slow, **same)
    assert digest(ours) == digest(theirs)
    if rung.startswith("tier2"):
        named = trained(f"{rung}+slow", beta_slow=0.99) if beta_slow else ours
        assert digest(ours) == digest(named)


def test_a_rung_is_the_whole_ladder_under_a_budget() -> None:
    fixed, free = parameter(0, 40, 60), parameter(1, 40, 60)
    groups: list[dict[str, Any]] = [
        {"params": [fixed], "rung": "tier1:factored"},
        {"params": [free]},
    ]
    optimizer = Cosmic(groups, budget=16 + 16 + 4 * 100, min_compress_size=0)
    take_steps(optimizer, 0, 2)
    assert [info.rung for info in optimizer.tiers()] == ["tier1:factored", "tier0"]
    assert optimizer.state_bytes() == 16 + 16 + 4 * 100
    optimizer.budget = 16 + 16 + 4 * 100 - 1
    give_gradients([fixed, free], 3)
    with pytest.raises(ValueError, match="need 432"):
        optimizer.step()


def test_vectors_have_blocks_in_the_place_of_rows_and_columns() -> None:
    optimizer = optimizer_of("tier1:factored", parameter(0, 300))
    take_steps(optimizer, 0, 1)
    assert optimizer.tiers()[0].rung == "tier1:v4"


def test_rows_or_columns_by_the_first_gradient() -> None:
    for dim, expected in ((0, "tier1:rowmean"), (1, "tier1:colmean")):
        optimizer = optimizer_of("tier1:rowmean", parameter(0, 40, 40))
        param = only_param(optimizer)
        shape = (40, 1) if dim == 0 else (1, 40)
        param.grad = normal(1, 40, 40) * torch.linspace(1, 9, 40).view(shape)
        optimizer.step()
        assert optimizer.tiers()[0].rung == expected
        param.grad = param.grad.t()
        optimizer.param_groups[0]["rung"] = "tier2:u4+rowmean"
        optimizer.step()
        assert optimizer.tiers()[0].rung == expected.replace("tier1:", "tier2:u4+"), "it is kept"
