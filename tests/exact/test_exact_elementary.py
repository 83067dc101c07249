"""Functions of elements: close to the true value over all of their range, at its ends, and near
zero relative to their own size."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from cosmic import _core
from exact_calls import COLUMNS, DTYPES, ISAS, MAPS, THREADS, Core, assert_close, numbers
from reference.exact_rows import FUNCTIONS

maps = pytest.mark.parametrize("op", MAPS)
dtypes = pytest.mark.parametrize("dtype", DTYPES)


def usual(op: str, dtype: torch.dtype) -> Tensor:
    """Of both signs and all sizes that the function does not overflow at."""
    x = torch.cat([numbers(300), 8 * numbers(300, seed=1), 1e-5 * numbers(60, seed=2)]).to(dtype)
    return x.abs() if op == "log" else x


@maps
@dtypes
def test_values_and_gradients_are_close_to_the_truth(op: str, dtype: torch.dtype) -> None:
    x, grad = usual(op, dtype), numbers(660, dtype=dtype, seed=3)
    value, slope = FUNCTIONS[op]
    assert_close(Core().map(op, x), [value(number) for number in x.tolist()])
    expected = [slope(number) * g for number, g in zip(x.tolist(), grad.tolist(), strict=True)]
    assert_close(Core().map_backward(op, x, grad), expected)


@pytest.mark.parametrize("op", ["exp", "tanh", "erf", "sigmoid", "log"])
@dtypes
def test_small_results_are_close_relative_to_their_size(op: str, dtype: torch.dtype) -> None:
    x = torch.cat([numbers(400), 1e-3 * numbers(400, seed=1), 1e-20 * numbers(400, seed=2)])
    if op in ("exp", "sigmoid"):
        x = -x.abs() * 20
    if op == "log":
        x = x.exp()
    x = x.to(dtype)
    found = Core().map(op, x).tolist()
    expected = [FUNCTIONS[op].value(number) for number in x.tolist()]
    eps = torch.finfo(dtype).eps
    worst = max(abs(a - b) / abs(b) for a, b in zip(found, expected, strict=True) if b)
    assert worst <= 3 * eps


@dtypes
def test_the_normal_share_keeps_its_digits_far_below(dtype: torch.dtype) -> None:
    x = -torch.linspace(1, 12, 300, dtype=dtype)
    for at, found in zip(x.tolist(), Core().map("gelu", x).tolist(), strict=True):
        wanted = FUNCTIONS["gelu"].value(at)
        ulps = 8 if dtype == torch.float32 else 8 + at * at  # erfc's own argument is rounded
        assert abs(found - wanted) <= ulps * torch.finfo(dtype).eps * abs(wanted)


#: at -infinity, -0, 0 and infinity
INF = math.inf
ENDS = {
    "exp": [0.0, 1.0, 1.0, INF],
    "log": [math.nan, -INF, -INF, INF],
    "tanh": [-1.0, -0.0, 0.0, 1.0],
    "erf": [-1.0, -0.0, 0.0, 1.0],
    "sigmoid": [0.0, 0.5, 0.5, 1.0],
    "gelu": [-0.0, -0.0, 0.0, INF],
    "gelu_tanh": [-0.0, -0.0, 0.0, INF],
    "silu": [-0.0, -0.0, 0.0, INF],
}
SLOPES_AT_ENDS = {
    "exp": [0.0, 1.0, 1.0, INF],
    "log": [-0.0, -INF, INF, 0.0],
    "tanh": [0.0, 1.0, 1.0, 0.0],
    "erf": [0.0, 2 / math.sqrt(math.pi), 2 / math.sqrt(math.pi), 0.0],
    "sigmoid": [0.0, 0.25, 0.25, 0.0],
    "gelu": [0.0, 0.5, 0.5, 1.0],
    "gelu_tanh": [0.0, 0.5, 0.5, 1.0],
    "silu": [0.0, 0.5, 0.5, 1.0],
}


@maps
@dtypes
def test_infinities_and_zeros_give_the_limits(op: str, dtype: torch.dtype) -> None:
    x = torch.tensor([-INF, -0.0, 0.0, INF], dtype=dtype)
    found = Core().map(op, x)
    expected = torch.tensor(ENDS[op], dtype=dtype)
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(found.signbit()[1:], expected.signbit()[1:])
    slopes = Core().map_backward(op, x, torch.ones_like(x))
    eps = torch.finfo(dtype).eps
    wanted = torch.tensor(SLOPES_AT_ENDS[op], dtype=dtype)
    torch.testing.assert_close(slopes, wanted, rtol=2 * eps, atol=0)


@maps
@dtypes
def test_a_nan_stays_one_and_its_neighbours_their_values(op: str, dtype: torch.dtype) -> None:
    x = usual(op, dtype)[:40].clone()
    before, back = Core().map(op, x), Core().map_backward(op, x, torch.ones_like(x))
    x[21] = math.nan
    for after, other in (
        (Core().map(op, x), before),
        (Core().map_backward(op, x, torch.ones_like(x)), back),
    ):
        assert after.isnan().nonzero().tolist() == [[21]]
        assert torch.equal(after[:21], other[:21]) and torch.equal(after[22:], other[22:])


@dtypes
def test_exp_overflows_and_underflows_where_numbers_end(dtype: torch.dtype) -> None:
    info = torch.finfo(dtype)
    largest, denormal = math.log(info.max), math.log(info.tiny) - 5
    x = torch.tensor([largest * (1 - 1e-6), largest * (1 + 1e-6), denormal, -800.0], dtype=dtype)
    found = Core().map("exp", x).tolist()
    assert math.isfinite(found[0]) and found[0] > 0.9 * info.max * math.exp(-1e-3)
    assert found[1] == math.inf
    assert 0 < found[2] < info.tiny
    assert math.isclose(found[2], math.exp(x[2].item()), rel_tol=1e-4)
    assert found[3] == 0


@dtypes
def test_log_of_denormals_and_of_negative_numbers(dtype: torch.dtype) -> None:
    tiny = torch.finfo(dtype).tiny
    x = torch.tensor([tiny, tiny / 8, tiny / 2**20, -tiny, -1.0], dtype=dtype)
    found = Core().map("log", x)
    assert_close(found[:3], [math.log(number) for number in x[:3].tolist()])
    assert bool(found[3:].isnan().all())


def both_ways(core: Core, op: str, x: Tensor) -> Tensor:
    """Values, and what a gradient of 3/4 becomes."""
    return torch.stack([core.map(op, x), core.map_backward(op, x, torch.full_like(x, 0.75))])


def assert_same(found: Tensor, expected: Tensor) -> None:
    assert torch.equal(found.isnan(), expected.isnan())
    assert torch.equal(found.nan_to_num(1.5), expected.nan_to_num(1.5))


@maps
@dtypes
def test_bits_do_not_depend_on_isa_or_position(op: str, dtype: torch.dtype) -> None:
    """Over floats of all exponents and both signs, each in another lane, at another row's end."""
    patterns = torch.arange(-(2**31), 2**31, 1_000_003, dtype=torch.int64).to(torch.int32)
    x = patterns.view(torch.float32).to(dtype)
    expected = both_ways(Core(1, ISAS[-1]), op, x)
    for isa in ISAS:
        assert_same(both_ways(Core(2, isa), op, x), expected)
        for count in COLUMNS:
            found = both_ways(Core(1, isa), op, x[1005 : 1005 + count].clone())
            assert_same(found, expected[:, 1005 : 1005 + count])


