"""Dropout and fills from a counter: the numbers that are written down, with the right shares."""

from __future__ import annotations

import math
from statistics import NormalDist

import pytest
import torch
from torch import Tensor

from cosmic import _core
from exact_calls import DTYPES, Core, assert_close, numbers
from reference import exact_rows as reference

KEYS = (0, 1, 0x123456789ABCDEF0, 2**64 - 1)
keys = pytest.mark.parametrize("key", KEYS)


@keys
def test_numbers_are_those_that_are_written_down(key: int) -> None:
    count, ones = 200, torch.ones(200, dtype=torch.float64)
    kept = Core().dropout(ones, 0.25, key)
    expected = [reference.keeps(key, index, 0.25) / 0.75 for index in range(count)]
    assert_close(kept, expected)
    drawn = Core().uniform(ones, -1, 3, key)
    assert drawn.tolist() == [reference.uniform(key, index, -1, 3) for index in range(count)]
    assert_close(
        Core().normal(ones, 0.5, 2, key),
        [reference.normal(key, index, 0.5, 2) for index in range(count)],
        ulps=64,  # libm's angle is rounded
    )


def test_floats_take_the_same_numbers_as_doubles() -> None:
    x = numbers(1000)
    single = Core().dropout(x.float(), 0.5, 7)
    assert torch.equal(single == 0, Core().dropout(x, 0.5, 7) == 0)
    for fill in (Core().uniform, Core().normal):
        assert torch.equal(fill(x.float(), 0, 1, 7), fill(x, 0, 1, 7).float())


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.999])
@pytest.mark.parametrize("dtype", DTYPES)
def test_dropout_keeps_its_share_and_scales_it(p: float, dtype: torch.dtype) -> None:
    count = 200_000
    x = numbers(count, dtype=dtype) + 10
    found = Core().dropout(x, p, 42)
    kept = found != 0
    sigma = math.sqrt(p * (1 - p) / count)
    assert abs(float(kept.double().mean()) - (1 - p)) <= 4 * sigma
    assert torch.equal(found[kept], (x * torch.tensor(1 / (1 - p), dtype=dtype))[kept])


def test_neighbours_and_keys_are_independent() -> None:
    """Counts of pairs of kept elements, some apart, of one key, and of two."""
    count = 400_000
    masks = [Core().dropout(torch.ones(count), 0.5, key) != 0 for key in (1, 2, 3, 2**32 + 1)]
    pairs: list[tuple[Tensor, Tensor]] = [
        (masks[0][apart:], masks[0][:-apart]) for apart in (1, 2, 16, 128, 1024)
    ]
    pairs += [(masks[0], mask) for mask in masks[1:]]
    for one, other in pairs:
        both = float((one & other).double().mean())
        assert abs(both - 0.25) <= 5 * math.sqrt(0.25 * 0.75 / count)


def test_dropped_elements_are_zero_whatever_they_were() -> None:
    x = torch.full((1000,), math.nan)
    x[::2] = math.inf
    found = Core().dropout(x, 0.5, 3)
    dropped = Core().dropout(torch.ones(1000), 0.5, 3) == 0
    assert not found[dropped].any()
    assert not found[~dropped].isfinite().any()


@keys
def test_fills_have_the_right_distribution(key: int) -> None:
    count = 200_000
    drawn = Core().uniform(torch.empty(count, dtype=torch.float64), 0, 1, key)
    assert float(drawn.min()) >= 0 and float(drawn.max()) < 1
    law = NormalDist()
    bell = Core().normal(torch.empty(count, dtype=torch.float64), 0, 1, key)
    shares = torch.tensor([law.cdf(x) for x in bell[:20000].tolist()], dtype=torch.float64)
    for uniform in (drawn, shares):  # Kolmogorov and Smirnov, at a level of 1e-5
        ordered = uniform.sort().values
        steps = torch.arange(1, len(ordered) + 1, dtype=torch.float64) / len(ordered)
        assert float((ordered - steps).abs().max()) <= 2.5 / math.sqrt(len(ordered))
    assert abs(float(bell.mean())) <= 5 / math.sqrt(count)
    assert abs(float(bell.var()) - 1) <= 5 * math.sqrt(2 / count)


def test_bad_fills_are_refused() -> None:
    x = torch.ones(3)
    for p in (-0.1, 1.0, math.nan):
        with pytest.raises(ValueError, match=r"p must lie in \[0, 1\)"):
            Core().dropout(x, p, 0)
    with pytest.raises(ValueError, match="low must be at most high"):
        Core().uniform(x, 1, 0, 0)
    with pytest.raises(ValueError, match="std at least 0"):
        Core().normal(x, 0, -1, 0)
    with pytest.raises(TypeError):
        _core.exact_dropout(x, x, 0.5, 2**64, 1)
