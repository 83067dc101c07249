"""Packed state that does not fit is refused by name, and nothing changes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from cosmic import Cosmic
from cosmic.state.entries import STATE_FORMAT, marker, rung_of
from helpers import UNUSUAL, parameters, refused, take_steps

State = dict[str, Any]
SHAPES = ((40, 129), (511,))  # 41 blocks in the first, 4 in the second


def trained(state_dtype: str, **more: Any) -> Cosmic:
    body, head = parameters(*SHAPES)
    options = {**UNUSUAL, "state_dtype": state_dtype, "min_compress_size": 0, **more}
    optimizer = Cosmic([("body", body), ("head", head)], **options)
    take_steps(optimizer, 0, 2)
    return optimizer


def shorter(old: Tensor) -> Tensor:
    return old[:-1].clone()


def longer(old: Tensor) -> Tensor:
    return torch.cat([old, old[:1]])


def as_half(old: Tensor) -> Tensor:
    return old.to(torch.float16)


def folded(old: Tensor) -> Tensor:
    return old.view(1, -1).clone()


def of_the_same_width(old: Tensor) -> Tensor:
    """Another dtype of as many bytes."""
    other = {torch.uint8: torch.int8, torch.bfloat16: torch.int16, torch.int16: torch.bfloat16}
    other |= {torch.int32: torch.float32, torch.float32: torch.int32}
    return old.view(other[old.dtype])


SPOILS: list[Callable[[Tensor], Tensor]] = [shorter, longer, as_half, folded, of_the_same_width]
ENTRIES = [
    ("u4+v4", "exp_avg_u4_codes"),
    ("u4+v4", "exp_avg_u4_scale"),
    ("u4+v4", "exp_avg_sq_v4_codes"),
    ("u4+v4", "exp_avg_sq_v4_scale"),
    ("q8+q8", "exp_avg_q8_codes"),
    ("q8+q8", "exp_avg_q8_scale"),
    ("q8+q8", "exp_avg_sq_q8_codes"),
    ("q8+q8", "exp_avg_sq_q8_scale"),
    ("u2+v4", "exp_avg_u2_codes"),
    ("u1+v4", "exp_avg_slow_u1_codes"),
    ("u1+v4", "exp_avg_slow_u1_scale"),
    ("u4+factored", "exp_avg_sq_row"),
    ("u4+factored", "exp_avg_sq_col"),
    ("u4+rowmean", "exp_avg_sq_row"),
    ("fp32+colmean", "exp_avg_sq_col"),
]


def options_for(key: str) -> dict[str, Any]:
    return {"beta_slow": 0.97} if "slow" in key else {}


@pytest.fixture(autouse=True)
def rowmean_means_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which of the two a gradient asks for is another test's subject."""
    monkeypatch.setattr("cosmic._core.keeps_columns", lambda *_: False)


@pytest.mark.parametrize("spoil", SPOILS)
@pytest.mark.parametrize(("state_dtype", "key"), ENTRIES)
def test_a_spoiled_entry_of_a_state_dict_is_named(
    state_dtype: str, key: str, spoil: Callable[[Tensor], Tensor]
) -> None:
    optimizer = trained(state_dtype, **options_for(key))
    saved = copy.deepcopy(optimizer.state_dict())
    good = saved["state"][0][key]
    bad = saved["state"][0][key] = spoil(good)
    found = (str(bad.dtype), str(tuple(bad.shape)), str(good.dtype), str(tuple(good.shape)))
    with refused(optimizer, ValueError, "'body'", f"{key} of", *found):
        optimizer.load_state_dict(saved)


@pytest.mark.parametrize("spoil", SPOILS)
@pytest.mark.parametrize(("state_dtype", "key"), ENTRIES)
def test_a_spoiled_entry_of_the_state_is_named_by_the_step(
    state_dtype: str, key: str, spoil: Callable[[Tensor], Tensor]
) -> None:
    """Exchanged in ``optimizer.state``, without a load."""
    optimizer = trained(state_dtype, **options_for(key))
    body = optimizer.param_groups[0]["params"][0]
    optimizer.state[body][key] = spoil(optimizer.state[body][key])
    with refused(optimizer, ValueError, "'body'", key):
        optimizer.step()


@pytest.mark.parametrize(("state_dtype", "key"), [*ENTRIES, ("u4+v4", "packed_shape")])
def test_a_missing_entry_is_named(state_dtype: str, key: str) -> None:
    optimizer = trained(state_dtype, **options_for(key))
    saved = copy.deepcopy(optimizer.state_dict())
    del saved["state"][0][key]
    with refused(optimizer, ValueError, "'body'", f"no {key!r}", optimizer.tiers()[0].rung):
        optimizer.load_state_dict(saved)


