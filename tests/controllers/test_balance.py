"""Balances of feed-forward layers and of LoRA's factors: where they settle, and what they leave."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cosmic import Cosmic
from cosmic.controllers import FFNBalance, LoRABalance, Observation
from helpers import give_gradients, parameter
from synthetic import groups_tagged, looks, tensor

SIZES = st.floats(1e-6, 1e6)
DECAYS = st.floats(0.0, 0.95)
LEAST = 0.0101  # of a change that is made, in logarithms


def settled(value: float, bounds: tuple[float, float]) -> float:
    return min(max(value, bounds[0]), bounds[1])


@given(
    updates=st.tuples(SIZES, SIZES),
    target=st.floats(0.1, 10.0),
    decay=DECAYS,
    bounds=st.tuples(st.floats(0.01, 1.0), st.floats(1.0, 100.0)),
)
def test_steps_settle_at_the_target_and_factors_stay_within_bounds(
    updates: tuple[float, float], target: float, decay: float, bounds: tuple[float, float]
) -> None:
    groups = groups_tagged("ffn_up", "ffn_down")
    balance = FFNBalance(target, decay=decay, bounds=bounds)

    def inside() -> None:
        assert all(bounds[0] * 0.999999 <= g["lr_scale"] <= bounds[1] * 1.000001 for g in groups)

    looks(balance, groups, {"ffn_up": (updates[0], 1.0), "ffn_down": (updates[1], 1.0)}, 40, inside)
    wanted = math.sqrt(target * updates[1] / updates[0])
    for group, factor in zip(groups, (wanted, 1 / wanted), strict=True):
        assert abs(math.log(group["lr_scale"] / settled(factor, bounds))) < LEAST


@given(raw=st.lists(st.tuples(SIZES, SIZES), min_size=1, max_size=30), decay=DECAYS)
def test_the_average_is_of_the_steps_without_the_controller_s_own_factors(
    raw: list[tuple[float, float]], decay: float
) -> None:
    groups, balance = groups_tagged("ffn_up", "ffn_down"), FFNBalance(decay=decay)
    average = None
    for up, down in raw:
        looks(balance, groups, {"ffn_up": (up, 1.0), "ffn_down": (down, 1.0)}, 1)
        x = math.log(up / down)
        average = x if average is None else decay * average + (1 - decay) * x
    assert balance.numbers["average"] == pytest.approx(average, rel=1e-9, abs=1e-9)


def test_the_filter_goes_to_its_end_without_overshoot() -> None:
    groups = groups_tagged("ffn_up", "ffn_down")
    balance, seen = FFNBalance(decay=0.9), []
    looks(balance, groups, {"ffn_up": (1.0, 1.0), "ffn_down": (1.0, 1.0)}, 5)
    looks(
        balance, groups, {"ffn_up": (1.5, 1.0), "ffn_down": (1.0, 1.0)}, 60,
        lambda: seen.append(groups[0]["lr_scale"]),
    )  # fmt: skip
    assert seen == sorted(seen, reverse=True)
    assert 1.5**-0.5 * 0.9999 <= seen[-1] < 1.5**-0.5 * 1.0102
    assert seen[0] > 0.95


@given(
    a=st.tuples(SIZES, SIZES), b=st.tuples(SIZES, SIZES), ratio=st.floats(0.1, 100.0), decay=DECAYS
)
def test_relative_steps_settle_at_the_ratio(
    a: tuple[float, float], b: tuple[float, float], ratio: float, decay: float
) -> None:
    groups = groups_tagged("lora_a", "lora_b")
    looks(
        LoRABalance(ratio, decay=decay, bounds=(1e-9, 1e9)), groups, {"lora_a": a, "lora_b": b}, 40
    )
    steps = [
        group["lr_scale"] * update / max(size, 1e-3)
        for group, (update, size) in zip(groups, (a, b), strict=True)
    ]
    unbound = all(2e-9 < group["lr_scale"] < 5e8 for group in groups)
    assert not unbound or abs(math.log(steps[1] / steps[0] / ratio)) < 2 * LEAST


def test_a_factor_that_starts_at_zero_counts_with_its_floor() -> None:
    """LoRA's B: a ratio to zero would drive its rate to a bound at once."""
    groups = groups_tagged("lora_a", "lora_b")
    balance = LoRABalance(16.0, param_floor=0.01)
    looks(balance, groups, {"lora_a": (1.0, 0.02), "lora_b": (1.0, 0.0)}, 1)
    assert groups[1]["lr_scale"] == pytest.approx(math.sqrt(16.0 / 2.0))
    assert groups[0]["lr_scale"] == pytest.approx(math.sqrt(2.0 / 16.0))


@pytest.mark.parametrize("bad", [0.0, math.nan, math.inf])
def test_steps_of_which_nothing_is_known_move_nothing(bad: float) -> None:
    groups, balance = groups_tagged("ffn_up", "ffn_down"), FFNBalance()
    looks(balance, groups, {"ffn_up": (bad, 1.0), "ffn_down": (1.0, 1.0)}, 3)
    looks(balance, groups, {"ffn_up": (2.0, 1.0)}, 3)
    assert [group["lr_scale"] for group in groups] == [1.0, 1.0]
    assert balance.state_dict() == FFNBalance().state_dict()