@maps
@dtypes
def test_threads_change_no_bit(op: str, dtype: torch.dtype) -> None:
    x = usual(op, dtype).repeat(60)
    assert x.numel() > 2 * 16384  # pieces
    results = [Core(threads).map(op, x) for threads in THREADS]
    assert all(torch.equal(result, results[0]) for result in results)


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_every_float_has_the_symmetry_of_its_function(number: float) -> None:
    both = torch.tensor([number, -number])
    for op in ("tanh", "erf"):
        one, other = Core(1).map(op, both).tolist()
        assert one == -other
    shares = Core(1).map("sigmoid", both)
    assert abs(float(shares.double().sum()) - 1) < 2e-7


def test_an_empty_tensor_has_empty_results() -> None:
    empty = torch.empty(0)
    assert Core().map("gelu", empty).numel() == 0
    assert Core().map_backward("gelu", empty, empty).numel() == 0


def test_bad_calls_are_refused() -> None:
    x = torch.ones(4)
    with pytest.raises(ValueError, match="op 'relu' is none of exp, log, tanh"):
        _core.exact_map("relu", x, torch.empty(4), 1)
    with pytest.raises(TypeError, match="x must be float32 or float64"):
        _core.exact_map("exp", x.half(), torch.empty(4), 1)
    with pytest.raises(TypeError, match="out must have the dtype of x"):
        _core.exact_map("exp", x, torch.empty(4, dtype=torch.float64), 1)
    with pytest.raises(ValueError, match="out must have 4 elements and has 5"):
        _core.exact_map("exp", x, torch.empty(5), 1)
    with pytest.raises(ValueError, match="x must be contiguous"):
        _core.exact_map("exp", torch.ones(4, 2)[:, 0], torch.empty(4), 1)
    with pytest.raises(ValueError, match="ISA 'mmx' is not available"):
        _core.exact_map("exp", x, torch.empty(4), 1, "mmx")
