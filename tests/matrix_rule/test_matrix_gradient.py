"""Rung ``tier1:muon``: ``matrix_rule`` without momentum, and what it keeps."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from cosmic import Cosmic, Rung, estimate_memory
from helpers import digest, parameter, parameters, refused, same_bits, state_tensors, through_a_file
from matrix_runs import SHAPES, go, gradient, mixed, params_of
from reference.muon import JORDAN, MuonReference
from reference.polar_express import polar_express

NONE: dict[str, Any] = {"matrix_state_dtype": "none"}
RUNG: dict[str, Any] = {"rung": "tier1:muon", "lr": 0.01, "weight_decay": 0.1}
#: Rungs that have nothing for it, and it nothing for them but its count.
OTHERS = ("tier0", "tier1", "tier1:factored", "tier2:u4+factored", "tier2:fp32+fp32")


# ---- the step -----------------------------------------------------------------------------------


@pytest.mark.parametrize("adjust_lr_fn", [None, "original", "match_rms_adamw"])
@pytest.mark.parametrize("steps", [3, 5])
@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_three_times_the_rule_without_an_average(
    shape: tuple[int, int], steps: int, adjust_lr_fn: str | None
) -> None:
    optimizer = Cosmic(
        [{"params": [parameter(0, *shape)], "adjust_lr_fn": adjust_lr_fn}], ns_steps=steps, **RUNG
    )
    (p,) = params_of(optimizer)
    reference = MuonReference(
        p.detach().double().numpy(), momentum=0.0, coefficients=polar_express(steps), eps=1e-8,
        adjust_lr_fn=adjust_lr_fn, by_gram=True, factor=3.0,
    )  # fmt: skip
    for step in range(4):
        p.grad = gradient(step, 0, p)
        reference.step(p.grad.double().numpy(), 0.01)
        optimizer.step()
    np.testing.assert_allclose(p.detach().numpy(), reference.param, rtol=0, atol=5e-5)


def test_it_reads_the_options_of_the_rule_with_momentum() -> None:
    optimizer = Cosmic(
        [{"params": [parameter(0, 40, 70)], "parts": (0, (16, 24)), "ns_coefficients": JORDAN}],
        ns_steps=5, **RUNG,
    )  # fmt: skip
    (p,) = params_of(optimizer)
    reference = MuonReference(
        p.detach().double().numpy(), momentum=0.0, eps=1e-8, adjust_lr_fn="match_rms_adamw",
        factor=3.0, parts=(16, 24),
    )  # fmt: skip
    p.grad = gradient(0, 0, p)
    reference.step(p.grad.double().numpy(), 0.01)
    optimizer.step()
    np.testing.assert_allclose(p.detach().numpy(), reference.param, rtol=0, atol=2e-5)


def test_momentum_and_nesterov_have_no_effect() -> None:
    found = set()
    for momentum, nesterov in ((0.95, True), (0.5, False), (0.0, True)):
        group = {"params": [parameter(0, 40, 70)], "nesterov": nesterov}
        optimizer = Cosmic([group], momentum=momentum, **RUNG)
        go(optimizer, 0, 3)
        found.add(digest(optimizer))
    assert len(found) == 1


def test_maximizing_is_the_other_way() -> None:
    up = Cosmic([parameter(0, 40, 70)], maximize=True, **RUNG)
    down = Cosmic([parameter(0, 40, 70)], **RUNG)
    for optimizer, sign in ((up, -1), (down, 1)):
        (p,) = params_of(optimizer)
        p.grad = sign * gradient(0, 0, p)
        optimizer.step()
    assert same_bits(params_of(up)[0], params_of(down)[0])


def test_it_moves_in_its_turn() -> None:
    optimizer = mixed(matrix_every=3, **NONE)
    for k in (0, 1):
        moves = []
        for step in range(6):
            before = params_of(optimizer)[k].detach().clone()
            go(optimizer, step, step + 1)
            moves.append(not torch.equal(before, params_of(optimizer)[k]))
        assert sum(moves) == 2 and moves[:3] == moves[3:]


# ---- its state ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_it_keeps_a_count_and_nothing_else(dtype: torch.dtype) -> None:
    optimizer = Cosmic([parameter(0, 40, 70, dtype=dtype)], **RUNG)
    go(optimizer, 0, 2)
    (state,) = optimizer.state.values()
    assert set(state) == {"rung:tier1:muon", "step"} and int(state["step"]) == 2
    assert optimizer.state_bytes() == 8 == sum(t.nbytes for t in state_tensors(optimizer))
    layer = nn.Linear(70, 40, bias=False, dtype=dtype)
    assert estimate_memory(layer, dtype=dtype, rung="tier1:muon").state_bytes == 8
    assert optimizer.tiers()[0].rung == "tier1:muon" and optimizer.tiers()[0].tier == 1
    assert Rung.parse("tier1:muon").of_matrix and Rung.parse("tier1:muon").rule == "muon_gradient"
    (p,) = params_of(optimizer)
    assert optimizer.moments(p)[:3] == (None, None, None)
    assert optimizer.to_adamw_state_dict()["state"] == {}


@pytest.mark.parametrize("options", [{}, {"gate": "snr"}, {"matrix_every": 2}], ids=str)
def test_a_run_goes_on_with_the_same_bits_after_save_and_load(options: dict[str, Any]) -> None:
    through, broken = mixed(**NONE, **options), mixed(**NONE, **options)
    go(through, 0, 7)
    go(broken, 0, 4)
    resumed = mixed(**NONE, **options)
    with torch.no_grad():
        for p, q in zip(params_of(resumed), params_of(broken), strict=True):
            p.copy_(q)
    resumed.load_state_dict(through_a_file(broken.state_dict()))
    go(resumed, 4, 7)
    assert digest(resumed) == digest(through)


def moved(before: str, after: str) -> dict[str, Any]:
    """The state after three steps on a rung and one on another, from which training goes on."""
    optimizer = Cosmic([parameter(0, 40, 70)], rung=before, min_compress_size=0, lr=0.01)
    go(optimizer, 0, 3)
    optimizer.param_groups[0]["rung"] = after
    go(optimizer, 3, 4)
    (state,) = (copy.deepcopy(dict(state)) for state in optimizer.state.values())
    go(optimizer, 4, 6)
    assert [info.rung for info in optimizer.tiers()] == [after]
    assert all(p.isfinite().all() for p in params_of(optimizer))
    return state


@pytest.mark.parametrize("codec", ["fp32", "bf16", "m8", "m4", "m2", "m1"])
def test_a_momentum_comes_and_goes(codec: str) -> None:
    state = moved(f"tier2:muon:{codec}", "tier1:muon")
    assert set(state) == {"rung:tier1:muon", "step"} and int(state["step"]) == 4
    state = moved("tier1:muon", f"tier2:muon:{codec}")
    assert int(state["step"]) == 4 and state["exp_avg_start"] == 3
    if codec == "fp32":  # the others' random bits come from the count
        fresh = Cosmic([parameter(0, 40, 70)], rung="tier2:muon:fp32")
        go(fresh, 3, 4)
        assert same_bits(fresh.state[params_of(fresh)[0]]["exp_avg"], state["exp_avg"])


@pytest.mark.parametrize("other", OTHERS)
def test_other_rungs_start_anew_from_it(other: str) -> None:
    state = moved("tier1:muon", other)
    assert int(state.get("step", 1)) == 1


@pytest.mark.parametrize("other", OTHERS)
def test_it_goes_on_counting_after_a_second_moment(other: str) -> None:
    state = moved(other, "tier1:muon")
    counted = other.startswith("tier2") or other == "tier1:factored"
    assert set(state) == {"rung:tier1:muon", "step"} and int(state["step"]) == 1 + 3 * counted


# ---- who has it ---------------------------------------------------------------------------------


def rungs_of(optimizer: Cosmic) -> list[str]:
    go(optimizer, 0, 2)
    return [info.rung for info in optimizer.tiers()]


@pytest.mark.parametrize(
    "options",
    [
        NONE,
        {"max_tier": 1},
        {"max_tier": 1, "matrix_state_dtype": "m4"},
        {**NONE, "tier": 1},
        {**NONE, "budget": "1%"},
        {**NONE, "budget": "100%"},
        {**NONE, "budget": "100%", "max_tier": 1},
        {"max_tier": 1, "min_tier": 1, "budget": "50%"},
    ],
    ids=str,
)
def test_hidden_matrices_have_it_where_it_is_asked_for(options: dict[str, Any]) -> None:
    rungs = rungs_of(mixed(**options))
    assert rungs[:2] == ["tier1:muon"] * 2 and not any("muon" in rung for rung in rungs[2:])


@pytest.mark.parametrize("options", [{"tier": 0}, {"max_tier": 0}, {"max_tier": 0, "budget": "9%"}])
def test_tier_0_stays_without_the_rule(options: dict[str, Any]) -> None:
    assert set(rungs_of(mixed(**NONE, **options))) == {"tier0"}


@pytest.mark.parametrize("option", ["tier", "min_tier"])
def test_tier_2_is_a_contradiction(option: str) -> None:
    with pytest.raises(ValueError, match=rf"has {option} 2 and matrix_state_dtype 'none', which"):
        mixed(**NONE, **{option: 2})


def test_a_budget_has_it_below_every_momentum() -> None:
    """What buys no momentum buys this."""
    optimizer = Cosmic(
        parameters((128, 96), (128, 128)), matrix_rule="muon", budget=16, policy="role"
    )
    assert rungs_of(optimizer) == ["tier1:muon"] * 2
    optimizer.budget = "20%"
    assert all(rung.startswith("tier2:muon:") for rung in rungs_of(optimizer))


@pytest.mark.parametrize("policy", ["calibrated", "role", "uniform", "signal"])
def test_every_policy_knows_its_worth(policy: str) -> None:
    optimizer = Cosmic(
        parameters((128, 96), (512, 64), (64,)), matrix_rule="muon", budget="5%", policy=policy
    )
    rungs_of(optimizer)
    limit = optimizer.budget_bytes()
    assert limit is not None and optimizer.state_bytes() <= limit


def test_float64_has_what_it_has_without_the_rule() -> None:
    optimizer = Cosmic(parameters((40, 70), dtype=torch.float64), matrix_rule="muon", **NONE)
    assert rungs_of(optimizer) == ["tier2:fp64+fp64"]


@pytest.mark.parametrize("shape", [(7,), (), (0, 3)])
def test_what_is_no_matrix_is_refused(shape: tuple[int, ...]) -> None:
    optimizer = Cosmic([("w", parameter(0, *shape))], **RUNG)
    (p,) = params_of(optimizer)
    p.grad = torch.ones_like(p)
    with refused(optimizer, ValueError, "'w'", "rung 'tier1:muon' steps real matrices"):
        optimizer.step()


def test_the_memory_of_a_step_is_that_of_the_rule_with_momentum() -> None:
    model = nn.Sequential(nn.Linear(96, 256, bias=False), nn.Linear(256, 96, bias=False))
    found = {
        rung: estimate_memory(model, rung=rung).scratch_bytes
        for rung in ("tier1:muon", "tier2:muon:m1")
    }
    assert found["tier1:muon"] == found["tier2:muon:m1"] > 0