def test_other_factors_on_the_rate_stay() -> None:
    groups = groups_tagged("ffn_up", "ffn_up", "ffn_down", "other")
    for group, scale in zip(groups, (1.1, 3.0, {"matrix": 0.5}, 0.7), strict=True):
        group["lr_scale"] = scale
    seen = [tensor(0, 4.0, 1.0, scale=1.1), tensor(2, 1.1, 1.0, scale=1.0)]
    FFNBalance(bounds=(0.1, 10.0)).observe(Observation(1, groups, seen))
    assert groups[0]["lr_scale"] == pytest.approx(1.1 / 2)
    assert groups[1]["lr_scale"] == pytest.approx(3.0 / 2)
    assert groups[2]["lr_scale"] == pytest.approx({"table": 2.0, "matrix": 1.0, "vector": 2.0})
    assert groups[3]["lr_scale"] == 0.7


def test_a_policy_s_factors_by_role_stay_where_the_group_has_none() -> None:
    groups = groups_tagged("ffn_up", "ffn_down", lr_scale=None)
    seen = [tensor(0, 4.0, 1.0), tensor(1, 1.0, 1.0)]
    FFNBalance(bounds=(0.1, 10.0)).observe(Observation(1, groups, seen, {"table": 3.0}))
    assert groups[0]["lr_scale"] == pytest.approx({"table": 1.5, "matrix": 0.5, "vector": 0.5})


def moved(optimizer: Cosmic, group: int, before: list[torch.Tensor]) -> float:
    params = optimizer.param_groups[group]["params"]
    return float((params[0].detach() - before[group]).norm())


def test_parameters_move_in_the_wanted_proportion() -> None:
    """Of real steps, with gradients whose scale Adam forgets and tensors of unlike factors."""
    params = [parameter(0, 64, 32), parameter(1, 64, 32)]
    groups = [
        {"params": [p], "tag": tag, "lr_scale": scale}
        for p, tag, scale in zip(params, ("ffn_up", "ffn_down"), (1.4, 0.6), strict=True)
    ]
    optimizer = Cosmic(groups, lr=1e-3, state_dtype="fp32")
    optimizer.add_controller(FFNBalance(0.5, every=2, decay=0.5, bounds=(0.1, 10.0)))
    for step in range(40):
        before = [p.detach().clone() for p in params]
        give_gradients(params, step)
        optimizer.step()
    assert moved(optimizer, 0, before) / moved(optimizer, 1, before) == pytest.approx(0.5, rel=0.1)


def test_relative_steps_of_lora_go_by_the_sizes_of_the_parameters() -> None:
    """Which no gate has asked for: they are read where they lie."""
    with torch.no_grad():
        params = [parameter(0, 64, 8), parameter(1, 8, 64)]
        params[1].mul_(0.1)
    groups: list[dict[str, Any]] = [
        {"params": [p], "role": role} for p, role in zip(params, ("lora_a", "lora_b"), strict=True)
    ]
    optimizer = Cosmic(groups, lr=1e-4)
    optimizer.add_controller(LoRABalance(1.0, every=1, decay=0.0, bounds=(0.01, 100.0)))
    give_gradients(params, 0)
    optimizer.step()
    scales = [group["lr_scale"] for group in optimizer.param_groups]
    assert scales[1] / scales[0] == pytest.approx(0.1, rel=0.05)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": 0.0}, "target is 0.0; expected a finite number above 0"),
        ({"target": "1"}, "target is '1'"),
        ({"decay": 1.0}, "decay is 1"),
        ({"decay": -0.1}, r"decay is -0.1; expected a finite number from 0 to 1"),
        ({"decay": math.nan}, "decay is nan"),
        ({"bounds": (1.1, 2.0)}, r"bounds are \(1.1, 2.0\); expected two factors"),
        ({"bounds": (0.0, 2.0)}, "bounds are"),
        ({"bounds": 0.5}, "bounds are 0.5"),
        ({"every": 0}, "every is 0; expected an int >= 1"),
        ({"every": True}, "every is True"),
        ({"name": ""}, "name is ''"),
    ],
)
def test_arguments_out_of_range_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FFNBalance(**options)


def test_a_ratio_and_a_floor_are_above_zero() -> None:
    with pytest.raises(ValueError, match="ratio is 0; expected a finite number above 0"):
        LoRABalance(0)
    with pytest.raises(ValueError, match="param_floor is 0"):
        LoRABalance(param_floor=0)


def test_groups_without_the_tag_are_refused_when_attached() -> None:
    optimizer = Cosmic([{"params": [parameter(0, 4, 4)], "tag": "ffn_up"}])
    found_by = r"cosmic\.param_groups\(model, tags=True\) finds it"
    with pytest.raises(ValueError, match=f"FFNBalance needs .*role 'ffn_down'.*{found_by}"):
        optimizer.add_controller(FFNBalance())
    found_by = r"cosmic\.param_groups\(model\) finds it"
    with pytest.raises(ValueError, match=f"LoRABalance needs .*role 'lora_b'.*{found_by}"):
        optimizer.add_controller(LoRABalance())
    assert "controllers" not in optimizer.state_dict()["cosmic"]
