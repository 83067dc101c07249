"""Presets whose options change between steps or come from another optimizer's checkpoint."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.optim import Optimizer

from casmo_package import casmo
from cosmic import Cosmic
from cosmic.presets import CASMO, TurboAdam
from helpers import parameter, parameters, refused, take_steps
from turboadam_options import only_param

SHAPE = (40, 129)


def turboadam(**options: Any) -> TurboAdam:
    optimizer = TurboAdam([parameter(0, *SHAPE)], **options)
    take_steps(optimizer, 0, 2)
    return optimizer


@pytest.mark.parametrize(
    ("options", "codecs"),
    [
        ({"v_bits": 2}, "ustate+vlog2"),
        ({"compress_m": False}, "fp32+vlog4"),
        ({"compress_v": False}, "ustate+fp32"),
        ({"m_codec": "costate"}, "costate+vlog4"),
        ({"v_codec": "v4"}, "ustate+v4"),
        ({"min_m_compress_elements": 10**6}, "fp32+vlog4"),
    ],
    ids=str,
)
def test_turboadam_follows_what_changes_between_steps(options: dict[str, Any], codecs: str) -> None:
    optimizer = turboadam()
    optimizer.param_groups[0].update(options)
    take_steps(optimizer, 2, 3)
    assert [info.rung for info in optimizer.tiers()] == [f"tier2:{codecs}"]
    assert int(optimizer.state[only_param(optimizer)]["step"]) == 3


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"v_bits": 99}, ValueError),
        ({"m_codec": "junk"}, ValueError),
        ({"compress_m": "no"}, ValueError),
        ({"block_size": torch.ones(2)}, ValueError),
        ({"rounding_seed": "z"}, ValueError),
        ({"betas": (0.9999, 0.9)}, ValueError),
        ({"error_feedback": True}, NotImplementedError),
    ],
    ids=str,
)
def test_turboadam_refuses_what_is_spoiled_between_steps_or_in_a_checkpoint(
    options: dict[str, Any], error: type[Exception]
) -> None:
    optimizer = turboadam()
    saved = optimizer.state_dict()
    saved["param_groups"][0] = {**saved["param_groups"][0], **options}
    with refused(optimizer, error, "the state_dict's param_groups[0]", *options):
        optimizer.load_state_dict(saved)
    optimizer.param_groups[0].update(options)
    only_param(optimizer).grad = torch.ones(SHAPE)
    with refused(optimizer, error, "param_groups[0]", *options):
        optimizer.step()


@pytest.mark.parametrize("options", [{"state_dtype": "u4+v4"}, {"min_compress_size": 1}], ids=str)
def test_turboadam_says_that_its_options_make_cosmics(options: dict[str, Any]) -> None:
    optimizer = turboadam()
    with refused(optimizer, ValueError, "param_groups[1]", *options, "m_codec, v_bits"):
        optimizer.add_param_group({"params": parameter(1, 3), **options})
    assert len(optimizer.param_groups) == 1


def test_turboadams_codecs_go_with_a_budget() -> None:
    optimizer = Cosmic([parameter(0, *SHAPE)], state_dtype="ustate+vlog4", budget="20%")
    take_steps(optimizer, 0, 2)
    limit = optimizer.budget_bytes()
    assert limit is not None
    assert optimizer.state_bytes() <= limit


@pytest.mark.parametrize("into", [Cosmic, TurboAdam])
def test_casmos_checkpoint_is_refused_by_others_at_once(into: type[Cosmic]) -> None:
    source = CASMO([parameter(0, *SHAPE)])
    take_steps(source, 0, 2)
    optimizer = into([parameter(0, *SHAPE)])
    take_steps(optimizer, 0, 1)
    with refused(optimizer, ValueError, "'gate'] is 'calibrated_agar'"):
        optimizer.load_state_dict(source.state_dict())


@pytest.mark.parametrize("source", [Cosmic, TurboAdam])
def test_casmo_refuses_moments_that_it_cannot_look_at(source: type[Cosmic]) -> None:
    """At once; as AdamW's they load."""
    saved = source([parameter(0, *SHAPE)])
    take_steps(saved, 0, 2)
    optimizer = CASMO([parameter(0, *SHAPE)])
    take_steps(optimizer, 0, 1)
    with refused(optimizer, ValueError, "'state_dtype'] is", "cannot look at"):
        optimizer.load_state_dict(saved.state_dict())
    optimizer.load_state_dict(saved.to_adamw_state_dict())
    take_steps(optimizer, 2, 3)
    assert int(optimizer.state[only_param(optimizer)]["step"]) == 3


def test_moments_of_package_casmo_load_into_cosmic() -> None:
    theirs: Optimizer = casmo.CASMO([parameter(0, *SHAPE)], lr=0.25, tau_init_steps=50)
    take_steps(theirs, 0, 2)  # type: ignore[arg-type]
    optimizer = Cosmic([parameter(0, *SHAPE)], state_dtype="fp32", maximize=True)
    optimizer.load_state_dict(theirs.state_dict())
    held = optimizer.state[only_param(optimizer)]
    (expected,) = theirs.state.values()
    torch.testing.assert_close(held["exp_avg"], expected["exp_avg"], rtol=0, atol=0)
    take_steps(optimizer, 2, 3)
    assert optimizer.param_groups[0]["lr"] == 0.25
    assert optimizer.param_groups[0]["maximize"] is True


HUGE = 10**400


@pytest.mark.parametrize(
    "options",
    [
        {"tau_init_steps": 2**31}, {"tau_clip_range": (0, HUGE)}, {"agar_clamp_factor": HUGE},
        {"c_min": 2}, {"total_steps": "x", "tau_init_steps": 50}, {"betas": (HUGE, 0)},
    ],
    ids=lambda options: next(iter(options)),
)  # fmt: skip
def test_casmo_names_what_no_float_or_int_holds(options: dict[str, Any]) -> None:
    """In a group that is not added, and in one that was spoiled between steps."""
    optimizer = CASMO(parameters((3,)))
    take_steps(optimizer, 0, 1)
    name = next(iter(options))
    with refused(optimizer, ValueError, f"param_groups[1][{name!r}]"):
        optimizer.add_param_group({"params": parameters((3,)), **options})
    take_steps(optimizer, 1, 2)
    optimizer.param_groups[0].update(options)
    only_param(optimizer).grad = torch.ones(3)
    with refused(optimizer, ValueError, f"param_groups[0][{name!r}]"):
        optimizer.step()


@pytest.mark.parametrize(("name", "value"), [("log_level", "LOUD"), ("budget", "1%")])
def test_casmo_refuses_a_spoiled_option_of_the_whole_before_the_step(
    name: str, value: object
) -> None:
    optimizer = CASMO(parameters((3,)), tau_init_steps=50)
    take_steps(optimizer, 0, 1)
    setattr(optimizer, name, value)
    only_param(optimizer).grad = torch.ones(3)
    with refused(optimizer, ValueError, f"{name} is {value!r}"):
        optimizer.step()
