"""Arguments of preset AXIOM that change nothing here, that are none, and that are out of range."""

from __future__ import annotations

import inspect
import math
from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import StepLR

from cosmic import Cosmic
from cosmic.presets import AXIOM
from helpers import digest, give_gradients, parameter, parameters, refused, take_steps

SHAPES = ((70, 65), (33,))


def test_arguments_are_in_the_packages_order_with_its_defaults() -> None:
    found = list(inspect.signature(AXIOM).parameters.values())[1:7]
    assert [(p.name, p.default) for p in found] == [
        ("lr", 1e-3), ("weight_decay", 0.01), ("max_grad_norm", None), ("detect_anomaly", True),
        ("streak_boost", 1.5), ("snr_floor", 0.5),
    ]  # fmt: skip
    by_place = AXIOM(parameters(*SHAPES), 1e-2, 0.1, 1.0, False)
    by_name = AXIOM(
        parameters(*SHAPES), lr=1e-2, weight_decay=0.1, max_grad_norm=1.0, detect_anomaly=False
    )
    for optimizer in (by_place, by_name):
        take_steps(optimizer, 0, 3)
    assert digest(by_place) == digest(by_name)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"streak_boost": 2.0}, "streak_boost=2.0 does nothing here"),
        ({"snr_floor": 0.2}, "snr_floor=0.2 does nothing without a gate"),
        ({"warp_threshold": 3}, "'warp_threshold' .not known here."),
        ({"max_slots": 32}, "'max_slots' .activations"),
        ({"device": "cuda", "top_k_percent": 6.25}, "'device' .*CPU.*'top_k_percent' .*processes"),
    ],
    ids=str,
)
def test_what_has_no_effect_says_so_once_and_has_none(options: dict[str, Any], said: str) -> None:
    with pytest.warns(UserWarning, match=said) as told:
        optimizer = AXIOM(parameters(*SHAPES), **options)
    assert [one.filename for one in told] == [__file__]
    plain = AXIOM(parameters(*SHAPES))
    for one in (optimizer, plain):
        take_steps(one, 0, 25)
        one.add_param_group({"params": [parameter(7, 4)], **(options if one is optimizer else {})})
    assert [set(group) for group in optimizer.param_groups[1:]] == [set(plain.param_groups[1])]
    optimizer.param_groups[0].pop("c_min"), plain.param_groups[0].pop("c_min")
    assert digest(optimizer) == digest(plain)


def test_a_floor_with_its_gate_is_nothing_to_warn_of() -> None:
    optimizer = AXIOM(parameters(*SHAPES), gate="snr", snr_floor=0.2, streak_boost=1.5)
    assert optimizer.param_groups[0]["c_min"] == 0.2


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("weight_decy", "did you mean 'weight_decay'"),
        ("max_norm", "did you mean 'max_grad_norm'"),
        ("learning_rate", "did you mean 'lr'"),
        ("wd", "did you mean 'weight_decay'"),
        ("detect_anomalies", "did you mean 'detect_anomaly'"),
        ("snr_flor", "did you mean 'snr_floor'"),
        ("beta", "did you mean 'betas'"),
        ("rung", "an option of Cosmic's: give it in a parameter group"),
        ("state_dtype", "or take cosmic.Cosmic"),
        ("lr_scale", "register_hooks"),
        ("amsgrad", "of torch's AdamW: leave it out"),
    ],
)
def test_a_name_that_would_do_something_is_refused(name: str, hint: str) -> None:
    options: dict[str, Any] = {name: 1}
    with pytest.raises(TypeError, match=f"unexpected keyword argument '{name}'.*{hint}"):
        AXIOM(parameters(*SHAPES), **options)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"lr": -1.0}, "lr"),
        ({"weight_decay": math.nan}, "weight_decay"),
        ({"max_grad_norm": 0.0}, "max_grad_norm is 0.0; expected a number > 0, or None not"),
        ({"max_grad_norm": "1"}, "max_grad_norm is '1'"),
        ({"max_grad_norm": True}, "max_grad_norm is True"),
        ({"detect_anomaly": "yes"}, "detect_anomaly is 'yes'; expected True or False"),
        ({"streak_boost": 0}, "streak_boost is 0; expected a number > 0"),
        ({"streak_boost": math.inf}, "streak_boost is inf"),
        ({"snr_floor": 1.5}, "snr_floor is 1.5; expected a number from 0 to 1"),
        ({"snr_floor": None}, "snr_floor is None"),
        ({"nonfinite": "ignore"}, "nonfinite is 'ignore'"),
        ({"gate": "warp"}, "gate"),
        ({"budget": "lots"}, "budget is 'lots'"),
    ],
    ids=str,
)
def test_what_is_out_of_range_is_named(options: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        AXIOM(parameters(*SHAPES), **options)


def test_a_norm_that_is_spoiled_between_steps_is_named_before_anything_moves() -> None:
    optimizer = AXIOM(parameters(*SHAPES))
    take_steps(optimizer, 0, 1)
    give_gradients(optimizer.param_groups[0]["params"], seed=1)
    optimizer.max_grad_norm = -1.0
    with refused(optimizer, ValueError, "max_grad_norm is -1.0"):
        optimizer.step()
    with refused(optimizer, ValueError, "max_grad_norm is -1.0"):
        optimizer.register_hooks()
    assert optimizer._backward is None


def test_schedulers_and_groups_that_come_later_are_as_cosmics() -> None:
    ours, cosmics = (
        AXIOM(parameters(*SHAPES), budget="30%"),
        Cosmic(parameters(*SHAPES), weight_decay=0.01, budget="30%", c_min=0.5),
    )
    for optimizer in (ours, cosmics):
        scheduler = StepLR(optimizer, 2)
        take_steps(optimizer, 0, 3)
        scheduler.step()
        optimizer.add_param_group({"params": [parameter(5, 40, 20)], "lr": 1e-2})
        take_steps(optimizer, 3, 5)
    assert digest(ours) == digest(cosmics)


def test_torch_loads_it_in_a_fresh_process_with_weights_only(tmp_path: Any) -> None:
    optimizer = AXIOM(parameters(*SHAPES))
    take_steps(optimizer, 0, 2)
    torch.save(optimizer.state_dict(), tmp_path / "axiom.pt")
    other = AXIOM(parameters(*SHAPES))
    other.load_state_dict(torch.load(tmp_path / "axiom.pt", weights_only=True))
    assert other.state_bytes() == optimizer.state_bytes()
    assert other._steps == 2
