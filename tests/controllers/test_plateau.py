"""The guard against plateaus: what it counts, how far it goes, and how it comes back."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cosmic import Cosmic
from cosmic.controllers import Observation, PlateauGuard
from helpers import digest, parameter, take_steps
from synthetic import groups_tagged


def told(guard: PlateauGuard, groups: list[dict[str, Any]], *losses: float) -> None:
    """A step after each loss."""
    for loss in losses:
        guard.report(loss)
        guard.observe(Observation(1, groups, []))


def soft(**options: Any) -> list[dict[str, Any]]:
    return groups_tagged("a", rule="softsign", blend=0.2, blend_steps=0, **options)


@given(
    losses=st.lists(st.floats(-100, 100), max_size=60),
    patience=st.integers(1, 4),
    rise=st.floats(0.01, 1.0),
    recover=st.floats(0.01, 1.0),
    factor=st.floats(0.05, 1.0),
)
def test_options_stay_between_what_they_were_and_full_strength(
    losses: list[float], patience: int, rise: float, recover: float, factor: float
) -> None:
    groups = soft()
    on = {"sign": factor, "weight_decay": factor, "lr": factor}
    guard = PlateauGuard(patience, 0.0, on=on, rise=rise, recover=recover)
    for loss in losses:
        told(guard, groups, loss)
        low = factor * (1 - 1e-9)
        assert low <= groups[0]["lr_scale"] <= 1 + 1e-9
        assert 0.1 * low <= groups[0]["weight_decay"] <= 0.1 * (1 + 1e-9)
        assert 0.8 * low <= 1 - groups[0]["blend"] <= 0.8 * (1 + 1e-9)


def test_a_plateau_takes_back_and_descent_gives_back() -> None:
    groups = soft()
    guard = PlateauGuard(2, 0.1, on={"sign": 0.25, "weight_decay": 0.25}, rise=0.5, recover=0.5)
    told(guard, groups, 5.0, 4.95, 4.93)  # two that fall by less than tol
    assert guard.numbers["strength"] == 0.5
    assert groups[0]["weight_decay"] == pytest.approx(0.1 * 0.5)
    assert groups[0]["blend"] == pytest.approx(1 - 0.8 * 0.5)
    assert groups[0]["lr_scale"] == 1.0
    told(guard, groups, 4.95)  # one alone is no plateau
    assert groups[0]["weight_decay"] == pytest.approx(0.1 * 0.5)
    told(guard, groups, 4.91)
    assert groups[0]["weight_decay"] == pytest.approx(0.1 * 0.25**0.75)
    told(guard, groups, 4.0)
    assert groups[0]["weight_decay"] == pytest.approx(0.1 * 0.25**0.375)
    told(guard, groups, *(3.0 - k for k in range(10)))
    assert groups[0]["weight_decay"] == pytest.approx(0.1)
    assert groups[0]["blend"] == pytest.approx(0.2)
    assert guard.numbers["strength"] == 0.0


def test_the_row_begins_anew_at_descent() -> None:
    groups, guard = soft(), PlateauGuard(3, 0.0)
    told(guard, groups, 1.0, 1.0, 1.0, 0.5, 0.5, 0.5)
    assert groups[0]["weight_decay"] == 0.1
    told(guard, groups, 0.5)
    assert groups[0]["weight_decay"] < 0.1


def test_a_sign_that_is_scheduled_or_not_there_is_left_alone() -> None:
    groups = soft(blend_to=0.6)
    groups[0]["blend_steps"] = 100
    groups += groups_tagged("b", blend=0.2)  # of another rule
    told(PlateauGuard(1), groups, 1.0, 1.0)
    assert [group["blend"] for group in groups] == [0.2, 0.2]
    assert all(group["weight_decay"] < 0.1 for group in groups)


def test_losses_that_are_not_finite_count_for_nothing() -> None:
    optimizer = Cosmic([parameter(0, 4)], weight_decay=0.1)
    guard = PlateauGuard(1)
    optimizer.add_controller(guard)
    optimizer.report(1.0)
    for loss in (math.nan, math.inf, -math.inf, torch.tensor(math.nan)):
        optimizer.report(loss)
    assert guard.state_dict() == {**PlateauGuard().state_dict(), "best": 1.0}


def test_options_move_at_the_end_of_a_step_and_hold_from_the_next() -> None:
    optimizer, twin = (Cosmic([parameter(0, 64)], lr=0.1, weight_decay=0.5) for _ in range(2))
    optimizer.add_controller(PlateauGuard(1, on={"weight_decay": 0.5, "lr": 0.5}, rise=1.0))
    for loss in (torch.tensor([2.0]), 2, 2.0):
        optimizer.report(loss)
    take_steps(optimizer, 0, 1)
    take_steps(twin, 0, 1)
    assert digest(optimizer) == digest(twin)
    twin.param_groups[0].update(weight_decay=0.25, lr_scale=0.5)
    take_steps(optimizer, 1, 2)
    take_steps(twin, 1, 2)
    assert digest(optimizer) == digest(twin)


NO_LOSSES = [
    "1.0", None, True, [1.0], 1j,
    torch.zeros(2), torch.tensor(True), torch.tensor(1j),
    np.zeros(2), np.bool_(True), np.array(True), np.complex64(1), np.array("1"),
]  # fmt: skip
LOSSES = [
    1, 1.0, Fraction(1), Decimal(1), torch.tensor([1]), torch.tensor(1.0, requires_grad=True),
    np.float32(1), np.float64(1), np.float16(1), np.int64(1), np.array(1.0), np.array([1]),
]  # fmt: skip


@pytest.mark.parametrize("loss", NO_LOSSES, ids=repr)
def test_what_is_no_loss_is_refused(loss: Any) -> None:
    optimizer = Cosmic([parameter(0, 4)])
    with pytest.raises(TypeError, match=r"loss is .*expected"):
        optimizer.report(loss)


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
def test_any_real_number_is_a_loss(loss: Any) -> None:
    optimizer = Cosmic([parameter(0, 4)], weight_decay=0.1)
    guard = PlateauGuard(1)
    optimizer.add_controller(guard)
    optimizer.report(loss)
    best = guard.state_dict()["best"]
    assert (type(best), best) == (float, 1.0)
    optimizer.report(-(10**400))  # infinite, as a float
    assert guard.state_dict()["best"] == 1.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patience": 0}, "patience is 0; expected an int >= 1"),
        ({"tol": -1.0}, "tol is -1.0; expected a finite number of at least 0"),
        ({"on": {}}, "on is {}; expected factors"),
        ({"on": {"momentum": 0.5}}, "on is .*'sign', 'weight_decay', 'lr'"),
        ({"on": {"lr": 0.0}}, r"on\['lr'\] is 0.0; expected more than 0"),
        ({"on": {"lr": 2.0}}, r"on\['lr'\] is 2.0; expected a finite number from 0 to 1"),
        ({"rise": 0.0}, "rise is 0.0; expected more than 0"),
        ({"recover": 1.5}, "recover is 1.5; expected a finite number from 0 to 1"),
    ],
)
def test_arguments_out_of_range_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PlateauGuard(**options)


def test_groups_with_nothing_to_take_back_are_refused_when_attached() -> None:
    optimizer = Cosmic([parameter(0, 4)])
    with pytest.raises(ValueError, match="PlateauGuard moves sign, weight_decay, and no parameter"):
        optimizer.add_controller(PlateauGuard())
    with pytest.raises(ValueError, match=r"moves sign, and .*rule 'softsign'") as sign:
        optimizer.add_controller(PlateauGuard(on={"sign": 0.5}))
    assert "weight_decay" not in str(sign.value)
    with pytest.raises(ValueError, match=r"moves weight_decay, and .*is 0 in all") as decay:
        optimizer.add_controller(PlateauGuard(on={"weight_decay": 0.5}))
    assert "softsign" not in str(decay.value)
    optimizer.add_controller(PlateauGuard(on={"lr": 0.5}))
