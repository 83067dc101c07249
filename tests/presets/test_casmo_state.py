"""CASMO's checkpoints, copies, groups, reports and refusals."""

from __future__ import annotations

import copy
import io
import json
import logging
import pickle
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from casmo_package import casmo
from cosmic import Cosmic, NonfiniteGradientError
from cosmic.presets import CASMO
from helpers import digest, normal, parameters, refused, same_bits
from test_casmo import FACTOR, SHAPES, give, gradients, two_groups

KINDS = pytest.mark.parametrize(
    ("exact", "granularity"), [(True, "group"), (True, "parameter"), (False, "group")]
)
#: Before any group is calibrated, between the two, and after.
MOMENTS = pytest.mark.parametrize("saved_at", [30, 55, 75])
STEPS = 90


def made(exact: bool = True, granularity: str = "group") -> CASMO:
    return CASMO(
        two_groups(parameters(*SHAPES)), tau_init_steps=70, exact=exact, granularity=granularity
    )


def stepped(optimizer: Any, first: int, last: int) -> Any:
    params = [p for group in optimizer.param_groups for p in group["params"]]
    for step in gradients(last, first=first):
        give(params, step)
        optimizer.step()
    return optimizer


def known(optimizer: CASMO) -> list[dict[str, Any]]:
    return optimizer.calibrations()


# ---- checkpoints and copies ---------------------------------------------------------------------


