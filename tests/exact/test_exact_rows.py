"""Softmax, norms, cross-entropy, sums and the embedding's gradient against their formulas."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cosmic import _core
from exact_calls import COLUMNS, DTYPES, Core, assert_close, numbers
from reference import exact_rows as reference

dtypes = pytest.mark.parametrize("dtype", DTYPES)
columns_at_edges = pytest.mark.parametrize("columns", COLUMNS)


def flat(rows: list[list[float]]) -> list[float]:
    return [number for row in rows for number in row]


# ---- softmax ---------------------------------------------------------------------------------


@dtypes
@columns_at_edges
@pytest.mark.parametrize("causal", [False, True])
def test_softmax(columns: int, causal: bool, dtype: torch.dtype) -> None:
    rows, scale = 3, 0.7
    x = 4 * numbers(2, rows, columns, dtype=dtype)
    found = Core().softmax(x, scale, causal)
    for matrix, result in zip(x.tolist(), found, strict=True):
        seen = [max(0, columns - rows + r + 1) if causal else columns for r in range(rows)]
        expected = [
            reference.softmax(row, scale, many) for row, many in zip(matrix, seen, strict=True)
        ]
        assert_close(result, flat(expected), ulps=8)


@dtypes
@columns_at_edges
def test_softmax_backward(columns: int, dtype: torch.dtype) -> None:
    y = Core().softmax(numbers(1, 3, columns, dtype=dtype))
    grad = numbers(1, 3, columns, dtype=dtype, seed=1)
    expected = [
        reference.softmax_backward(row, g, 0.7)
        for row, g in zip(y[0].tolist(), grad[0].tolist(), strict=True)
    ]
    assert_close(Core().softmax_backward(y, grad, 0.7), flat(expected))


@dtypes
def test_softmax_does_not_overflow_and_keeps_small_shares(dtype: torch.dtype) -> None:
    x = torch.tensor([[[3e30, 3e30, -3e30], [1000.0, 950.0, 0.0]]], dtype=dtype)
    found = Core().softmax(x)
    assert found[0, 0].tolist() == [0.5, 0.5, 0.0]
    assert math.isclose(found[0, 1, 1].item(), math.exp(-50), rel_tol=1e-6)


def test_a_row_that_sees_nothing_is_zero() -> None:
    x = torch.full((1, 2, 40), -math.inf)
    x[0, 1, 7] = -3
    found = Core().softmax(x)
    assert not found[0, 0].any()
    assert found[0, 1].nonzero().tolist() == [[7]]
    assert found[0, 1, 7] == 1


def test_more_rows_than_columns_leave_the_first_rows_nothing() -> None:
    found = Core().softmax(torch.ones(1, 4, 2), causal=True)
    assert found.tolist() == [[[0, 0], [0, 0], [1, 0], [0.5, 0.5]]]


@pytest.mark.parametrize("spoiler", [math.nan, math.inf])
def test_nan_and_infinity_spoil_their_row_alone(spoiler: float) -> None:
    x = numbers(1, 3, 37, dtype=torch.float32)
    before = Core().softmax(x)
    x[0, 1, 20] = spoiler
    after = Core().softmax(x)
    assert bool(after[0, 1].isnan().all())
    assert torch.equal(after[0, ::2], before[0, ::2])


def test_what_a_causal_row_does_not_see_does_not_matter() -> None:
    x = numbers(1, 5, 33, dtype=torch.float32)
    before = Core().softmax(x, causal=True)
    x[0, :4, 32] = math.nan
    assert torch.equal(Core().softmax(x, causal=True), before)


def test_a_row_of_nan_and_minus_infinity_is_nan() -> None:
    x = torch.full((1, 1, 20), -math.inf)
    x[0, 0, 18] = math.nan
    assert bool(Core().softmax(x).isnan().all())


@settings(max_examples=40)
@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=70), st.floats(0.01, 10))
def test_shares_of_any_row(row: list[float], scale: float) -> None:
    found = Core(1).softmax(torch.tensor([[row]]), scale)
    single = float(torch.tensor(scale))  # the core rounds it to the dtype
    assert_close(found, reference.softmax(row, single, len(row)), ulps=16)


# ---- norms -----------------------------------------------------------------------------------


@dtypes
@columns_at_edges
@pytest.mark.parametrize("affine", [False, True])
def test_layer_norm(columns: int, affine: bool, dtype: torch.dtype) -> None:
    x = 3 * numbers(3, columns, dtype=dtype) + 2
    weight, bias = numbers(columns, dtype=dtype, seed=1), numbers(columns, dtype=dtype, seed=2)
    grad = numbers(3, columns, dtype=dtype, seed=3)
    of_row = [1.0] * columns, [0.0] * columns
    if affine:
        of_row = weight.tolist(), bias.tolist()
    y, mean, rstd = Core().layer_norm(x, weight if affine else None, bias if affine else None)
    expected = [reference.normalize(row, *of_row, 1e-5, centered=True) for row in x.tolist()]
    assert_close(mean, [row.mean for row in expected])
    assert_close(rstd, [row.rstd for row in expected])
    assert_close(y, flat([row.y for row in expected]))

    back = Core().layer_norm_backward(x, weight if affine else None, mean, rstd, grad)
    saved = list(zip(x.tolist(), mean.tolist(), rstd.tolist(), grad.tolist(), strict=True))
    dx = [reference.normalize_backward(row, of_row[0], m, r, g, True) for row, m, r, g in saved]
    height = [reference.heights(row, m, r) for row, m, r, _ in saved]
    assert_scaled(back[0], flat(dx), float(rstd.max()))
    products = [
        [a * b for a, b in zip(h, g, strict=True)]
        for h, g in zip(height, grad.tolist(), strict=True)
    ]
    assert_close(back[1], reference.column_sums(products))
    assert_close(back[2], reference.column_sums(grad.tolist()))


def assert_scaled(actual: Tensor, expected: list[float], scale: float) -> None:
    """As close as numbers of this size are: all of one column differ by nothing but rounding, and
    are multiplied by 1 / sqrt(eps)."""
    assert_close(actual / max(scale, 1), [number / max(scale, 1) for number in expected], ulps=8)


@dtypes
@columns_at_edges
def test_rms_norm(columns: int, dtype: torch.dtype) -> None:
    x, weight = numbers(3, columns, dtype=dtype), numbers(columns, dtype=dtype, seed=1)
    grad, zeros = numbers(3, columns, dtype=dtype, seed=3), [0.0] * columns
    y, rstd = Core().rms_norm(x, weight)
    expected = [
        reference.normalize(row, weight.tolist(), zeros, 1e-5, centered=False) for row in x.tolist()
    ]
    assert_close(rstd, [row.rstd for row in expected])
    assert_close(y, flat([row.y for row in expected]))
    dx, dweight = Core().rms_norm_backward(x, weight, rstd, grad)
    saved = list(zip(x.tolist(), rstd.tolist(), grad.tolist(), strict=True))
    back = [
        reference.normalize_backward(row, weight.tolist(), 0.0, r, g, False) for row, r, g in saved
    ]
    assert_scaled(dx, flat(back), float(rstd.max()))
    products = [[number * r * a for number, a in zip(row, g, strict=True)] for row, r, g in saved]
    assert_close(dweight, reference.column_sums(products))


def test_a_large_mean_takes_no_digits() -> None:
    x = numbers(2, 300, dtype=torch.float32) + 1000
    y, _, _ = Core().layer_norm(x, None, None)
    ones, zeros = [1.0] * 300, [0.0] * 300
    expected = [reference.normalize(row, ones, zeros, 1e-5, True).y for row in x.tolist()]
    assert_close(y, flat(expected))


def test_only_the_gradients_that_are_asked_for_are_written() -> None:
    x, grad = numbers(5, 20), numbers(5, 20, seed=1)
    _, mean, rstd = Core().layer_norm(x, None, None)
    everything = Core().layer_norm_backward(x, None, mean, rstd, grad)
    for wanted in range(3):
        room: list[Tensor | None] = [None, None, None]
        room[wanted] = torch.empty_like(everything[wanted])
        dx, dweight, dbias = room
        _core.exact_layer_norm_backward(x, None, mean, rstd, grad, dx, dweight, dbias, 1)
        found = room[wanted]
        assert found is not None and torch.equal(found, everything[wanted])


# ---- sums ------------------------------------------------------------------------------------


@dtypes
@pytest.mark.parametrize("rows", [0, 1, 63, 64, 65, 300])
def test_column_sums_of_floats_are_rounded_once(rows: int, dtype: torch.dtype) -> None:
    x = numbers(rows, 35, dtype=dtype)
    found = Core().column_sums(x)
    expected = [math.fsum(column) for column in x.T.tolist()]
    if dtype == torch.float32:  # sums in double of so few are exact
        assert found.tolist() == torch.tensor(expected).tolist()
    assert_close(found, expected)


@dtypes
@pytest.mark.parametrize("count", [0, 1, 17, 16384, 40000])
def test_sum(count: int, dtype: torch.dtype) -> None:
    x = numbers(count, dtype=dtype)
    found = Core().sum(x).item()
    assert math.isclose(found, math.fsum(x.tolist()), rel_tol=1e-7, abs_tol=1e-12)


# ---- cross-entropy ---------------------------------------------------------------------------


@dtypes
@columns_at_edges
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_cross_entropy(columns: int, smoothing: float, dtype: torch.dtype) -> None:
    logits = 2 * numbers(4, columns, dtype=dtype)
    targets = torch.tensor([0, columns - 1, -100, columns // 2])
    losses, lse = Core().cross_entropy(logits, targets, smoothing=smoothing)
    row_grad = numbers(4, dtype=dtype, seed=1)
    back = Core().cross_entropy_backward(logits, lse, targets, row_grad, smoothing=smoothing)
    assert losses[2] == 0 and not back[2].any()
    for row in (0, 1, 3):
        target = int(targets[row])
        expected = reference.cross_entropy(logits[row].tolist(), target, smoothing)
        assert_close(lse[row], [expected.lse])
        assert_close(losses[row], [expected.loss])
        grad = row_grad[row].item()
        slopes = reference.cross_entropy_backward(
            logits[row].tolist(), lse[row].item(), target, smoothing, grad
        )
        assert_close(back[row], slopes)


def test_large_logits_do_not_overflow() -> None:
    logits = torch.tensor([[5e4, 4.9e4, -3e38], [-5e4, -5.1e4, -5e4]])
    losses, _ = Core().cross_entropy(logits, torch.tensor([1, 0]))
    assert_close(losses, [1e3, math.log(2)])


def test_an_ignored_row_with_nan_has_loss_and_gradient_zero() -> None:
    logits = torch.full((1, 20), math.nan)
    losses, lse = Core().cross_entropy(logits, torch.tensor([-1]), ignore_index=-1)
    back = Core().cross_entropy_backward(
        logits, lse, torch.tensor([-1]), torch.ones(1), ignore_index=-1
    )
    assert losses.tolist() == [0] and not back.any()


def test_a_target_that_is_no_class_is_refused() -> None:
    for wrong in (5, -1):
        with pytest.raises(IndexError, match=f"target {wrong} of row 1 is none of 5 classes"):
            Core().cross_entropy(numbers(2, 5), torch.tensor([0, wrong]))


# ---- embedding -------------------------------------------------------------------------------


@dtypes
@columns_at_edges
def test_the_embeddings_gradient_adds_up_each_rows_positions(
    columns: int, dtype: torch.dtype
) -> None:
    indices = torch.tensor([3, 0, 3, 6, 3, 5, 0])
    grad = numbers(7, columns, dtype=dtype)
    found = Core().embedding_backward(indices, grad, vocabulary=8, padding=5)
    positions = {0: [1, 6], 3: [0, 2, 4], 6: [3]}
    for index in range(8):
        rows = [grad[position].tolist() for position in positions.get(index, [])]
        expected = reference.column_sums(rows) if rows else [0.0] * columns
        assert_close(found[index], expected)


def test_an_index_outside_of_the_table_is_refused() -> None:
    for wrong in (-1, 4):
        with pytest.raises(IndexError, match=f"index {wrong} at position 2 is outside of a table"):
            Core().embedding_backward(torch.tensor([0, 3, wrong]), numbers(3, 5), vocabulary=4)


# ---- what is refused -------------------------------------------------------------------------


def test_bad_rows_are_refused() -> None:
    x = numbers(1, 3, 4, dtype=torch.float32)
    for scale in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="scale must be positive and finite"):
            Core().softmax(x, scale)
    with pytest.raises(ValueError, match=r"x must be \[matrices, rows, columns\]"):
        Core().softmax(x[0])
    with pytest.raises(ValueError, match="weight must have 4 elements and has 3"):
        Core().layer_norm(x[0], torch.ones(3), None)
    with pytest.raises(ValueError, match="x must have two dimensions"):
        Core().rms_norm(x, None)
    with pytest.raises(TypeError, match="targets must be contiguous and int64"):
        Core().cross_entropy(x[0], torch.zeros(3))
    with pytest.raises(ValueError, match="targets must have 3 elements and has 2"):
        Core().cross_entropy(x[0], torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"label_smoothing must lie in \[0, 1\]"):
        Core().cross_entropy(x[0], torch.zeros(3, dtype=torch.int64), smoothing=1.5)
    with pytest.raises(ValueError, match="out must have the dtype and the columns of grad"):
        _core.exact_embedding_backward(
            torch.zeros(3, dtype=torch.int64), x[0], -1, torch.empty(5, 3), 1
        )
