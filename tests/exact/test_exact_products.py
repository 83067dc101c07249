"""Products of batches: a sum over k in order, or the exact sum, with the same bits on every ISA,
for any number of threads, in any layout and in any batch."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cosmic import _core
from reference.product import batched_product, exact_dot, nearest_float32

ISAS: list[str] = _core.build_info()["isa_available"]
THREADS = (1, 2, 3, 7)
#: of floats in floats, of floats in doubles, of doubles in doubles
KINDS = [("fp32", torch.float32), ("fp64", torch.float32), ("fp64", torch.float64)]
kinds = pytest.mark.parametrize(("accumulate", "dtype"), KINDS)
#: batch, m, k, n: tiles at every edge, more k than are summed at a time, nothing at all
SHAPES = [
    (1, 1, 1, 1),
    (3, 7, 0, 5),
    (2, 67, 401, 75),
    (1, 130, 1000, 33),
    (1, 1, 300, 700),
    (1, 700, 300, 1),
    (9, 16, 64, 16),
    (1, 2100, 3, 530),
    (0, 3, 3, 3),
    (2, 0, 3, 3),
]


def numbers(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Of many sizes, so that each rounding shows."""
    return torch.randn(*shape, dtype=dtype) * torch.randn(*shape, dtype=dtype).exp2()


def multiplied(
    a: Tensor,
    b: Tensor,
    accumulate: str,
    add: Tensor | None = None,
    threads: int = 2,
    isa: str = "",
) -> Tensor:
    """What is written within a larger tensor, beside which nothing is."""
    batch, rows, columns = a.shape[0], a.shape[1], b.shape[2]
    room = torch.full((batch, rows + 2, columns + 3), 9.0, dtype=a.dtype)
    out = room[:, 1:-1, 1:-2]
    _core.exact_product(a, b, out, add, accumulate, threads, isa)
    result = out.clone()
    out.fill_(9)
    assert bool((room == 9).all()), "wrote beside the matrices"
    return result


def on_everything(a: Tensor, b: Tensor, accumulate: str, add: Tensor | None = None) -> Tensor:
    """The product, the same from every ISA and number of threads."""
    found = [multiplied(a, b, accumulate, add, n, isa) for isa in ISAS for n in THREADS]
    bytes_of = [x.view(torch.uint8) for x in found]
    assert all(torch.equal(x, bytes_of[0]) for x in bytes_of)
    return found[0]


def expected(a: Tensor, b: Tensor, accumulate: str, add: Tensor | None = None) -> Tensor:
    given_add = None if add is None else add.numpy()
    return torch.from_numpy(batched_product(a.numpy(), b.numpy(), given_add, accumulate))


@kinds
@pytest.mark.parametrize("shape", SHAPES)
def test_a_product_is_summed_in_order(
    accumulate: str, dtype: torch.dtype, shape: tuple[int, int, int, int]
) -> None:
    torch.manual_seed(0)
    batch, m, k, n = shape
    a, b = numbers(batch, m, k, dtype=dtype), numbers(batch, k, n, dtype=dtype)
    assert torch.equal(on_everything(a, b, accumulate), expected(a, b, accumulate))


@kinds
def test_a_vector_is_added_after_the_sum(accumulate: str, dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    a, b = numbers(2, 19, 400, dtype=dtype), numbers(2, 400, 75, dtype=dtype)
    add = numbers(2, 75, dtype=dtype).T[:, 0]
    assert torch.equal(on_everything(a, b, accumulate, add), expected(a, b, accumulate, add))


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "rows": lambda x: x,
    "columns": lambda x: x.mT.contiguous().mT,
    "batches inside": lambda x: x.permute(1, 2, 0).contiguous().permute(2, 0, 1),
    "every other": lambda x: torch.stack([x, x], dim=3)[..., 0],
    "one for all": lambda x: x[:1].expand_as(x),
}


@kinds
@pytest.mark.parametrize("of_a", LAYOUTS)
@pytest.mark.parametrize("of_b", LAYOUTS)
def test_operands_lie_as_they_like(
    accumulate: str, dtype: torch.dtype, of_a: str, of_b: str
) -> None:
    torch.manual_seed(1)
    a, b = numbers(3, 70, 33, dtype=dtype), numbers(3, 33, 75, dtype=dtype)
    left, right = LAYOUTS[of_a](a), LAYOUTS[of_b](b)
    found = on_everything(left, right, accumulate)
    assert torch.equal(found, expected(left.contiguous(), right.contiguous(), accumulate))


