"""Controllers and checks of parameters that are stepped in parts."""

from __future__ import annotations

import math

import pytest
import torch

from cosmic import Cosmic
from cosmic.controllers import QKVRates
from helpers import digest, give_gradients, normal, take_steps, through_a_file

SIZES = {"q": 16, "k": 8, "v": 8}


def fused() -> Cosmic:
    """One matrix, whose part ``q`` is four times as large as the others."""
    weight = normal(0, 32, 24)
    weight[:16] *= 4
    named = [("qkv", torch.nn.Parameter(weight))]
    optimizer = Cosmic(
        [{"params": named, "parts": (0, SIZES), "lr_scale": {"v": 0.5}}],
        lr=1e-3,
        state_dtype="fp32",
    )
    optimizer.add_controller(QKVRates(every=2, strength=1.0, decay=0.5, bounds=(0.1, 10.0)))
    return optimizer


def steps_of(optimizer: Cosmic) -> dict[str, float]:
    """Each part's relative step at the next step."""
    weight = optimizer.param_groups[0]["params"][0]
    before = weight.detach().clone()
    take_steps(optimizer, 99, 100)
    found, start = {}, 0
    for name, size in SIZES.items():
        rows = slice(start, start + size)
        moved = (weight.detach() - before)[rows].norm() / before[rows].norm()
        found[name], start = math.log(moved), start + size
    return found


def test_parts_of_one_matrix_end_at_the_same_relative_step() -> None:
    optimizer = fused()
    before = steps_of(fused())
    assert max(before.values()) - min(before.values()) > 1.0
    take_steps(optimizer, 0, 40)
    after = steps_of(optimizer)
    assert max(after.values()) - min(after.values()) < 0.15
    scales = optimizer.param_groups[0]["lr_scale"]
    assert scales["q"] > scales["k"] > scales["v"] * 0.9
    assert {scales[role] for role in ("table", "matrix", "vector")} == {1.0}


def test_a_run_in_parts_goes_on_with_the_same_bits() -> None:
    whole, first, second = fused(), fused(), fused()
    take_steps(whole, 0, 9)
    take_steps(first, 0, 5)
    second.load_state_dict(through_a_file(first.state_dict()))
    with torch.no_grad():
        second.param_groups[0]["params"][0].copy_(first.param_groups[0]["params"][0])
    take_steps(second, 5, 9)
    assert digest(second) == digest(whole)
    assert second.param_groups[0]["lr_scale"] == whole.param_groups[0]["lr_scale"]


def test_a_check_counts_a_parameter_once_and_its_parts_moments() -> None:
    optimizer = fused()
    weight = optimizer.param_groups[0]["params"][0]
    give_gradients([weight], 0)
    optimizer.step()
    (found,) = optimizer.check()
    moment = optimizer.moments(weight).exp_avg
    assert moment is not None
    assert (found.tensors, found.numel) == (1, 32 * 24)
    assert found.momentum_norm == pytest.approx(float(moment.double().norm()))