@MOMENTS
@KINDS
def test_a_checkpoint_goes_on_with_the_same_bits(
    exact: bool, granularity: str, saved_at: int
) -> None:
    whole = stepped(made(exact, granularity), 0, STEPS)
    first = stepped(made(exact, granularity), 0, saved_at)
    file = io.BytesIO()
    torch.save({"optimizer": first.state_dict(), "params": [p.detach() for p in first.state]}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    second = made(exact, granularity)
    for param, values in zip(
        (p for g in second.param_groups for p in g["params"]), saved["params"], strict=True
    ):
        param.data.copy_(values)
    kept = copy.deepcopy(saved["optimizer"])
    second.load_state_dict(saved["optimizer"])
    assert saved["optimizer"].keys() == kept.keys()  # the package's takes entries out
    assert saved["optimizer"]["_group_states"] == kept["_group_states"]
    stepped(second, saved_at, STEPS)
    assert digest(second) == digest(whole)
    assert known(second) == known(whole)
    assert second.state_dict()["_step_count"] == second._step_count == STEPS


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("way", ["deepcopy", "pickle"])
def test_copies_go_on_with_the_same_bits(exact: bool, way: str) -> None:
    first = stepped(made(exact), 0, 55)
    first.log_level = "ERROR"
    second = copy.deepcopy(first) if way == "deepcopy" else pickle.loads(pickle.dumps(first))
    assert second.log_level == "ERROR"
    stepped(first, 55, STEPS)
    assert len(second.state_dict()["_group_states"][0]["agar_buffer"]) < 60  # not shared
    stepped(second, 55, STEPS)
    assert digest(second) == digest(first)
    assert known(second) == known(first)


@pytest.mark.parametrize("granularity", ["group", "parameter"])
@MOMENTS
def test_the_package_s_own_checkpoint_loads(granularity: str, saved_at: int) -> None:
    theirs = parameters(*SHAPES)
    package = casmo.CASMO(two_groups(theirs), tau_init_steps=70, granularity=granularity)
    stepped(package, 0, saved_at)
    saved = package.state_dict()
    # as another process finds it, which reads JSON's keys as text
    saved["_group_states"] = json.loads(json.dumps(saved["_group_states"]))
    optimizer = made()
    ours = [p for group in optimizer.param_groups for p in group["params"]]
    for own, other in zip(ours, theirs, strict=True):
        own.data.copy_(other)
    optimizer.load_state_dict(saved)
    assert optimizer.param_groups[0]["granularity"] == granularity
    assert optimizer.state_dict()["_step_count"] == saved_at
    for index, state in package.state_dict()["_group_states"].items():
        if not state[
            "tau_initialized"
        ]:  # the package shows its constructor's, and uses the group's
            state["c_min"] = optimizer.param_groups[index]["c_min"]
        assert optimizer.state_dict()["_group_states"][index] == state
    stepped(package, saved_at, STEPS)
    stepped(optimizer, saved_at, STEPS)
    for own, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(own, other, rtol=0, atol=2e-6)
    for known_here, there in zip(known(optimizer), package._group_states.values(), strict=True):
        assert known_here["tau"] == pytest.approx(there["tau"], rel=FACTOR)
        assert known_here["agar_std"] == pytest.approx(there["agar_std"], rel=FACTOR)


def test_the_package_s_checkpoint_loads_into_the_lagged_kind() -> None:
    theirs = parameters(*SHAPES)
    package = stepped(casmo.CASMO(two_groups(theirs), tau_init_steps=70), 0, 75)
    optimizer = made(exact=False)
    optimizer.load_state_dict(package.state_dict())
    stepped(optimizer, 75, 76)
    factors = optimizer.gate_factors()
    assert factors and set(factors.values()) == {1.0}  # nothing is known of the step before
    stepped(optimizer, 76, 77)
    assert all(0 < factor < 1 for factor in optimizer.gate_factors().values())


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("source", ["AdamW", "Cosmic"])
def test_checkpoints_without_calibration_begin_one(source: str, exact: bool) -> None:
    if source == "AdamW":
        other: Any = torch.optim.AdamW(parameters(*SHAPES), lr=0.5)
    else:
        other = Cosmic(parameters(*SHAPES), lr=0.5, state_dtype="fp32", gate="snr")
    stepped(other, 0, 3)
    optimizer = stepped(CASMO(parameters(*SHAPES), exact=exact), 0, 20)
    optimizer.load_state_dict(other.state_dict())
    (group,) = optimizer.param_groups
    assert group["lr"] == 0.5 and group["tau_init_steps"] == 500
    assert known(optimizer)[0]["agar_buffer"] == []
    moments = [state["exp_avg"] for state in optimizer.state.values()]
    expected = [state["exp_avg"] for state in other.state.values()]
    assert all(same_bits(a, b) for a, b in zip(moments, expected, strict=True))
    stepped(optimizer, 3, 5)
    assert len(known(optimizer)[0]["agar_buffer"]) == 2


@pytest.mark.parametrize(
    ("change", "fragment"),
    [
        ({"_group_states": {5: {}}}, "groups ['5']"),
        ({"_group_states": [1]}, "expected a dict"),
        ({"_group_states": {0: {"agar_buffer": "many"}}}, "agar_buffer"),
        ({"_step_count": -1}, "_step_count -1"),
    ],
)
def test_broken_calibrations_are_refused_and_change_nothing(
    change: dict[str, Any], fragment: str
) -> None:
    optimizer = stepped(made(), 0, 10)
    before = known(optimizer)
    with refused(optimizer, ValueError, fragment):
        optimizer.load_state_dict({**optimizer.state_dict(), **change})
    assert known(optimizer) == before


# ---- groups ------------------------------------------------------------------------------------


def test_a_group_that_comes_later_is_calibrated_on_its_own() -> None:
    first, second = parameters((300,), (40,))
    optimizer = CASMO([first], tau_init_steps=50)
    alone = CASMO([nn.Parameter(second.detach().clone())], tau_init_steps=60, c_min=0.3)
    for count in range(75):
        if count == 10:
            optimizer.add_param_group({"params": [second], "tau_init_steps": 60, "c_min": 0.3})
        first.grad = normal(count, 300)
        optimizer_has_second = count >= 10
        if optimizer_has_second:
            gradient = normal(count, 40)
            second.grad = gradient
            alone.param_groups[0]["params"][0].grad = gradient.clone()
            alone.step()
        optimizer.step()
    assert [state["tau_initialized"] for state in known(optimizer)] == [True, True]
    assert known(optimizer)[1] == known(alone)[0]
    assert same_bits(second, alone.param_groups[0]["params"][0])


def test_none_in_a_group_chooses_its_steps_from_its_own_betas() -> None:
    optimizer = CASMO(
        [{"params": parameters((3,)), "tau_init_steps": None, "betas": (0.99, 0.999)}],
        tau_init_steps=60,
    )
    assert optimizer.param_groups[0]["tau_init_steps"] == int(50 / (1 - 0.99))


def test_options_may_change_between_steps() -> None:
    optimizer = stepped(CASMO(parameters(*SHAPES), tau_init_steps=400), 0, 60)
    optimizer.param_groups[0]["tau_init_steps"] = 61
    optimizer.param_groups[0]["tau_clip_range"] = (0.9, 0.95)
    stepped(optimizer, 60, 61)
    assert known(optimizer)[0]["tau"] == 0.9


def test_changing_to_the_lagged_kind_goes_on_with_the_moments() -> None:
    optimizer = stepped(CASMO(parameters(*SHAPES)), 0, 10)
    optimizer.param_groups[0]["exact"] = False
    stepped(optimizer, 10, 12)
    states = list(optimizer.state.values())
    assert all(int(state["step"]) > 5 and "gate_calibrated_agar" in state for state in states)
    assert len(known(optimizer)[0]["agar_buffer"]) == 12
    optimizer.param_groups[0]["exact"] = True
    stepped(optimizer, 12, 13)
    assert not any(key.startswith("gate_") for state in states for key in state)


def test_the_package_s_name_for_what_is_known_reads_the_same() -> None:
    optimizer = stepped(made(), 0, 3)
    assert optimizer._group_states == dict(enumerate(known(optimizer)))
    assert optimizer._group_states[1]["current_confidence"] is not None


# ---- reports -----------------------------------------------------------------------------------


def test_a_calibration_is_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    optimizer = made()
    optimizer.log_level = "WARNING"
    with caplog.at_level(logging.DEBUG, logger="cosmic.casmo"):
        stepped(optimizer, 0, STEPS)
    assert [r.levelname for r in caplog.records] == ["WARNING"] * 2
    first, second = (record.getMessage() for record in caplog.records)
    tau = known(optimizer)[0]["tau"]
    assert first.startswith(f"param_groups[0] calibrated at step 60: tau {tau:.4g}, c_min 0.")
    assert second.startswith("param_groups[1] calibrated at step 7")


def test_a_calibration_that_was_loaded_is_not_reported(caplog: pytest.LogCaptureFixture) -> None:
    saved = stepped(made(), 0, STEPS).state_dict()
    optimizer = made()
    with caplog.at_level(logging.DEBUG, logger="cosmic.casmo"):
        optimizer.load_state_dict(saved)
        stepped(optimizer, 0, 2)
        stepped(copy.deepcopy(optimizer), 0, 2)
    assert not caplog.records


def test_silence_is_the_default(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO + 1, logger="cosmic.casmo"):
        stepped(made(), 0, STEPS)
    assert not caplog.records


# ---- refusals ----------------------------------------------------------------------------------


@pytest.mark.parametrize("clamp", [10.0, None])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_gradients_that_are_not_finite_change_nothing(value: float, clamp: float | None) -> None:
    optimizer = CASMO(two_groups(parameters(*SHAPES)), agar_clamp_factor=clamp)
    stepped(optimizer, 0, 3)
    before = known(optimizer)
    params = [p for group in optimizer.param_groups for p in group["params"]]
    give(params, next(gradients(1)))
    assert params[2].grad is not None
    params[2].grad[1:3] = value
    with refused(optimizer, NonfiniteGradientError, "parameter 2 (param_groups[1]", "2 non-finite"):
        optimizer.step()
    assert known(optimizer) == before
    assert optimizer.state_dict()["_step_count"] == 3
    twin = CASMO(two_groups(parameters(*SHAPES)), agar_clamp_factor=clamp)
    assert digest(stepped(optimizer, 3, 6)) == digest(stepped(twin, 0, 6))
    assert known(optimizer) == known(twin)


def test_the_lagged_kind_spoils_single_elements_only() -> None:
    def run(poison: Tensor | None) -> tuple[CASMO, list[nn.Parameter]]:
        params = parameters((300,), (40,))
        optimizer = CASMO(params, exact=False, tau_init_steps=50)
        for count in range(60):
            give(params, [normal(count, 300), normal(1000 + count, 40)])
            if poison is not None and count == 5:
                assert params[0].grad is not None
                params[0].grad[:2] = poison
            optimizer.step()
        return optimizer, params

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        optimizer, params = run(torch.tensor([float("nan"), float("inf")]))
    clean, expected = run(None)
    assert params[0].isnan().tolist() == [True, True] + [False] * 298
    assert params[1].isfinite().all()
    assert known(optimizer)[0]["tau_initialized"]
    # two of 340 elements count as noise
    for poisoned, sound in zip(
        optimizer.gate_factors().values(), clean.gate_factors().values(), strict=True
    ):
        assert poisoned == pytest.approx(sound, abs=0.02)
    torch.testing.assert_close(params[0][2:], expected[0][2:], rtol=0, atol=2e-3)


@pytest.mark.parametrize(
    ("options", "fragment"),
    [
        ({"lr": -1.0}, "'lr'] is -1.0"),
        ({"betas": (1.0, 0.999)}, "'betas'] is (1.0, 0.999)"),
        ({"c_min": 1.5}, "'c_min'] is 1.5"),
        ({"tau_init_steps": 49}, "'tau_init_steps'] is 49; expected an int >= 50"),
        ({"tau_init_steps": 60.0}, "'tau_init_steps'] is 60.0"),
        ({"total_steps": 200}, "is 200, of which a fifth, 40, calibrates"),
        ({"total_steps": 0}, "'total_steps'] is 0"),
        ({"tau_clip_range": (0.5, 0.01)}, "'tau_clip_range'] is (0.5, 0.01)"),
        ({"tau_clip_range": 0.5}, "'tau_clip_range'] is 0.5"),
        ({"granularity": "layer"}, "'granularity'] is 'layer'; expected 'parameter' or 'group'"),
        ({"agar_clamp_factor": 0.0}, "'agar_clamp_factor'] is 0.0"),
        ({"exact": 1}, "'exact'] is 1; expected True or False"),
        ({"state_dtype": "u4+factored"}, "expected codecs fp32+fp32, "),
        ({"state_dtype": None}, "'state_dtype'] is None"),
        ({"log_level": "LOUD"}, "log_level is 'LOUD'"),
        ({"log_level": True}, "log_level is True"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_options_out_of_range_are_refused_at_once(options: dict[str, Any], fragment: str) -> None:
    with pytest.raises(ValueError) as caught:
        CASMO(parameters((3,)), **options)
    assert fragment in str(caught.value)


@pytest.mark.parametrize(
    ("options", "fragment"),
    [
        ({"tau_init_steps": 10}, "param_groups[2]['tau_init_steps'] is 10"),
        ({"gate": "snr"}, "param_groups[2]['gate'] is 'snr'; expected 'calibrated_agar'"),
        ({"tier": 1}, "param_groups[2]['tier'] is 1"),
        ({"beta_slow": 0.99}, "param_groups[2]['beta_slow'] is 0.99"),
        ({"rung": "tier1"}, "param_groups[2]['rung'] is 'tier1'"),
        ({"total_steps": 1.5, "tau_init_steps": None}, "param_groups[2]['total_steps'] is 1.5"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_group_out_of_range_is_not_added(options: dict[str, Any], fragment: str) -> None:
    optimizer = stepped(made(), 0, 2)
    with refused(optimizer, ValueError, fragment):
        optimizer.add_param_group({"params": parameters((3,)), **options})
    assert len(optimizer.param_groups) == 2 == len(known(optimizer))
    stepped(optimizer, 2, 3)


@pytest.mark.parametrize(
    ("option", "value"),
    [("granularity", "layer"), ("tau_init_steps", 3), ("agar_clamp_factor", -1.0), ("exact", None)],
)
def test_an_option_that_was_spoiled_between_steps_changes_nothing(
    option: str, value: object
) -> None:
    optimizer = stepped(made(), 0, 2)
    optimizer.param_groups[1][option] = value
    give([p for g in optimizer.param_groups for p in g["params"]], next(gradients(1)))
    with refused(optimizer, ValueError, f"param_groups[1][{option!r}] is {value!r}"):
        optimizer.step()


def test_groups_that_were_taken_away_are_noticed() -> None:
    optimizer = stepped(made(), 0, 2)
    del optimizer.param_groups[0]
    with refused(optimizer, RuntimeError, "1 parameter groups, but calibrations of 2"):
        optimizer.step()


def test_stepping_in_backward_is_refused() -> None:
    with pytest.raises(RuntimeError, match="all gradients of a group at once"):
        made().step_in_backward()
