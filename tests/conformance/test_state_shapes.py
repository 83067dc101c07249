"""Packed state knows its shape: a parameter of another is refused, however many blocks it has."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cosmic import Cosmic
from cosmic.rungs import Rung, combinations
from helpers import digest, normal, parameter, refused, same_bits, take_steps
from optimizers import ROWS, Row, each

#: As many blocks each: of elements in all, or of elements at all.
PAIRS = [((5000, 3), (4999, 3)), ((64, 65), (65, 64)), ((4096,), (64, 64)), ((2, 48, 50), (96, 50))]


def trained(shape: tuple[int, ...], state_dtype: str, **options: Any) -> Cosmic:
    options = {"min_compress_size": 0, "state_dtype": state_dtype, **options}
    optimizer = Cosmic([("w", parameter(0, *shape))], **options)
    take_steps(optimizer, 0, 2)
    return optimizer


@pytest.mark.parametrize("state_dtype", [f"{m}+{v}" for m, v in combinations()])
@pytest.mark.parametrize(("saved", "loading"), PAIRS)
def test_another_shape_is_refused_at_load_by_both_shapes(
    state_dtype: str, saved: tuple[int, ...], loading: tuple[int, ...]
) -> None:
    checkpoint = trained(saved, state_dtype).state_dict()
    optimizer = trained(loading, state_dtype)
    with refused(optimizer, ValueError, "'w'", str(saved), str(loading)):
        optimizer.load_state_dict(copy.deepcopy(checkpoint))


@pytest.mark.parametrize("state_dtype", [f"{m}+{v}" for m, v in combinations()])
@pytest.mark.parametrize(("before", "after"), PAIRS)
def test_another_shape_is_refused_when_data_is_exchanged(
    state_dtype: str, before: tuple[int, ...], after: tuple[int, ...]
) -> None:
    optimizer = trained(before, state_dtype)
    w = optimizer.param_groups[0]["params"][0]
    w.grad = None
    w.data = normal(3, *after)
    w.grad = normal(4, *after)
    kept = w.detach().clone()
    with pytest.raises(ValueError, match="'w'") as caught:
        optimizer.step()
    assert str(before) in str(caught.value) and str(after) in str(caught.value)
    assert same_bits(w, kept)
    optimizer.reset(w)
    optimizer.step()
    assert int(optimizer.state[w]["step"]) == 1 and not same_bits(w, kept)


def laid_out(layout: str, shape: tuple[int, ...] = (8, 6, 5, 7)) -> Tensor:
    value = normal(0, *shape)
    if layout == "channels_last":
        return value.contiguous(memory_format=torch.channels_last)
    if layout == "reversed":
        return value.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)
    return value


@pytest.mark.parametrize("state_dtype", ["u4+v4", "u4+factored", "q8"])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "reversed"])
def test_shape_and_order_are_tensors_and_part_of_the_price(state_dtype: str, layout: str) -> None:
    w = nn.Parameter(laid_out(layout))
    optimizer = Cosmic([w], state_dtype=state_dtype, min_compress_size=0)
    take_steps(optimizer, 0, 1)
    state = optimizer.state[w]
    assert state["packed_shape"].tolist() == [8, 6, 5, 7]
    orders = {"channels_last": [0, 2, 3, 1], "reversed": [3, 2, 1, 0]}
    if layout in orders:
        assert state["packed_order"].tolist() == orders[layout]
    else:
        assert "packed_order" not in state
    assert optimizer.state_bytes() == sum(t.nbytes for t in state.values() if isinstance(t, Tensor))
    assert optimizer.state_bytes() == optimizer.tiers()[0].nbytes


@pytest.mark.parametrize("saved", ["contiguous", "channels_last", "reversed"])
@pytest.mark.parametrize("loading", ["contiguous", "channels_last", "reversed"])
def test_another_order_is_followed(saved: str, loading: str) -> None:
    a, b = nn.Parameter(laid_out(saved)), nn.Parameter(laid_out(loading))
    optimizer, twin = (
        Cosmic([p], state_dtype="bf16+factored", min_compress_size=0) for p in (a, b)
    )
    take_steps(optimizer, 0, 2)
    twin.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    mine, theirs = twin.moments(b), optimizer.moments(a)
    assert mine.exp_avg is not None and theirs.exp_avg is not None
    assert (mine.exp_avg - theirs.exp_avg).norm() <= 4e-3 * theirs.exp_avg.norm()


def test_a_complex_parameters_shape_is_its_real_views() -> None:
    w = parameter(0, 40, 30, dtype=torch.complex64)
    optimizer = Cosmic([w], state_dtype="u4+v4", min_compress_size=0)
    take_steps(optimizer, 0, 1)
    assert optimizer.state[w]["packed_shape"].tolist() == [40, 30, 2]


@each
def test_every_packed_state_has_its_shape_and_no_other(row: Row) -> None:
    optimizer = row.make([parameter(0, 64, 65), parameter(1, 5)])
    take_steps(optimizer, 0, 2)
    for p in optimizer.param_groups[0]["params"]:
        state = optimizer.state[p]
        rung = next(Rung.parse(k.removeprefix("rung:")) for k in state if k.startswith("rung:"))
        assert ("packed_shape" in state) == rung.packed
    assert digest(copy.deepcopy(optimizer)) == digest(optimizer)


def test_the_table_has_packed_states() -> None:
    assert len(ROWS) > 10
