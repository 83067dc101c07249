"""A state_dict that does not fit is refused as a whole."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim import Adam, AdamW, Optimizer

from cosmic import Cosmic
from cosmic.state.entries import STATE_FORMAT, marker, rung_of
from helpers import UNUSUAL, digest, give_gradients, parameters, refused, take_steps

Saved = dict[str, Any]


def trained(**options: Any) -> Cosmic:
    params = parameters((40, 9), (129,))
    optimizer = Cosmic([("body", params[0]), ("head", params[1])], **{**UNUSUAL, **options})
    take_steps(optimizer, 0, 2)
    return optimizer


def with_another_shape(saved: Saved) -> None:
    saved["state"][1]["exp_avg"] = torch.zeros(128)


def with_an_unknown_rung(saved: Saved) -> None:
    without_a_rung(saved)
    saved["state"][1]["rung:tier9"] = STATE_FORMAT


def without_a_rung(saved: Saved) -> None:
    state = saved["state"][1]
    del state[marker(rung_of(state))]


def without_a_moment(saved: Saved) -> None:
    del saved["state"][1]["exp_avg_sq"]


def without_a_counter(saved: Saved) -> None:
    del saved["state"][1]["step"]


def with_another_counter(saved: Saved) -> None:
    saved["state"][1]["step"] = torch.zeros(3, dtype=torch.int64)


def with_a_negative_counter(saved: Saved) -> None:
    saved["state"][1]["step"] = torch.tensor(-5)


def with_a_number_for_a_tensor(saved: Saved) -> None:
    saved["state"][1]["exp_avg"] = 5


def with_a_step(step: object) -> Callable[[Saved], None]:
    def spoil(saved: Saved) -> None:
        saved["state"][1]["step"] = step

    return spoil


def with_a_number_for_a_rung(saved: Saved) -> None:
    """As format 1 names it."""
    without_a_rung(saved)
    saved["state"][1]["rung"] = 3


def with_a_start(start: object) -> Callable[[Saved], None]:
    def spoil(saved: Saved) -> None:
        saved["state"][1]["exp_avg_start"] = start

    return spoil


def with_steps_in_words(saved: Saved) -> None:
    saved["cosmic"]["steps"] = "x"


def with_nothing_about_itself(saved: Saved) -> None:
    saved["cosmic"] = None


def from_the_future(saved: Saved) -> None:
    saved["cosmic"]["format"] = 10**6


def with_fewer_parameters(saved: Saved) -> None:
    saved["param_groups"][0]["params"].pop()


def with_another_group(saved: Saved) -> None:
    saved["param_groups"].append({**saved["param_groups"][0], "params": []})


SPOILS: dict[str, tuple[Callable[[Saved], None], tuple[str, ...]]] = {
    "shape": (with_another_shape, ("'head'", "(128,)", "(129,)")),
    "unknown-rung": (with_an_unknown_rung, ("'head'", "'tier9'")),
    "no-rung": (without_a_rung, ("'head'", "not saved by Cosmic")),
    "no-moment": (without_a_moment, ("'head'", "exp_avg_sq")),
    "no-counter": (without_a_counter, ("'head'", "step")),
    "counter-of-three": (with_another_counter, ("'head'", "step tensor([0, 0, 0])", "one number")),
    "negative-counter": (with_a_negative_counter, ("'head'", "step -5", "0 or more")),
    "counter-of-a-half": (with_a_step(5.5), ("'head'", "step 5.5", "an int64 tensor")),
    "counter-tensor-of-a-half": (with_a_step(torch.tensor(5.5)), ("'head'", "step 5.5", "int64")),
    "negative-number-for-counter": (with_a_step(-5), ("'head'", "step -5", "0 or more")),
    "counter-nan": (with_a_step(float("nan")), ("'head'", "step nan", "an int64 tensor")),
    "counter-infinite": (with_a_step(torch.tensor(torch.inf)), ("'head'", "step inf", "int64")),
    "counter-bool": (with_a_step(True), ("'head'", "step True", "an int64 tensor")),
    "counter-complex": (with_a_step(torch.tensor(5j)), ("'head'", "step tensor(", "int64")),
    "counter-in-words": (with_a_step("5"), ("'head'", "step '5'", "an int64 tensor")),
    "counter-none": (with_a_step(None), ("'head'", "step None", "an int64 tensor")),
    "start-past-the-counter": (with_a_start(3), ("'head'", "exp_avg_start 3", "to its step")),
    "start-negative": (with_a_start(-1), ("'head'", "exp_avg_start -1", "to its step")),
    "start-a-tensor": (with_a_start(torch.tensor(1)), ("'head'", "exp_avg_start tensor(1)")),
    "start-bool": (with_a_start(True), ("'head'", "exp_avg_start True")),
    "number-for-tensor": (with_a_number_for_a_tensor, ("'head'", "exp_avg 5", "a tensor")),
    "number-for-rung": (with_a_number_for_a_rung, ("'head'", "3", "'tier1'")),
    "steps-in-words": (with_steps_in_words, ("'cosmic'", "steps 'x'", "an int")),
    "nothing-about-itself": (with_nothing_about_itself, ("'cosmic'", "None", "a dict")),
    "newer-format": (from_the_future, ("1000000", "upgrade")),
    "fewer-parameters": (with_fewer_parameters, ("1", "2")),
    "more-groups": (with_another_group, ("groups",)),
}


@pytest.mark.parametrize("case", SPOILS)
def test_a_spoiled_state_dict_changes_nothing(case: str) -> None:
    spoil, fragments = SPOILS[case]
    optimizer, twin = trained(), trained()
    saved = copy.deepcopy(optimizer.state_dict())
    spoil(saved)
    take_steps(optimizer, 2, 3)
    with refused(optimizer, ValueError, *fragments):
        optimizer.load_state_dict(saved)
    take_steps(optimizer, 3, 4)
    take_steps(twin, 2, 4)
    assert digest(optimizer) == digest(twin)


WHOLE = [7, 7.0, torch.tensor(7.0), torch.tensor([7]), torch.tensor(7, dtype=torch.int32)]


@pytest.mark.parametrize("step", WHOLE, ids=repr)
def test_a_counter_of_another_kind_is_taken(step: object) -> None:
    """Loaded or put into the state: that others keep it as a number or in float32 is common."""
    optimizer, twin, other = trained(), trained(), trained()
    saved = copy.deepcopy(optimizer.state_dict())
    saved["state"][1]["step"] = step
    optimizer.load_state_dict(saved)
    head = other.param_groups[0]["params"][1]
    other.state[head]["step"] = step
    twin.state[twin.param_groups[0]["params"][1]]["step"].fill_(7)
    for each in (optimizer, twin, other):
        take_steps(each, 2, 4)
    assert digest(optimizer) == digest(twin) == digest(other)


def test_adamw_state_is_told_from_ours() -> None:
    params = parameters((40, 9), (129,))
    adamw = AdamW(params)
    give_gradients(params, 0)
    adamw.step()
    saved = adamw.state_dict()
    optimizer = trained()
    with refused(optimizer, ValueError, "'body'", "not saved by Cosmic"):
        optimizer.load_state_dict({**saved, "cosmic": {}})

    optimizer.load_state_dict(saved)  # says nothing of Cosmic: taken for what it is
    for ours, theirs in zip(optimizer.param_groups[0]["params"], params, strict=True):
        assert rung_of(optimizer.state[ours]).name == "tier2:fp32+fp32"
        for key in ("exp_avg", "exp_avg_sq", "step"):
            assert torch.equal(optimizer.state[ours][key], adamw.state[theirs][key]), key


def amsgrad(params: list[torch.nn.Parameter]) -> Optimizer:
    return AdamW(params, amsgrad=True)


def coupled_decay(params: list[torch.nn.Parameter]) -> Optimizer:
    return Adam(params, weight_decay=0.1)


@pytest.mark.parametrize(
    ("make", "fragment"), [(amsgrad, "has amsgrad"), (coupled_decay, "in the gradient")]
)
def test_state_of_another_arithmetic_than_adamw(
    make: Callable[[list[torch.nn.Parameter]], Optimizer], fragment: str
) -> None:
    params = parameters((40, 9), (129,))
    other = make(params)
    give_gradients(params, 0)
    other.step()
    optimizer = trained()
    with refused(optimizer, ValueError, "param_groups[0]", fragment):
        optimizer.load_state_dict(other.state_dict())


def test_loading_does_not_share_memory_with_the_dict() -> None:
    saved = trained().state_dict()
    kept = copy.deepcopy(saved["state"])
    optimizer = trained()
    optimizer.load_state_dict(saved)
    take_steps(optimizer, 2, 4)
    for k, state in kept.items():
        for key, value in state.items():
            held = saved["state"][k][key]
            same = torch.equal(held, value) if isinstance(value, torch.Tensor) else held == value
            assert same, (k, key)
