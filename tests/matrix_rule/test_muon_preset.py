"""`cosmic.presets.Muon` is torch.optim.Muon, with its iterations in float32."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from cosmic.presets import Muon
from helpers import digest, parameter
from matrix_runs import SHAPES, go, gradient, muons, params_of
from reference.muon import MuonReference
from reference.polar_express import polar_express

LR = 0.02
STEPS = 100


def lr_at(step: int) -> float:
    """Another one at every step."""
    return LR * (0.2 + 0.8 * (step % 10) / 10)


def travelled(optimizer: torch.optim.Optimizer, steps: int = STEPS) -> list[nn.Parameter]:
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = lr_at(step)
        go(optimizer, step, step + 1)
    return params_of(optimizer)


def distance(a: Any, b: Any) -> float:
    """Of parameters, in the largest element of the other's."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return float(np.abs(a - b).max() / np.abs(b).max())


#: float32 keeps 6e-8 of a number. A step's iterations enlarge the smallest singular values some
#: 3.4^5 = 485 times and errors with them, here those of a product, a few 6e-8; of 100 steps the
#: errors add up as a walk does, and a parameter is rounded at every step. Measured: 1.1e-6 at most;
#: torch's own, in bfloat16, is 3e-4 to 8e-4 away.
OF_FLOAT32 = 5e-6


@pytest.mark.parametrize("adjust_lr_fn", [None, "original", "match_rms_adamw"])
@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_hundred_steps_are_those_of_the_definition(
    shape: tuple[int, int], nesterov: bool, adjust_lr_fn: str | None
) -> None:
    options: dict[str, Any] = {"nesterov": nesterov, "adjust_lr_fn": adjust_lr_fn}
    optimizer = muons(shape, weight_decay=0.3, **options)
    (param,) = params_of(optimizer)
    reference = MuonReference(param.detach().double().numpy(), weight_decay=0.3, **options)
    travelled(optimizer)
    for step in range(STEPS):
        reference.step(gradient(step, 0, param).double().numpy(), lr_at(step))
    assert distance(param.detach(), reference.param) < OF_FLOAT32
    momentum = optimizer.moments(param).exp_avg
    assert momentum is not None and distance(momentum, reference.average) < OF_FLOAT32


@pytest.mark.parametrize(
    ("options", "own"),
    [
        ({"momentum": 0.0}, {"momentum": 0.0}),
        ({"momentum": 0.5, "weight_decay": 0.0}, {"momentum": 0.5, "weight_decay": 0.0}),
        ({"ns_steps": 1}, {"coefficients": [(3.4445, -4.7750, 2.0315)]}),
        (
            {"ns_coefficients": (1.875, -1.25, 0.375), "ns_steps": 8},
            {"coefficients": [(1.875, -1.25, 0.375)] * 8},
        ),
        (
            {"ns_coefficients": None, "ns_steps": 4},
            {"coefficients": polar_express(4), "by_gram": True},
        ),
        ({"eps": 1e3}, {"eps": 1e3}),
    ],
)
def test_each_option_is_that_of_the_definition(
    options: dict[str, Any], own: dict[str, Any]
) -> None:
    optimizer = muons((40, 70), **options)
    (param,) = params_of(optimizer)
    reference = MuonReference(param.detach().double().numpy(), **own)
    before = param.detach().clone()
    for step in range(20):
        optimizer.param_groups[0]["lr"] = LR
        go(optimizer, step, step + 1)
        reference.step(gradient(step, 0, param).double().numpy(), LR)
    assert distance(param.detach(), reference.param) < OF_FLOAT32
    assert not torch.equal(param, before)


def test_maximize_goes_the_other_way() -> None:
    up, down = muons((40, 70), maximize=True), muons((40, 70))
    for step in range(5):
        for optimizer, sign in ((up, -1), (down, 1)):
            (param,) = params_of(optimizer)
            param.grad = sign * gradient(step, 0, param)
            optimizer.step()
    assert torch.equal(params_of(up)[0], params_of(down)[0])


#: Of the way. torch iterates in bfloat16, which rounds by up to 0.4 %: at random, so that of a
#: hundred steps less is left. Measured: 0.1 % at most.
OF_BFLOAT16 = 0.005


