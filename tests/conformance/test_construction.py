"""What surrounds construction and step: defaults of torch, modes, arguments of torch's AdamW."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from helpers import UNUSUAL, digest, parameter
from optimizers import ROWS, Row, each, gradients, moved, params_of, started, stepped

Context = Callable[[], AbstractContextManager[Any]]


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def default_device(device: str) -> Iterator[None]:
    torch.set_default_device(device)
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


#: What may be set around an optimizer and must not reach its state.
SURROUNDINGS: dict[str, Context] = {
    "float64": lambda: default_dtype(torch.float64),
    "bfloat16": lambda: default_dtype(torch.bfloat16),
    "default-meta": lambda: default_device("meta"),
    "with-meta": lambda: torch.device("meta"),
    "no-grad": torch.no_grad,
    "inference": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "deterministic": deterministic,
}


@pytest.mark.parametrize("name", SURROUNDINGS)
@each
def test_what_surrounds_an_optimizer_does_not_reach_its_state(row: Row, name: str) -> None:
    """Neither where it is made, stepped, saved or loaded, nor afterwards. (After a first step in
    inference mode torch's AdamW cannot be stepped outside: its moments are inference tensors.)"""
    params = [parameter(k, *shape) for k, shape in enumerate(((64, 65), (5, 7), (33,), ()))]
    with SURROUNDINGS[name]():
        optimizer = row.make(params)
    several = [gradients(step) for step in range(5)]

    def step(count: int) -> None:
        for p, g in zip(params, several[count], strict=True):
            p.grad = g
        optimizer.step()

    with SURROUNDINGS[name]():
        step(0)
        step(1)
        optimizer.load_state_dict(optimizer.state_dict())
        step(2)
    step(3)
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    step(4)
    devices = {t.device.type for s in optimizer.state.values() for t in s.values() if is_tensor(t)}
    assert devices <= {"cpu"}
    assert digest(optimizer) == moved(row, 5)


def is_tensor(value: object) -> bool:
    return isinstance(value, Tensor)


@each
def test_a_step_in_inference_mode_moves_what_a_model_shows_outside(row: Row) -> None:
    """And autograd goes on through the same parameters."""
    optimizer = started(row)
    with torch.inference_mode():
        stepped(optimizer, 0, 1)
    assert digest(optimizer) == moved(row, 1)
    optimizer.zero_grad()
    loss: Any = params_of(optimizer)[0].square().sum()
    loss.backward()
    found = params_of(optimizer)[0].grad
    assert found is not None and not found.is_inference()


# ---- arguments ---------------------------------------------------------------------------------

#: Of torch's AdamW, for what is done otherwise here.
FOREIGN = ("amsgrad", "foreach", "capturable", "differentiable", "fused")


@pytest.mark.parametrize("name", FOREIGN)
@each
def test_an_argument_of_torch_that_is_not_there_is_named(row: Row, name: str) -> None:
    """Refused by Python, and not silently taken; the presets have those of their packages."""
    if name == "capturable" and row.name.startswith("turboadam"):
        with pytest.raises(NotImplementedError, match="capturable"):
            started(row, capturable=True)
        return
    with pytest.raises(TypeError, match=f"unexpected keyword argument '{name}'"):
        started(row, **{name: True})


@each
def test_defaults_are_read_as_torchs(row: Row) -> None:
    """``defaults`` holds every option that groups have, as tools read it."""
    optimizer = started(row)
    assert set(optimizer.param_groups[0]) == {*optimizer.defaults, "params"}
    for key in ("lr", "betas", "eps", "weight_decay", "maximize"):
        assert optimizer.defaults[key] == UNUSUAL.get(key, False)
    assert isinstance(optimizer, Optimizer)


@pytest.mark.parametrize("row", [row for row in ROWS if row.adamw], ids=lambda row: row.name)
def test_moments_are_keyed_and_shaped_as_in_adamw(row: Row) -> None:
    """Tools that look at exp_avg and exp_avg_sq find them, in the parameter's shape."""
    ours, theirs = started(row), AdamW([parameter(k, *s) for k, s in enumerate(((64, 65), (5, 7)))])
    stepped(ours, 0, 1)
    for p, g in zip(theirs.param_groups[0]["params"], gradients(0), strict=False):
        p.grad = g
    theirs.step()
    for p, q in zip(params_of(ours), theirs.param_groups[0]["params"], strict=False):
        for key, value in theirs.state[q].items():
            assert ours.state[p][key].shape == value.shape
    assert set(ours.state_dict()) >= set(theirs.state_dict())


# ---- what torch refuses ------------------------------------------------------------------------

BAD_PARAMS: dict[str, Callable[[], Any]] = {
    "empty": list,
    "tensor": lambda: parameter(0, 3),
    "none": lambda: None,
    "numbers": lambda: [1.0],
    "text": lambda: ["weight"],
    "modules": lambda: [nn.Linear(2, 2)],
    "set-in-a-group": lambda: [{"params": {parameter(0, 3)}}],
    "no-params": lambda: [{"lr": 0.1}],
    "half-named": lambda: [("a", parameter(0, 3)), parameter(1, 3)],
    "non-leaf": lambda: [parameter(0, 3) * 2],
}


@pytest.mark.parametrize("case", BAD_PARAMS)
@each
def test_what_torch_refuses_is_refused_by_the_same_error(row: Row, case: str) -> None:
    errors = []
    for make in (row.make, AdamW):
        with pytest.raises(Exception) as caught:
            make(BAD_PARAMS[case]())
        errors.append((caught.type, str(caught.value)))
    assert errors[0] == errors[1]


@each
def test_parameters_may_come_from_any_iterable(row: Row) -> None:
    def fresh() -> Iterator[nn.Parameter]:
        return (parameter(k, *shape) for k, shape in enumerate(((64, 65), (5, 7), (33,), ())))

    for params in (fresh(), tuple(fresh()), nn.ParameterList(fresh()), iter(list(fresh()))):
        assert digest(stepped(row.make(params), 0, 2)) == moved(row, 2)
