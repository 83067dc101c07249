"""Products of matrices: the bits of a sum over k in order, whatever the ISA and the threads."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from cosmic import _core
from reference.product import mirrored, product

ISAS: list[str] = _core.build_info()["isa_available"]
THREADS = (1, 2, 3, 7)
SIZES = (1, 7, 127, 128, 129)


def by_columns(matrix: Tensor) -> Tensor:
    return matrix.T.contiguous().T


def within(matrix: Tensor) -> Tensor:
    """Rows with something between them."""
    room = torch.full((matrix.shape[0], matrix.shape[1] + 5), 7.0)
    room[:, 2:-3] = matrix
    return room[:, 2:-3]


def every_other(matrix: Tensor) -> Tensor:
    """No two neighbours in memory."""
    return torch.stack([matrix, matrix], dim=2)[:, :, 0]


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "rows": lambda matrix: matrix,
    "columns": by_columns,
    "within": within,
    "every other": every_other,
}


def numbers(*shape: int) -> Tensor:
    """Of many sizes, so that each rounding shows."""
    return torch.randn(*shape) * torch.randn(*shape).exp2()


def on_everything(call: Callable[[Tensor, int, str], None], rows: int, columns: int) -> Tensor:
    """What a product writes, the same from every ISA and number of threads, and nothing else."""
    results = []
    for isa in ISAS:
        for threads in THREADS:
            room = torch.full((rows + 2, columns + 3), 9.0)
            call(room[1:-1, 1:-2], threads, isa)
            results.append(room[1:-1, 1:-2].clone())
            room[1:-1, 1:-2] = 9
            assert bool((room == 9).all()), "wrote beside the matrix"
    assert all(torch.equal(result, results[0]) for result in results)
    return results[0]


@pytest.mark.parametrize("rows", SIZES)
@pytest.mark.parametrize("columns", SIZES)
@pytest.mark.parametrize("depth", [1, 7, 129])
def test_a_product_is_summed_in_order(rows: int, columns: int, depth: int) -> None:
    torch.manual_seed(0)
    a, b = numbers(rows, depth), numbers(depth, columns)
    found = on_everything(lambda to, n, isa: _core.matmul(a, b, to, n, isa), rows, columns)
    assert np.array_equal(found.numpy(), product(a.numpy(), b.numpy()))


@pytest.mark.parametrize("shape", [(50, 700, 20), (20, 700, 50), (400, 5, 9), (9, 5, 400)])
def test_a_long_sum_and_a_long_matrix(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(1)
    rows, depth, columns = shape
    a, b = numbers(rows, depth), numbers(depth, columns)
    found = on_everything(lambda to, n, isa: _core.matmul(a, b, to, n, isa), rows, columns)
    assert np.array_equal(found.numpy(), product(a.numpy(), b.numpy()))


@pytest.mark.parametrize("of_a", LAYOUTS)
@pytest.mark.parametrize("of_b", LAYOUTS)
def test_operands_lie_as_they_like(of_a: str, of_b: str) -> None:
    torch.manual_seed(2)
    a, b = numbers(70, 33), numbers(33, 75)
    left, right = LAYOUTS[of_a](a), LAYOUTS[of_b](b)
    found = on_everything(lambda to, n, isa: _core.matmul(left, right, to, n, isa), 70, 75)
    assert np.array_equal(found.numpy(), product(a.numpy(), b.numpy()))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("size", "depth"), [*((n, 33) for n in SIZES), (300, 9), (40, 700)])
def test_a_product_with_the_transposed(layout: str, size: int, depth: int) -> None:
    torch.manual_seed(3)
    x = LAYOUTS[layout](numbers(size, depth))
    found = on_everything(
        lambda to, n, isa: _core.symmetric_product(x, x.T, to, n, isa), size, size
    )
    assert np.array_equal(found.numpy(), product(x.numpy(), x.T.numpy()))


@pytest.mark.parametrize("size", SIZES)
def test_of_a_symmetric_product_the_lower_half_counts(size: int) -> None:
    """In floats the product of two symmetric matrices that commute is not quite symmetric."""
    torch.manual_seed(4)
    x = numbers(size, size)
    a = x + x.T
    b = a @ a
    b = (b + b.T) / 2
    found = on_everything(lambda to, n, isa: _core.symmetric_product(a, b, to, n, isa), size, size)
    assert np.array_equal(found.numpy(), mirrored(product(a.numpy(), b.numpy())))


def test_the_result_may_be_an_operand() -> None:
    torch.manual_seed(5)
    for threads in THREADS:
        for rows, columns in [(40, 300), (300, 40)]:
            x, wide = numbers(rows, columns), columns > rows
            square = numbers(40, 40)
            left, right = (square, x) if wide else (x, square)
            expected = product(left.numpy(), right.numpy())
            _core.matmul(left, right, x, threads)
            assert np.array_equal(x.numpy(), expected)


def test_numbers_that_are_not_finite_spoil_their_rows_only() -> None:
    a, b = torch.ones(20, 20), torch.ones(20, 40)
    a[3, 5], a[4, 6] = torch.inf, torch.nan
    out = torch.empty(20, 40)
    _core.matmul(a, b, out, 2)
    assert bool(out[3].isposinf().all()) and bool(out[4].isnan().all())
    assert bool((out[[0, 1, 2, *range(5, 20)]] == 20).all())


def test_what_cannot_be_multiplied_is_refused() -> None:
    a, b, out = torch.ones(3, 4), torch.ones(4, 5), torch.ones(3, 5)
    with pytest.raises(ValueError, match="must fit"):
        _core.matmul(a, a, out, 1)
    with pytest.raises(ValueError, match="float32"):
        _core.matmul(a.double(), b, out, 1)
    with pytest.raises(ValueError, match="matrix"):
        _core.matmul(a[0], b, out, 1)
    with pytest.raises(ValueError, match="one run of memory"):
        _core.matmul(a, b, torch.ones(5, 3).T, 1)
    with pytest.raises(ValueError, match="is square"):
        _core.symmetric_product(a, b, out, 1)
    with pytest.raises(ValueError, match="not available"):
        _core.matmul(a, b, out, 1, "mmx")