@pytest.mark.parametrize("adjust_lr_fn", [None, "match_rms_adamw"])
@pytest.mark.parametrize("nesterov", [True, False])
def test_torchs_own_ends_within_the_rounding_of_its_iterations(
    nesterov: bool, adjust_lr_fn: str | None
) -> None:
    options: dict[str, Any] = {"nesterov": nesterov, "adjust_lr_fn": adjust_lr_fn}
    ours = muons(**options)
    start = [p.detach().clone() for p in params_of(ours)]
    theirs = torch.optim.Muon([nn.Parameter(p.clone()) for p in start], **options)
    for mine, other, before in zip(travelled(ours), travelled(theirs), start, strict=True):
        way = float((other.detach() - before).norm())
        assert way > 0.1
        assert float((mine - other).detach().norm()) < OF_BFLOAT16 * way


@pytest.mark.parametrize("adjust_lr_fn", [None, "match_rms_adamw"])
def test_torchs_own_with_its_iterations_in_float32_ends_there(
    adjust_lr_fn: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The code around the iterations is torch's; ``bfloat16`` of the direction, which begins them,
    is not."""
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.float)
    ours = muons(adjust_lr_fn=adjust_lr_fn)
    copies = [nn.Parameter(p.detach().clone()) for p in params_of(ours)]
    theirs = torch.optim.Muon(copies, adjust_lr_fn=adjust_lr_fn)
    for mine, other in zip(travelled(ours), travelled(theirs), strict=True):
        assert distance(mine.detach(), other.detach()) < OF_FLOAT32


def test_arguments_are_torchs_in_its_order_with_its_defaults() -> None:
    theirs = inspect.signature(torch.optim.Muon.__init__).parameters
    ours = inspect.signature(Muon.__init__).parameters
    assert list(ours)[: len(theirs)] == list(theirs)
    for name, argument in theirs.items():
        assert ours[name].default == argument.default
        assert ours[name].kind == argument.kind
    own = [ours[name] for name in list(ours)[len(theirs) :]]
    assert all(argument.kind is inspect.Parameter.KEYWORD_ONLY for argument in own)


def test_more_dimensions_are_flattened_into_the_second() -> None:
    kernel = muons((24, 8, 3, 3))
    (param,) = params_of(kernel)
    flat = Muon([nn.Parameter(param.detach().reshape(24, 72).clone())])
    (twin,) = params_of(flat)
    for step in range(5):
        param.grad = gradient(step, 0, param)
        twin.grad = param.grad.reshape(24, 72).clone()
        kernel.step()
        flat.step()
    assert torch.equal(param.reshape(24, 72), twin)


def test_a_scheduler_of_the_momentum_finds_it() -> None:
    optimizer = muons((40, 70))
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=0.1, total_steps=10, base_momentum=0.8, max_momentum=0.9
    )
    seen = []
    for step in range(9):
        go(optimizer, step, step + 1)
        seen.append(optimizer.param_groups[0]["momentum"])
        scheduler.step()
    assert max(seen) == pytest.approx(0.9) and min(seen) == pytest.approx(0.8)


def test_a_group_has_options_of_its_own() -> None:
    one, two = parameter(0, 64, 65), parameter(1, 64, 65)
    groups: list[dict[str, Any]] = [
        {"params": [one]},
        {"params": [two], "state_dtype": "m4", "adjust_lr_fn": "match_rms_adamw"},
    ]
    optimizer = Muon(groups)
    go(optimizer, 0, 3)
    assert [info.rung for info in optimizer.tiers()] == ["tier2:muon:fp32", "tier2:muon:m4"]
    rms = [group["update_rms"] for group in optimizer.stats()]
    assert 0.16 < rms[1] < 0.24 and rms[0] < 0.15


def test_an_option_that_changes_between_steps_counts_from_then_on() -> None:
    changing, plain = muons((64, 65)), muons((64, 65))
    go(changing, 0, 2)
    go(plain, 0, 2)
    changing.param_groups[0].update(state_dtype="m8", adjust_lr_fn="match_rms_adamw")
    go(changing, 2, 3)
    go(plain, 2, 3)
    assert [info.rung for info in changing.tiers()] == ["tier2:muon:m8"]
    assert digest(changing) != digest(plain)
    changing.param_groups[0]["adjust_lr_fn"] = None
    go(changing, 3, 4)
    assert changing.stats()[0]["update_rms"] < 0.15