@pytest.mark.parametrize(("state_dtype", "key"), ENTRIES)
def test_what_is_no_tensor_is_named(state_dtype: str, key: str) -> None:
    optimizer = trained(state_dtype, **options_for(key))
    saved = copy.deepcopy(optimizer.state_dict())
    saved["state"][0][key] = 3.5
    with refused(optimizer, ValueError, "'body'", f"{key} 3.5", "a tensor"):
        optimizer.load_state_dict(saved)


def test_rows_and_columns_of_what_is_no_matrix_are_refused() -> None:
    """State of a matrix for a parameter that cannot be seen as one: it says of which shape it is;
    and if it did not, it would be refused all the same."""
    optimizer = trained("u4+factored")
    saved = copy.deepcopy(optimizer.state_dict())
    saved["state"][1] = copy.deepcopy(saved["state"][0])
    with refused(optimizer, ValueError, "'head'", "shape (40, 129)", "(511,)"):
        optimizer.load_state_dict(saved)
    saved["state"][1]["packed_shape"] = torch.tensor([511])
    with refused(optimizer, ValueError, "'head'", "factored", "a matrix"):
        optimizer.load_state_dict(saved)


@pytest.mark.parametrize("rung", ["tier2:u4+fp32", "tier2:v4+v4", "tier2:u4", "tier2:u4+v4+slower"])
def test_codecs_that_are_not_compiled_are_refused(rung: str) -> None:
    optimizer = trained("u4+v4")
    saved = copy.deepcopy(optimizer.state_dict())
    state = saved["state"][1]
    del state[marker(rung_of(state))]
    state[f"rung:{rung}"] = STATE_FORMAT
    with refused(optimizer, ValueError, "'head'", repr(rung)):
        optimizer.load_state_dict(saved)


ORDERS = [
    *(torch.tensor(order) for order in ((0, 0), (0, 1, 2), (5, 1), (1, 0, 1), (-1, 0), ())),
    torch.tensor([1.0, 0.0]), torch.tensor(7), torch.tensor([[1, 0]]), ("a", "b"), 7, (1, 0), None,
]  # fmt: skip


@pytest.mark.parametrize("order", ORDERS, ids=repr)
def test_an_order_of_dimensions_that_is_none_is_refused(order: object) -> None:
    """How a packed state was walked when it was made."""
    optimizer = trained("u4+v4")
    saved = copy.deepcopy(optimizer.state_dict())
    saved["state"][0]["packed_order"] = order
    with refused(optimizer, ValueError, "'body'", "packed_order"):
        optimizer.load_state_dict(saved)


SIZES = [
    torch.tensor([40.0, 129.0]), torch.tensor([40, 129], dtype=torch.int32),
    torch.tensor([[40, 129]]), torch.tensor(5160), (40, 129), 7, None,
]  # fmt: skip


@pytest.mark.parametrize("shape", SIZES, ids=repr)
def test_a_shape_that_is_none_is_refused(shape: object) -> None:
    """Of which the packed state was made."""
    optimizer = trained("u4+v4")
    saved = copy.deepcopy(optimizer.state_dict())
    saved["state"][0]["packed_shape"] = shape
    with refused(optimizer, ValueError, "'body'", "packed_shape"):
        optimizer.load_state_dict(saved)


@pytest.mark.parametrize("shape", [(129, 40), (5160,), (40, 129, 1), (41, 129)])
def test_a_state_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    """Even of as many elements."""
    optimizer = trained("u4+v4")
    saved = copy.deepcopy(optimizer.state_dict())
    saved["state"][0]["packed_shape"] = torch.tensor(shape)
    with refused(optimizer, ValueError, "'body'", f"shape {shape}", "(40, 129)"):
        optimizer.load_state_dict(saved)


@pytest.mark.parametrize("state_dtype", ["u4+v4", "u4+factored", "q8+q8"])
def test_a_parameter_of_another_size_is_refused(state_dtype: str) -> None:
    optimizer = trained(state_dtype)
    body = optimizer.param_groups[0]["params"][0]
    body.data = torch.zeros(41, 129)
    body.grad = torch.zeros(41, 129)
    found = ("'body'", "shape (40, 129)", "does not fit", "(41, 129)")
    with refused(optimizer, ValueError, *found):
        optimizer.step()
    with refused(optimizer, ValueError, *found):
        optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
