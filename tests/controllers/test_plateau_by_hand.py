"""The guard against plateaus, and what comes or changes within one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosmic import Cosmic
from cosmic.controllers import Controller, Observation, PlateauGuard, Staged
from helpers import parameter, take_steps, through_a_file

ON = {"sign": 0.5, "weight_decay": 0.5, "lr": 0.5}
FALL = 80  # reports that give all back


def soft(**options: Any) -> dict[str, Any]:
    """A group whose share of the sign is 0.8."""
    return {"params": [parameter(0, 8, 8)], "rule": "softsign", "blend": 0.2, **options}


def guarded(*first: Controller, on: dict[str, float] = ON) -> Cosmic:
    optimizer = Cosmic([soft()], lr=0.01, weight_decay=0.1)
    for controller in (*first, PlateauGuard(1, on=on)):
        optimizer.add_controller(controller)
    return optimizer


def plateau(optimizer: Cosmic, steps: int = 8) -> Cosmic:
    for step in range(steps):
        optimizer.report(1.0)
        take_steps(optimizer, step, step + 1)
    return optimizer


def recovered(optimizer: Cosmic, start: float = 0.0) -> Cosmic:
    for step in range(FALL):
        optimizer.report(start - step)
        take_steps(optimizer, step, step + 1)
    return optimizer


def values(optimizer: Cosmic, index: int) -> tuple[Any, ...]:
    group = optimizer.param_groups[index]
    return group["lr_scale"], group["weight_decay"], group["blend"]


def test_a_group_that_is_added_joins_the_plateau_and_ends_as_it_came() -> None:
    optimizer = plateau(guarded())
    optimizer.add_param_group(soft())
    plateau(optimizer, 1)
    assert values(optimizer, 1) == pytest.approx(values(optimizer, 0), rel=1e-6)
    assert values(optimizer, 1) == pytest.approx((0.5, 0.05, 0.6), rel=0.03)
    recovered(optimizer)
    assert values(optimizer, 0) == values(optimizer, 1) == (1.0, 0.1, 0.2)
    assert set(optimizer.controllers[0].numbers) == set(PlateauGuard.START)


def test_what_is_set_by_hand_stays_and_is_not_exceeded() -> None:
    optimizer = plateau(guarded(), 2)
    strength = optimizer.controllers[0].numbers["strength"]
    hand = {"lr_scale": 1.0, "weight_decay": 0.1, "blend": 0.2}
    optimizer.param_groups[0].update(hand)
    take_steps(optimizer, 2, 3)
    assert values(optimizer, 0) == (1.0, 0.1, 0.2)
    plateau(optimizer, 8)  # which goes on, from there
    factor = 0.5 ** (optimizer.controllers[0].numbers["strength"] - strength)
    assert factor < 0.8
    expected = (factor, 0.1 * factor, 1 - 0.8 * factor)
    assert values(optimizer, 0) == pytest.approx(expected, rel=0.02)
    for step in range(FALL):
        optimizer.report(-float(step))
        take_steps(optimizer, step, step + 1)
        scale, decay, blend = values(optimizer, 0)
        assert scale <= 1.0
        assert decay <= 0.1
        assert blend >= 0.2
    assert values(optimizer, 0) == (1.0, 0.1, 0.2)
    optimizer.report(0.0)  # and the next plateau starts there
    plateau(optimizer, 8)
    assert values(optimizer, 0) == pytest.approx((0.5, 0.05, 0.6), rel=0.03)


def test_a_value_that_was_0_is_taken_as_it_is_set() -> None:
    optimizer = guarded()
    optimizer.add_param_group(soft(weight_decay=0.0))
    plateau(optimizer)
    optimizer.param_groups[1]["weight_decay"] = 0.3
    take_steps(optimizer, 8, 9)
    assert optimizer.param_groups[1]["weight_decay"] == 0.3
    assert recovered(optimizer).param_groups[1]["weight_decay"] == 0.3


def test_rates_by_role_are_numbers_of_their_own() -> None:
    optimizer = guarded()
    optimizer.param_groups[0]["lr_scale"] = {"matrix": 2.0, "table": 1.0}
    plateau(optimizer)
    optimizer.param_groups[0]["lr_scale"]["table"] = 0.75
    scales = recovered(optimizer).param_groups[0]["lr_scale"]
    assert scales == {"matrix": 2.0, "table": 0.75, "vector": 1.0}
    plateau(optimizer)
    optimizer.param_groups[0]["lr_scale"] = 0.9  # one for all
    assert recovered(optimizer, -100.0).param_groups[0]["lr_scale"] == 0.9


class Halves(Controller):
    """Halves a group's rate at step 5."""

    def observe(self, seen: Observation) -> None:
        if seen.step == 5:
            seen.scale_lr(0, 0.5)