@pytest.mark.parametrize(("accumulate", "dtype"), [*KINDS, ("exact", torch.float32)])
def test_a_row_does_not_depend_on_what_is_computed_with_it(
    accumulate: str, dtype: torch.dtype
) -> None:
    torch.manual_seed(2)
    a, b = numbers(5, 37, 90, dtype=dtype), numbers(5, 90, 41, dtype=dtype)
    whole = multiplied(a, b, accumulate)
    for matrix in range(5):
        alone = multiplied(a[matrix : matrix + 1], b[matrix : matrix + 1], accumulate)
        assert torch.equal(alone[0], whole[matrix])
    rows = multiplied(a[:1, 11:13], b[:1], accumulate)
    assert torch.equal(rows[0], whole[0, 11:13])


def test_the_result_may_lie_between_others() -> None:
    """Heads side by side in a row, as attention leaves them."""
    torch.manual_seed(3)
    a, b = numbers(4, 9, 12), numbers(4, 12, 8)
    out = torch.zeros(9, 4, 8)
    _core.exact_product(a, b, out.transpose(0, 1), None, "fp64", 2)
    assert torch.equal(out.transpose(0, 1), expected(a, b, "fp64"))


def test_sums_in_double_are_rounded_once() -> None:
    """A sum that any rounding to float on the way would lose, at either end of a stretch of k."""
    k = 1000
    a, b = torch.full((1, 1, k), 2.0**-30), torch.ones(1, k, 1)
    a[0, 0, 0], a[0, 0, -1] = 1, -1
    assert float(multiplied(a, b, "fp64")) == (k - 2) * 2.0**-30
    assert float(multiplied(a, b, "fp64", torch.tensor([-((k - 2) * 2.0**-30)]))) == 0
    assert float(multiplied(a, b, "fp32")) == 0


@pytest.mark.parametrize("accumulate", ["fp32", "fp64", "exact"])
def test_what_is_not_finite_spoils_its_row_with_one_nan(accumulate: str) -> None:
    a, b = torch.ones(1, 20, 20), torch.ones(1, 20, 40)
    a[0, 3, 5] = torch.inf
    a[0, 4, 6] = torch.nan
    a[0, 5, 7], a[0, 5, 8] = torch.inf, -torch.inf
    a[0, 6, 7] = -torch.tensor(torch.nan)
    out = on_everything(a, b, accumulate)[0]
    assert bool(out[3].isposinf().all()) and bool(out[4:7].isnan().all())
    for isa in ISAS:
        nans = multiplied(a, b, accumulate, isa=isa)[0, 4:7]
        assert bool((nans.view(torch.int32) == 0x7FC00000).all())
    assert bool((out[[0, 1, 2, *range(7, 20)]] == 20).all())


def test_subnormal_numbers_are_kept() -> None:
    """Also where a thread has been told to flush them."""
    tiny = 2.0**-140
    a, b = torch.full((1, 40, 200), tiny), torch.ones(1, 200, 40)
    torch.set_flush_denormal(True)
    try:
        found = [on_everything(a, b, accumulate) for accumulate in ("fp32", "fp64", "exact")]
    finally:
        torch.set_flush_denormal(False)
    for out in found:
        assert torch.equal(out, torch.full_like(out, 200 * tiny))


# ---- exact sums -------------------------------------------------------------------------------

floats = st.floats(width=32, allow_nan=False, allow_infinity=False)
some_floats = st.lists(floats, min_size=1, max_size=12)


def exact(a: list[float], b: list[float], dtype: torch.dtype = torch.float32) -> float:
    left, right = torch.tensor([[a]], dtype=dtype), torch.tensor([b], dtype=dtype).mT[None]
    return float(multiplied(left, right, "exact"))


@settings(deadline=None, max_examples=60)
@given(some_floats, some_floats, st.randoms(use_true_random=False))
def test_an_exact_sum_is_the_nearest_float(
    a: list[float], b: list[float], order: random.Random
) -> None:
    n = min(len(a), len(b))
    pairs = list(zip(a[:n], b[:n], strict=True))
    # each product once more with the other sign, but for a last one: much cancels
    pairs += [(x, -y) for x, y in pairs[:-1]]
    left, right = [x for x, _ in pairs], [y for _, y in pairs]
    found = exact(left, right)
    assert found == nearest_float32(exact_dot(left, right))
    order.shuffle(pairs)
    assert exact([x for x, _ in pairs], [y for _, y in pairs]) == found


