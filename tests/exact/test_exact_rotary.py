"""Rotary tables: frequencies, and cosine and sine of large angles."""

from __future__ import annotations

import math

import pytest
import torch

from cosmic import _core
from exact_calls import DTYPES, Core, assert_close


@pytest.mark.parametrize("base", [10000.0, 500000.0, 2.0])
@pytest.mark.parametrize("count", [1, 16, 32, 65])
def test_inverse_frequencies(base: float, count: int) -> None:
    found = Core().inverse_frequencies(base, count).tolist()
    for k, frequency in enumerate(found):
        assert math.isclose(frequency, base ** (-k / count), rel_tol=1e-14)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("half", [1, 16, 33])
def test_tables_hold_cosine_and_sine_twice(half: int, dtype: torch.dtype) -> None:
    positions = torch.tensor([0, 1, -3, 1000, 131071, 2**24])
    frequencies = Core().inverse_frequencies(10000.0, half)
    cos, sin = Core().rotary(positions, frequencies, 0.8, dtype)
    for row, position in enumerate(positions.tolist()):
        angles = [position * frequency for frequency in frequencies.tolist()] * 2
        assert_close(cos[row], [0.8 * math.cos(angle) for angle in angles])
        assert_close(sin[row], [0.8 * math.sin(angle) for angle in angles])


def test_every_quadrant_up_to_two_to_the_24() -> None:
    positions = torch.cat([torch.arange(1000), torch.arange(2**24 - 1000, 2**24)])
    cos, sin = Core().rotary(positions, torch.ones(1, dtype=torch.float64), 1.0, torch.float64)
    assert_close(cos[:, 0], [math.cos(position) for position in positions.tolist()])
    assert_close(sin[:, 0], [math.sin(position) for position in positions.tolist()])


def test_angles_that_would_lose_digits_are_refused() -> None:
    ones = torch.ones(1, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"positions times inverse_frequencies must lie within 2"):
        Core().rotary(torch.tensor([2**24 + 1]), ones, 1.0, torch.float32)
    with pytest.raises(ValueError, match="inverse_frequencies must be finite"):
        Core().rotary(torch.tensor([1]), ones * math.nan, 1.0, torch.float32)
    with pytest.raises(ValueError, match="base must be positive and finite"):
        Core().inverse_frequencies(0.0, 4)
    with pytest.raises(TypeError, match="positions must be contiguous and int64"):
        Core().rotary(torch.tensor([1.0]), ones, 1.0, torch.float32)
    with pytest.raises(ValueError, match="cos must have two columns for each inverse frequency"):
        _core.exact_rotary_tables(
            torch.tensor([1]), ones, 1.0, torch.empty(1, 3), torch.empty(1, 3), 1
        )