@pytest.mark.parametrize(
    ("controller", "expected"),
    [
        (lambda: Halves(every=1), (0.5, 0.1, 0.2)),
        (lambda: Staged([(5, "weight_decay", "mul", 0.5)]), (1.0, 0.05, 0.2)),
        (lambda: Staged([(5, "weight_decay", "set", 0.07)]), (1.0, 0.07, 0.2)),
        (lambda: Staged([(5, "lr_scale", "set", 0.9)]), (0.9, 0.1, 0.2)),
        (lambda: PlateauGuard(2, on=ON, name="second"), (1.0, 0.1, 0.2)),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_what_others_multiply_stays_multiplied_and_what_they_set_is_not_exceeded(
    controller: Callable[[], Controller], expected: tuple[float, ...], first: bool
) -> None:
    optimizer = guarded(controller()) if first else guarded()
    if not first:
        optimizer.add_controller(controller())
    plateau(optimizer)
    recovered(optimizer)
    assert values(optimizer, 0) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("by_hand", [True, False])
def test_a_plateau_with_late_values_goes_on_after_loading(by_hand: bool) -> None:
    runs = []
    for interrupted in (False, True):
        optimizer = plateau(guarded())
        optimizer.add_param_group(soft())
        take_steps(optimizer, 8, 9)
        if by_hand:  # not seen by the guard when it is saved
            optimizer.param_groups[0]["weight_decay"] = 0.08
        if interrupted:
            fresh = guarded()
            fresh.add_param_group(soft())
            fresh.load_state_dict(through_a_file(optimizer.state_dict()))
            optimizer = fresh
        recovered(optimizer)
        runs.append([values(optimizer, index) for index in range(2)])
    assert runs[0] == runs[1] == [(1.0, 0.08 if by_hand else 0.1, 0.2), (1.0, 0.1, 0.2)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda n: n.update(other=1.0), "has 'other', which PlateauGuard does not keep"),
        (lambda n: n.pop("base_lr_0"), "has '(left|mark)_lr_0'.* not by itself"),
        (lambda n: n.update(mark_lr_0=0.0), "mark_lr_0 0.0"),
        (lambda n: n.update(base_lr_0=None), "base_lr_0 None"),
    ],
)
def test_spoiled_numbers_of_a_plateau_are_refused(
    change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    saved = through_a_file(plateau(guarded()).state_dict())
    change(saved["cosmic"]["controllers"]["PlateauGuard"]["numbers"])
    with pytest.raises(ValueError, match=message):
        guarded().load_state_dict(saved)


@given(
    events=st.lists(
        st.one_of(st.sampled_from(["flat", "fall", "join"]), st.floats(0.01, 1.0)), max_size=40
    ),
)
def test_no_value_exceeds_what_was_last_set(events: list[str | float]) -> None:
    def group() -> dict[str, Any]:
        return {"lr_scale": 1.0, "weight_decay": 0.1, "params": []}

    groups, most, loss = [group()], [0.1], 0.0
    guard = PlateauGuard(1, 0.0, on={"weight_decay": 0.25, "lr": 0.5}, recover=0.5)
    for event in events:
        if event == "join":
            groups.append(group())
            most.append(0.1)
        elif isinstance(event, float):
            groups[0]["weight_decay"] = most[0] = event
        else:
            loss -= event == "fall"
            guard.report(loss)
        guard.observe(Observation(1, groups, []))
        for one, limit in zip(groups, most, strict=True):
            assert 0.249 * limit <= one["weight_decay"] <= limit
            assert 0.499 <= one["lr_scale"] <= 1.0
    for _ in range(10):
        loss -= 1
        guard.report(loss)
        guard.observe(Observation(1, groups, []))
    assert [one["weight_decay"] for one in groups] == most
