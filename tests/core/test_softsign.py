"""Rule ``softsign``: against the reference, at its limits, and in mid-run beside rule ``adam``."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from conftest import Runner
from cosmic import Cosmic
from cosmic.rungs import combinations
from helpers import UNUSUAL, digest, normal, parameters, refused, same_bits, take_steps
from reference.options import Options
from reference.softsign import raised_cosine
from trajectories import Case, assert_same_bits, run_cosmic, run_reference

#: Codecs such that each of either moment is in one at least.
CODECS = (
    "fp32+fp32", "bf16+bf16", "q8+q8", "u4+v4", "u4+factored", "u2+v4", "u1+factored",
    "ustate+vlog4", "costate+vlog3",
)  # fmt: skip
FEW = ("fp32+fp32", "u4+factored", "q8+v4")
SCHEDULE = {"blend": 0.1, "blend_to": 0.9, "blend_steps": 30}


def options(codecs: str, **changes: Any) -> Options:
    rung = {"tier": None, "rung": f"tier2:{codecs}+softsign", "min_compress_size": 0}
    return Options(**{**UNUSUAL, **rung, **changes})


def cases() -> list[Case]:
    tall = (131, 17)
    changes = [(f"tier2:{a}", f"tier2:{a}+softsign") for a in CODECS if a not in FEW]
    changes += [
        ("tier2:u4+v4", "tier2:q8+factored+softsign"), ("tier1:v4", "tier2:u4+v4+softsign"),
        ("tier2:u4+v4+softsign", "tier1:v4"), ("tier2:fp32+fp32+softsign", "tier1"),
    ]  # fmt: skip
    changes += [(after, before) for before, after in changes[:6]]
    return [
        *(Case(f"50-steps-{codecs}", shape=tall, steps=50, absent=(2,), index=3,
               options=options(codecs, **SCHEDULE, blend_schedule=schedule))
          for codecs, schedule in (("fp32+fp32", "linear"), ("u4+factored", "cosine"))),
        *(Case(f"special-{codecs}", shape=(23, 31), special=True, steps=4, options=options(codecs))
          for codecs in CODECS),
        *(Case(f"size-{n}-{codecs}", shape=(n,), steps=3, options=options(codecs))
          for n in (1, 127, 4097) for codecs in FEW),
        *(Case(f"{dtype}-{codecs}", shape=tall, dtype=dtype, options=options(codecs))
          for dtype in ("bfloat16", "float16", "complex64") for codecs in FEW),
        *(Case(f"{dtype}", dtype=dtype, steps=7, options=options("fp64+fp64", **SCHEDULE))
          for dtype in ("float64", "complex128")),
        *(Case(f"{name}-{codecs}", shape=tall, options=options(codecs, **change))
          for name, change in (("maximize", {"maximize": True}), ("kappa-1", {"kappa": 1.0}),
                               ("eps-0", {"eps": 0.0}), ("betas-0", {"betas": (0.0, 0.0)}),
                               ("blend-0", {"blend": 0.0}), ("kappa-least", {"kappa": 1e-30}))
          for codecs in FEW),
        Case("snr", steps=30, shape=(10, 17), pulse=(1e-2, 1.0, 10.0),
             options=options("fp32+fp32", gate="snr", c_min=0.01)),
        *(Case(f"from-{before}-to-{after}", shape=tall, steps=6, change=(3, after), index=2,
               options=replace(options("fp32+fp32"), rung=before)) for before, after in changes),
    ]  # fmt: skip


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_core_equals_the_reference(case: Case, on_isa: Runner) -> None:
    got, want = on_isa(run_cosmic, case), run_reference(case)
    assert got.arrays.keys() == want.arrays.keys()
    for key, array in want.arrays.items():
        assert_same_bits(got.arrays[key], array, key)
    for key, value in want.stats.items():
        np.testing.assert_allclose(got.stats[key], value, rtol=1e-14, err_msg=key)


# ---- limits ------------------------------------------------------------------------------------


def stepped(steps: int = 20, **more: Any) -> Cosmic:
    optimizer = Cosmic(parameters((67, 33), (300,)), **{**UNUSUAL, "min_compress_size": 0, **more})
    take_steps(optimizer, 0, steps)
    return optimizer


def moments_of(optimizer: Cosmic) -> list[Tensor]:
    return [
        value
        for state in optimizer.state.values()
        for key, value in state.items()
        if key.startswith("exp_avg") and isinstance(value, Tensor)
    ]


@pytest.mark.parametrize("codecs", CODECS)
def test_all_of_the_quotient_is_adam(codecs: str) -> None:
    """Moments to the bit, as they do not depend on the rule; parameters to rounding."""
    soft = stepped(rule="softsign", blend=1.0, state_dtype=codecs)
    adam = stepped(state_dtype=codecs)
    for one, other in zip(moments_of(soft), moments_of(adam), strict=True):
        assert same_bits(one, other)
    for p, q in zip(*(o.param_groups[0]["params"] for o in (soft, adam)), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-6)
        assert p.dtype == torch.float32


def test_nothing_of_the_quotient_and_no_width_is_its_sign() -> None:
    param = nn.Parameter(torch.zeros(300))
    optimizer = Cosmic([param], lr=0.5, rule="softsign", blend=0.0, kappa=1e-30)
    param.grad = normal(1, 300, scale=1e-3)
    param.grad[::7] = 0.0
    optimizer.step()
    assert torch.equal(param.detach(), -0.5 * param.grad.sign())


@settings(max_examples=20, deadline=None)
@given(k=st.integers(-20, 20), codecs=st.sampled_from(FEW), blend=st.floats(0, 1))
def test_the_scale_of_the_loss_leaves_every_bit(k: int, codecs: str, blend: float) -> None:
    def trained(scale: float) -> Cosmic:
        params = parameters((67, 33))
        optimizer = Cosmic(
            params, lr=1e-2, eps=0.0, rule="softsign", blend=blend, state_dtype=codecs,
            min_compress_size=0,
        )  # fmt: skip
        for step in range(4):
            params[0].grad = normal(step, 67, 33) * scale
            optimizer.step()
        return optimizer

    (one,), (other,) = (trained(s).param_groups[0]["params"] for s in (1.0, 2.0**k))
    assert same_bits(one, other)


# ---- the schedule ------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_the_blend_goes_where_its_schedule_says(schedule: str) -> None:
    """A gradient that never changes has w = 1, so that the update says what b is."""
    param, kappa = nn.Parameter(torch.zeros(1, dtype=torch.float64)), 0.5
    optimizer = Cosmic(
        [param], lr=1.0, eps=0.0, rule="softsign", kappa=kappa, blend=0.25, blend_to=0.75,
        blend_steps=8, blend_schedule=schedule,
    )  # fmt: skip
    for t in range(1, 12):
        before = param.item()
        param.grad = torch.full((1,), 3.0, dtype=torch.float64)
        optimizer.step()
        share = min(t / 8, 1.0)
        weight = share if schedule == "linear" else (1 - math.cos(math.pi * share)) / 2
        blend = 0.25 + 0.5 * weight
        expected = (1 - blend) / (1 + kappa) + blend
        assert before - param.item() == pytest.approx(expected, rel=1e-12)


@given(x=st.floats(0, 1))
def test_the_raised_cosine_is_one(x: float) -> None:
    assert raised_cosine(x) == pytest.approx((1 - math.cos(math.pi * x)) / 2, abs=4e-16)


@pytest.mark.parametrize("change", [{"blend_to": None}, {"blend_steps": 0}])
def test_without_an_end_or_steps_the_blend_stays(change: dict[str, Any]) -> None:
    ends: dict[str, Any] = {"blend_to": 0.0, "blend_steps": 3}
    assert digest(stepped(rule="softsign", **{**ends, **change})) == digest(
        stepped(rule="softsign")
    )
    assert digest(stepped(rule="softsign", **ends)) != digest(stepped(rule="softsign"))


# ---- beside rule adam --------------------------------------------------------------------------


@pytest.mark.parametrize("codecs", [f"{m}+{v}" for m, v in combinations()])
@pytest.mark.parametrize("first", [None, "softsign"])
def test_a_change_of_rule_carries_both_moments_to_the_bit(codecs: str, first: str | None) -> None:
    """Random bits come from the count of steps: what the next step makes of moments that are the
    same is the same."""
    optimizer = stepped(3, rule=first, state_dtype=codecs)
    changed = copy.deepcopy(optimizer)
    changed.param_groups[0]["rule"] = "softsign" if first is None else None
    for each in (optimizer, changed):
        take_steps(each, 3, 4)
    rungs = [{info.rung.endswith("+softsign") for info in o.tiers()} for o in (optimizer, changed)]
    assert rungs == [{first is not None}, {first is None}]
    for one, other in zip(moments_of(optimizer), moments_of(changed), strict=True):
        assert same_bits(one, other)


def test_adamw_gets_the_moments_of_adam() -> None:
    soft, adam = (stepped(rule=rule, state_dtype="q8") for rule in ("softsign", None))
    saved, plain = soft.to_adamw_state_dict()["state"], adam.to_adamw_state_dict()["state"]
    assert saved.keys() == plain.keys() and saved
    for key, state in plain.items():
        assert all(same_bits(saved[key][name], value) for name, value in state.items())


def test_a_budget_buys_its_rungs_and_no_rule_for_matrices() -> None:
    optimizer = Cosmic(parameters((600, 40), (64, 40)), rule="softsign", budget="40%", min_tier=2)
    take_steps(optimizer, 0, 2)
    assert {info.rung.split("+")[-1] for info in optimizer.tiers()} == {"softsign"}
    assert optimizer.state_bytes() <= 0.4 * 8 * (600 * 40 + 64 * 40)
    free = Cosmic(parameters((600, 40), (64, 40)), rule="softsign", budget="1%")
    take_steps(free, 0, 2)
    assert not [info for info in free.tiers() if "muon" in info.rung]


def test_a_checkpoint_from_before_the_rule_keeps_the_groups_own() -> None:
    saved = stepped(2).state_dict()
    for option in ("rule", "blend", "kappa", "blend_to", "blend_steps", "blend_schedule"):
        del saved["param_groups"][0][option]
    optimizer = stepped(1, rule="softsign", blend=0.5)
    optimizer.load_state_dict(saved)
    assert optimizer.param_groups[0]["rule"] == "softsign"
    assert optimizer.param_groups[0]["blend"] == 0.5
    take_steps(optimizer, 2, 3)
    assert {info.rung.split("+")[-1] for info in optimizer.tiers()} == {"softsign"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rule": "adam"}, "['rule'] is 'adam'; expected None or"),
        ({"rule": 3}, "['rule'] is 3; expected None or"),
        ({"rule": "softsign", "beta_slow": 0.99}, "the rule knows no slow average"),
        ({"rule": "softsign", "gate": "agar"}, "which reads the moments of another rule"),
        ({"rule": "softsign", "gate": "agar", "rung": "tier2:u4+v4+centered"}, "another rule"),
        ({"rung": "tier2:u4+v4+softsign", "beta_slow": 0.99}, "have no slow average"),
        ({"rule": "softsign", "blend": 1.5}, "['blend'] is 1.5; expected a number in [0, 1]"),
        ({"rule": "softsign", "kappa": 0.0}, "['kappa'] is 0.0; expected a number from"),
        ({"blend_to": -1.0}, "['blend_to'] is -1.0; expected None, or a number in [0, 1]"),
        ({"blend_steps": 2.5}, "['blend_steps'] is 2.5; expected an int >= 0"),
        ({"blend_schedule": "steps"}, "['blend_schedule'] is 'steps'; expected 'linear'"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], said: str) -> None:
    optimizer = stepped(1)
    optimizer.param_groups[0].update(change)
    with refused(optimizer, ValueError, "param", said):
        take_steps(optimizer, 1, 2)
