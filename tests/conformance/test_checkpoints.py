"""state_dicts: into parameters of another dtype, another order, without what they need."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cosmic import Cosmic
from cosmic.state.entries import ROLE
from helpers import digest, normal, parameter, refused, same_bits, through_a_file
from optimizers import SHAPES, Row, each, moved, params_of, started, stepped

Saved = dict[str, Any]
DTYPES = {"fp32-to-bf16": (torch.float32, torch.bfloat16)}
DTYPES["bf16-to-fp32"] = (torch.bfloat16, torch.float32)
DTYPES["fp16-to-fp32"] = (torch.float16, torch.float32)


def of_dtype(row: Row, dtype: torch.dtype) -> Cosmic:
    return row.make([parameter(k, *shape, dtype=dtype) for k, shape in enumerate(SHAPES)])


def with_same_gradients(optimizer: Cosmic, step: int) -> None:
    """Of numbers that every dtype here has, so that moments depend on nothing else."""
    for k, p in enumerate(params_of(optimizer)):
        g = normal(1000 * step + k, *p.shape, dtype=torch.bfloat16).clamp(-4, 4)
        p.grad = (g * 16).round().div(16).to(p.dtype)
    optimizer.step()


def states(optimizer: Cosmic) -> Iterator[tuple[str, Any]]:
    """Every entry of all state, in order."""
    for p in params_of(optimizer):
        yield from sorted(optimizer.state[p].items())


def assert_same_state(a: Cosmic, b: Cosmic, *, apart: bool = False) -> None:
    """``apart``: parameters have been rounded to another dtype since, whose size a gate keeps."""
    for (key, mine), (other, theirs) in zip(states(a), states(b), strict=True):
        if apart and key == "gate_norms":
            mine, theirs = mine[1:], theirs[1:]
        same = same_bits(mine, theirs) if isinstance(mine, Tensor) else mine == theirs
        assert key == other and same, key


@pytest.mark.parametrize("case", DTYPES)
@each
def test_state_is_not_cast_to_the_dtype_of_parameters(row: Row, case: str) -> None:
    """torch casts moments to the parameters' dtype, which would spoil codes. Here they stay as they
    are; and go on as in the run that they come from, for the same gradients."""
    old, new = DTYPES[case]
    source, target = of_dtype(row, old), of_dtype(row, new)
    for step in range(3):
        with_same_gradients(source, step)
    target.load_state_dict(through_a_file(source.state_dict()))
    assert {p.dtype for p in params_of(target)} == {new}
    assert_same_state(source, target)
    assert target.state_bytes() == source.state_bytes()
    for step in range(3, 5):
        with_same_gradients(source, step)
        with_same_gradients(target, step)
    assert_same_state(source, target, apart=True)


@each
def test_a_model_that_is_cast_in_mid_run_keeps_its_state(row: Row) -> None:
    """As ``model.bfloat16()`` does, which exchanges the data of the same parameters."""
    source, cast = of_dtype(row, torch.float32), of_dtype(row, torch.float32)
    for step in range(5):
        if step == 3:
            nn.ParameterList(params_of(cast)).bfloat16()
        with_same_gradients(source, step)
        with_same_gradients(cast, step)
    assert {p.dtype for p in params_of(cast)} == {torch.bfloat16}
    assert_same_state(source, cast, apart=True)


@each
def test_loading_copies_and_leaves_the_dict_alone(row: Row) -> None:
    source = stepped(started(row), 0, 2)
    saved = copy.deepcopy(source.state_dict())
    kept = copy.deepcopy(saved)
    optimizer = stepped(started(row), 0, 2)
    optimizer.load_state_dict(saved)
    assert digest(stepped(optimizer, 2, 4)) == moved(row, 4)
    source.load_state_dict(saved)
    for index, state in kept["state"].items():
        for key, value in state.items():
            held = saved["state"][index][key]
            same = same_bits(held, value) if isinstance(value, Tensor) else held == value
            assert same, (index, key)
    assert saved["param_groups"] == kept["param_groups"]


@each
def test_options_of_a_group_come_with_its_state(row: Row) -> None:
    """As in torch, where the checkpoint's rate is the one that goes on; the extra keys too."""
    source = started(row, lr=0.25)
    source.param_groups[0]["note"] = "of the user"
    optimizer = started(row)
    optimizer.load_state_dict(through_a_file(source.state_dict()))
    assert optimizer.param_groups[0]["lr"] == 0.25
    assert optimizer.param_groups[0]["note"] == "of the user"


@each
def test_parameters_in_another_order_are_refused(row: Row) -> None:
    """By shapes and roles, where the state has any; torch itself would find out at the step."""
    source = stepped(started(row), 0, 2)
    backwards = row.make([parameter(k, *shape) for k, shape in enumerate(reversed(SHAPES))])
    stepped(backwards, 0, 1)
    shaped = [
        k
        for k, p in enumerate(params_of(source))
        if any(key.startswith("exp_avg") or key == ROLE for key in source.state[p])
    ]
    saved = through_a_file(source.state_dict())
    if shaped:
        with refused(backwards, ValueError, f"parameter {shaped[0]}"):
            backwards.load_state_dict(saved)
    else:
        backwards.load_state_dict(
            saved
        )  # as AdamW's counters would be, for want of anything to see


# ---- what is missing or too much ---------------------------------------------------------------


def without_a_rate(saved: Saved) -> None:
    del saved["param_groups"][0]["lr"]


def without_betas(saved: Saved) -> None:
    del saved["param_groups"][0]["betas"]


def with_a_bad_rate(saved: Saved) -> None:
    saved["param_groups"][0]["lr"] = -1.0


def with_one_parameter_less(saved: Saved) -> None:
    saved["param_groups"][0]["params"].pop()


def with_a_second_group(saved: Saved) -> None:
    saved["param_groups"].append({**saved["param_groups"][0], "params": []})


def without_groups(saved: Saved) -> None:
    saved["param_groups"].clear()


SPOILS: dict[str, tuple[Callable[[Saved], None], str]] = {
    "no-rate": (without_a_rate, "'lr'"),
    "no-betas": (without_betas, "'betas'"),
    "bad-rate": (with_a_bad_rate, "'lr'"),
    "fewer-parameters": (with_one_parameter_less, "parameters"),
    "more-groups": (with_a_second_group, "groups"),
    "no-groups": (without_groups, "0"),
}


@pytest.mark.parametrize("case", SPOILS)
@each
def test_a_state_dict_that_lacks_something_changes_nothing(row: Row, case: str) -> None:
    spoil, fragment = SPOILS[case]
    optimizer = stepped(started(row), 0, 2)
    saved = copy.deepcopy(optimizer.state_dict())
    spoil(saved)
    options = dict(optimizer.param_groups[0])
    with refused(optimizer, ValueError, fragment):
        optimizer.load_state_dict(saved)
    assert optimizer.param_groups[0].keys() == options.keys()
    assert digest(stepped(optimizer, 2, 4)) == moved(row, 4)