@pytest.mark.parametrize("cancelling", [False, True])
def test_a_long_exact_sum_is_the_nearest_float(cancelling: bool) -> None:
    """Also where all but the last bits of it cancel."""
    torch.manual_seed(6)
    a, b = numbers(3000).tolist(), numbers(3000).tolist()
    if cancelling:
        a, b = [*a, *a[:-1]], [*b, *(-y * (1 + 2.0**-23) for y in b[:-1])]
        b = torch.tensor(b).tolist()
    assert exact(a, b) == nearest_float32(exact_dot(a, b))


@settings(deadline=None, max_examples=40)
@given(some_floats)
def test_of_doubles_an_exact_sum_is_that_of_fsum(a: list[float]) -> None:
    """Products of floats are doubles."""
    b = [*a[1:], a[0]]
    products = [x * y for x, y in zip(a, b, strict=True)]
    assert exact(a, b, torch.float64) == math.fsum(products)


def test_an_exact_sum_has_every_bit_of_doubles() -> None:
    torch.manual_seed(4)
    a, b = numbers(50, dtype=torch.float64), numbers(50, dtype=torch.float64)
    assert exact(a.tolist(), b.tolist(), torch.float64) == float(exact_dot(a.tolist(), b.tolist()))


@pytest.mark.parametrize(
    ("a", "b", "sum"),
    [
        ([2.0**-149], [2.0**-149], 0.0),
        ([2.0**-75, 2.0**-149], [2.0**-75, 2.0**-149], 2.0**-149),  # just above a half
        ([2.0**-75], [2.0**-75], 0.0),  # a half: to even
        ([2.0**127, -(2.0**127)], [2.0**127, 2.0**127], 0.0),
        ([2.0**127], [2.0], math.inf),
        ([-(2.0**127)], [2.0**100], -math.inf),
        ([2.0**127, 2.0**127, -(2.0**127)], [1.0, 1.0, 1.0], 2.0**127),
        ([1.0, 2.0**-24], [1.0, 1.0], 1.0),  # a tie
        ([1.0, 2.0**-24, 2.0**-149], [1.0, 1.0, 2.0**-149], 1 + 2.0**-23),  # above it by 2^-298
    ],
)
def test_an_exact_sum_at_the_ends_of_the_range(a: list[float], b: list[float], sum: float) -> None:
    assert exact(a, b) == sum
    assert exact([-x for x in a], b) == -sum


def test_an_exact_sum_adds_the_bias_before_it_rounds() -> None:
    a, b = torch.tensor([[[1.0, 2.0**-24]]]), torch.ones(1, 2, 1)
    assert float(multiplied(a, b, "exact", torch.tensor([2.0**-60]))) == 1 + 2.0**-23


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_exact_product_is_the_same_for_any_order_of_k(dtype: torch.dtype) -> None:
    torch.manual_seed(5)
    a, b = numbers(2, 5, 60, dtype=dtype), numbers(2, 60, 7, dtype=dtype)
    order = torch.randperm(60)
    found = on_everything(a, b, "exact")
    assert torch.equal(on_everything(a[:, :, order], b[:, order], "exact"), found)
    assert torch.allclose(found.double(), a.double() @ b.double(), rtol=1e-6)


# ---- what is refused --------------------------------------------------------------------------


def test_what_cannot_be_multiplied_is_refused() -> None:
    a, b, out = torch.ones(2, 3, 4), torch.ones(2, 4, 5), torch.ones(2, 3, 5)

    def refused(match: str, *arguments: object, accumulate: str = "fp64", isa: str = "") -> None:
        left, right, to, add = (*arguments, None)[:4]
        with pytest.raises(ValueError, match=match):
            _core.exact_product(left, right, to, add, accumulate, 1, isa)  # type: ignore[arg-type]

    refused(r"does not fit: a is \[2, 3, 4\], b \[2, 3, 4\]", a, a, out)
    refused("does not fit", a, b[:1], out)
    refused("one dtype", a.double(), b, out)
    refused("one dtype", a, b, out, torch.ones(5, dtype=torch.float64))
    refused("a must be float32 or float64", a.bfloat16(), b, out)
    refused("b must have 3 dimensions, not 2", a, b[0], out)
    refused("add must have 5 elements, one a column, not 4", a, b, out, torch.ones(4))
    refused("rows in one run of memory", a, b, torch.ones(2, 5, 3).mT)
    refused("must not share memory", a, b, torch.ones(1, 3, 5).expand(2, 3, 5))
    refused("'fp32', 'fp64' or 'exact', not 'fp16'", a, b, out, accumulate="fp16")
    refused("takes float32", a.double(), b.double(), out.double(), accumulate="fp32")
    refused("not available", a, b, out, isa="mmx")
