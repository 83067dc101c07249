"""A state_dict that does not fit is refused as a whole."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim import Adam, AdamW, Optimizer

from cosmic import Cosmic
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
    saved["state"][1]["rung"] = "tier9"


def without_a_rung(saved: Saved) -> None:
    del saved["state"][1]["rung"]


def without_a_moment(saved: Saved) -> None:
    del saved["state"][1]["exp_avg_sq"]


def without_a_counter(saved: Saved) -> None:
    del saved["state"][1]["step"]


def with_another_counter(saved: Saved) -> None:
    saved["state"][1]["step"] = torch.zeros(3, dtype=torch.int64)


def with_a_negative_counter(saved: Saved) -> None:
    saved["state"][1]["step"] = torch.tensor(-5)


def with_a_number_for_a_tensor(saved: Saved) -> None:
    saved["state"][1]["step"] = 5


def with_a_number_for_a_rung(saved: Saved) -> None:
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
    "counter-of-three": (with_another_counter, ("'head'", "(3,)")),
    "negative-counter": (with_a_negative_counter, ("'head'", "step -5", "0 or more")),
    "start-past-the-counter": (with_a_start(3), ("'head'", "exp_avg_start 3", "to its step")),
    "start-negative": (with_a_start(-1), ("'head'", "exp_avg_start -1", "to its step")),
    "start-a-tensor": (with_a_start(torch.tensor(1)), ("'head'", "exp_avg_start tensor(1)")),
    "start-bool": (with_a_start(True), ("'head'", "exp_avg_start True")),
    "number-for-tensor": (with_a_number_for_a_tensor, ("'head'", "step 5", "a tensor")),
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
        assert optimizer.state[ours]["rung"] == "tier2:fp32+fp32"
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
            same = torch.equal(saved["state"][k][key], value) if key != "rung" else True
            assert same, (k, key)
