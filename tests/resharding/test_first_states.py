"""The step that torch's checkpoint functions take to have state made: it leaves no trace."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)

from cosmic import Cosmic
from cosmic.presets import CASMO, Muon, Tiger, TurboAdam
from helpers import digest, normal

KINDS: dict[str, tuple[type[Cosmic], dict[str, Any]]] = {
    "default": (Cosmic, {}),
    "rowmean": (Cosmic, {"state_dtype": "u4+rowmean"}),
    "budget": (Cosmic, {"budget": "20%", "reallocate_every": 2}),
    "signal": (Cosmic, {"budget": "20%", "policy": "signal", "reallocate_every": 2}),
    "gate": (Cosmic, {"gate": "snr", "state_dtype": "q8"}),
    "muon": (Cosmic, {"matrix_rule": "muon"}),
    "tier0": (Cosmic, {"tier": 0}),
    "slow": (Cosmic, {"beta_slow": 0.99, "slow_warmup": 5}),
    "tensor-lr": (Cosmic, {"lr": torch.tensor(0.01)}),
    "preset-turboadam": (TurboAdam, {}),
    "preset-casmo": (CASMO, {}),
    "preset-muon": (Muon, {}),
    "preset-tiger": (Tiger, {}),
}


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(60, 64), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 130))


def weight_of(net: nn.Module) -> torch.Tensor:
    return next(p for p in net.parameters() if p.shape == (128, 64))


def made(kind: str, net: nn.Module) -> Cosmic:
    optimizer_type, options = KINDS[kind]
    if "lr" in options:
        options = {**options, "lr": options["lr"].clone()}
    if optimizer_type is Muon:
        return optimizer_type([p for p in net.parameters() if p.dim() > 1])
    return optimizer_type(net.parameters(), **{"lr": 1e-2, **options})


def train(net: nn.Module, optimizer: Cosmic, first: int, last: int) -> None:
    for step in range(first, last):
        optimizer.zero_grad()
        ids = (normal(step, 40).abs() * 20).long().clamp(max=59)
        net(ids).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("kind", KINDS)
def test_training_has_the_bits_that_it_has_without(kind: str) -> None:
    net, same = model(), model()
    optimizer, untouched = made(kind, net), made(kind, same)
    events: list[str] = []
    optimizer.add_listener(lambda event, _: events.append(event))
    before = [p.detach().clone() for p in net.parameters()]
    saved: dict[str, Any] = dict(get_optimizer_state_dict(net, optimizer))
    assert saved["state"] and not events
    assert all(torch.equal(p, b) for p, b in zip(net.parameters(), before, strict=True))
    assert optimizer.state_dict()["cosmic"]["steps"] == 0
    steps = [s["step"] for s in saved["state"].values() if "step" in s]
    assert all(int(step) == 0 for step in steps)
    train(net, optimizer, 0, 4)
    train(same, untouched, 0, 4)
    assert digest(optimizer) == digest(untouched)
    assert optimizer.tiers() == untouched.tiers()


@pytest.mark.parametrize("kind", ["default", "budget"])
def test_the_same_within_backward(kind: str) -> None:
    net, same = model(), model()
    optimizer, untouched = made(kind, net), made(kind, same)
    with optimizer.step_in_backward(net), untouched.step_in_backward(same):
        get_optimizer_state_dict(net, optimizer)
        train(net, optimizer, 0, 3)
        train(same, untouched, 0, 3)
    assert digest(optimizer) == digest(untouched)


@pytest.mark.parametrize("kind", ["default", "budget"])
def test_what_is_loaded_into_it_stays(kind: str) -> None:
    net = model()
    optimizer = made(kind, net)
    train(net, optimizer, 0, 3)
    options = StateDictOptions(full_state_dict=True)
    saved = get_optimizer_state_dict(net, optimizer, options=options)
    about = optimizer.state_dict()["cosmic"]
    again = copy.deepcopy(net)
    resumed = made(kind, again)
    set_optimizer_state_dict(again, resumed, saved, options=options)
    resumed.load_state_dict({**resumed.state_dict(), "cosmic": about})
    assert digest(resumed) == digest(optimizer)
    train(net, optimizer, 3, 6)
    train(again, resumed, 3, 6)
    assert digest(resumed) == digest(optimizer)


def test_a_first_step_of_a_warm_up_from_zero_counts() -> None:
    net = model()
    optimizer = Cosmic(net.parameters(), lr=0.0, state_dtype="fp32")
    train(net, optimizer, 0, 1)
    assert optimizer._steps == 1
    state = optimizer.state[weight_of(net)]
    assert int(state["step"]) == 1 and state["exp_avg"].any()


def test_moments_that_are_set_are_not_dropped() -> None:
    net = model()
    optimizer = Cosmic(net.parameters(), lr=0.0, state_dtype="fp32")
    get_optimizer_state_dict(net, optimizer)
    weight = weight_of(net)
    optimizer.set_moments(weight, exp_avg=1.0, step=5)
    train(net, optimizer, 0, 1)
    assert int(optimizer.state[weight]["step"]) == 6
    assert torch.allclose(optimizer.state[weight]["exp_avg"], torch.tensor(0.9), atol=0.05)


def test_a_copy_starts_without_it_as_well() -> None:
    net, same = model(), model()
    optimizer, untouched = made("budget", net), made("budget", same)
    get_optimizer_state_dict(net, optimizer)
    net, optimizer = copy.deepcopy((net, optimizer))
    train(net, optimizer, 0, 3)
    train(same, untouched, 0, 3)
    assert digest(optimizer) == digest(untouched)


@pytest.mark.parametrize(
    ("lr", "number", "taken"),
    [(1e-310, 0.0, True), (0.0, 1e-310, True), (0.0, -0.0, False), (0.0, 0.0, False)],
)
def test_a_number_that_a_thread_flushes_is_not_zero(lr: float, number: float, taken: bool) -> None:
    """A step computes with subnormal numbers whatever the user's setting is."""
    param = nn.Parameter(torch.ones(300, dtype=torch.float64))
    optimizer = Cosmic([param], lr=lr)
    param.grad = torch.zeros_like(param)
    param.grad[7] = number
    torch.set_flush_denormal(True)
    try:
        optimizer.step()
    finally:
        torch.set_flush_denormal(False)
    assert optimizer._steps == taken
