"""The calibration of one parameter group, sample by sample, beside casmo-optimizer's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from calibrations import memory, memory_options
from casmo_package import casmo

FIELDS = (
    "tau", "tau_initialized", "agar_buffer", "agar_buffer_maxlen", "agar_mean", "agar_std",
    "agar_median", "agar_p10", "agar_p90", "c_min",
)  # fmt: skip

samples_of_any_spread = st.tuples(
    st.floats(0, 1), st.floats(0, 1), st.integers(0, 2**32 - 1), st.integers(50, 80)
)


def drawn(low: float, high: float, seed: int, count: int) -> list[float]:
    """More samples than are needed to calibrate, uniform between two bounds."""
    low, high = sorted((low, high))
    return [float(x) for x in np.random.default_rng(seed).uniform(low, high, count + 10)]


def package_state(optimizer: Any) -> dict[str, Any]:
    found: dict[str, Any] = optimizer.state_dict()["_group_states"][0]
    return found


def package_confidence(optimizer: Any, agar: float) -> float:
    """What its step does with one sample."""
    group, state = optimizer.param_groups[0], optimizer._group_states[0]
    if not state["tau_initialized"]:
        state["agar_buffer"].append(agar)
        if len(state["agar_buffer"]) >= group["tau_init_steps"]:
            state["tau"] = optimizer._calibrate_tau(
                state["agar_buffer"], group["tau_clip_range"], 0
            )
            state["tau_initialized"] = True
            state["agar_buffer"].clear()
    return float(optimizer._compute_confidence(agar, state, group["c_min"]))


@settings(deadline=None)
@given(spread=samples_of_any_spread, c_min=st.floats(0, 1), tau=st.tuples(*[st.floats(0, 1)] * 2))
@example(spread=(0.3, 0.3, 0, 50), c_min=0.1, tau=(0.01, 0.5))  # no spread at all
@example(spread=(0.0, 0.0, 0, 50), c_min=0.0, tau=(0.0, 0.0))  # nothing but zeros
def test_every_sample_has_the_package_s_factor(
    spread: tuple[float, float, int, int], c_min: float, tau: tuple[float, float]
) -> None:
    low, high = sorted(tau)
    count = spread[-1]
    ours = memory(count, (low, high), c_min)
    theirs = casmo.CASMO(
        [torch.zeros(1)], tau_init_steps=count, tau_clip_range=(low, high), c_min=c_min
    )
    for agar in drawn(*spread):
        expected = package_confidence(theirs, agar)
        assert ours.take(agar) == pytest.approx(expected, rel=1e-12)
    assert ours.settled
    state, expected_state = ours.state(), package_state(theirs)
    assert tuple(state) == FIELDS == tuple(expected_state)
    assert state.pop("agar_buffer") == expected_state.pop("agar_buffer") == []
    assert state == pytest.approx(expected_state, rel=1e-12, abs=1e-12)
    assert ours.seen() == {"current_agar": agar, "current_confidence": ours.take(agar)}


@pytest.mark.parametrize(
    ("half_width", "expected"), [(0.3, 0.5), (0.6, 0.3), (0.95, 0.1)], ids=["low", "medium", "high"]
)
def test_the_floor_falls_as_samples_vary(half_width: float, expected: float) -> None:
    """Standard deviation over mean is half_width / sqrt(3) / 0.5 for uniform samples around 0.5;
    the thresholds are 0.3 and 0.5."""
    ours = memory(50, (0.01, 0.5), 0.2)
    for k in range(50):
        ours.take(0.5 + half_width * 0.5 * (2 * k / 49 - 1))
    assert ours.state()["c_min"] == expected


def test_before_calibration_the_factor_is_the_sample_above_the_group_s_floor() -> None:
    ours = memory(50, (0.01, 0.5), 0.2)
    assert [ours.take(x) for x in (0.0, 0.2, 0.7, 1.0)] == [0.2, 0.2, 0.7, 1.0]
    assert ours.state()["agar_buffer"] == [0.0, 0.2, 0.7, 1.0] and not ours.settled


def test_a_sample_that_is_not_finite_is_left_out_and_least_trusted() -> None:
    ours = memory(50, (0.01, 0.5), 0.2)
    assert ours.take(float("nan")) == 0.2
    assert ours.state()["agar_buffer"] == []
    for _ in range(50):
        ours.take(0.4)
    before = ours.state()
    assert ours.take(float("inf")) == before["c_min"] == 0.5
    assert ours.state() == before


@pytest.mark.parametrize("taken", [20, 50, 70])
def test_a_saved_state_goes_on_alike(taken: int) -> None:
    stream = drawn(0.1, 0.9, 5, 90)
    whole, first = (memory(50, (0.01, 0.5), 0.1) for _ in range(2))
    expected = [whole.take(x) for x in stream]
    for x in stream[:taken]:
        first.take(x)
    rest = memory(50, (0.01, 0.5), 0.1)
    rest.load(first.state())
    assert rest.state() == first.state()
    assert [rest.take(x) for x in stream[taken:]] == expected[taken:]


def test_the_package_s_own_state_loads() -> None:
    theirs = casmo.CASMO([torch.zeros(1)], tau_init_steps=50)
    stream = drawn(0.1, 0.9, 6, 60)
    for x in stream[:30]:
        package_confidence(theirs, x)
    ours = memory(50, (0.01, 0.5), 0.1)
    ours.load(package_state(theirs))
    for x in stream[30:]:
        assert ours.take(x) == pytest.approx(package_confidence(theirs, x), rel=1e-12)


def test_more_steps_to_calibrate_make_room_for_their_samples() -> None:
    ours = memory(50, (0.01, 0.5), 0.1)
    ours.set_options(*memory_options(60, (0.01, 0.5), 0.1))
    for k in range(60):
        assert not ours.settled, k
        ours.take(0.3)
    assert ours.settled


@pytest.mark.parametrize(
    ("key", "value", "fragment"),
    [
        ("agar_buffer", [0.1, 2.0], "a list of numbers in [0, 1]"),
        ("agar_buffer", 3, "a list of numbers in [0, 1]"),
        ("agar_buffer_maxlen", -1, "None or an int >= 0"),
        ("agar_std", 0.0, "a finite number > 0"),
        ("tau", None, "a finite number"),
        ("tau_initialized", "yes", "True or False"),
        ("c_min", 1.5, "a number in [0, 1]"),
    ],
)
def test_a_broken_state_is_refused_and_changes_nothing(
    key: str, value: object, fragment: str
) -> None:
    ours = memory(50, (0.01, 0.5), 0.1)
    for _ in range(50):
        ours.take(0.4)
    before = ours.state()
    with pytest.raises(ValueError) as caught:
        ours.load({**before, key: value})
    assert key in str(caught.value) and fragment in str(caught.value)
    assert ours.state() == before


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ((49, (0.01, 0.5), 0.1), "tau_init_steps"),
        ((50, (0.5, 0.01), 0.1), "tau_clip_range"),
        ((50, (0.0, float("nan")), 0.1), "tau_clip_range"),
        ((50, (0.01, 0.5), 1.5), "c_min"),
    ],
)
def test_options_out_of_range_are_refused(
    options: tuple[int, tuple[float, float], float], name: str
) -> None:
    with pytest.raises(ValueError, match=name):
        memory(*options)
