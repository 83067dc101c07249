"""Everything that is computed of rows has the same bits on every instruction set and for every
number of threads, and a row's do not depend on the rows beside it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from exact_calls import COLUMNS, DTYPES, ISAS, THREADS, Core, numbers

Results = tuple[Tensor, ...]


def softmax(core: Core, x: Tensor) -> Results:
    y = core.softmax(3 * x[None], 0.3)
    return y, core.softmax_backward(y, x.flip(0)[None], 0.3)


def causal_softmax(core: Core, x: Tensor) -> Results:
    return (core.softmax(3 * x[None], 0.3, causal=True),)


def layer_norm(core: Core, x: Tensor) -> Results:
    weight, grad = x[0].clone(), x.flip(0)
    y, mean, rstd = core.layer_norm(x + 0.5, weight, weight)
    return y, mean, rstd, *core.layer_norm_backward(x + 0.5, weight, mean, rstd, grad)


def rms_norm(core: Core, x: Tensor) -> Results:
    weight = x[0].clone()
    y, rstd = core.rms_norm(x, weight)
    return y, rstd, *core.rms_norm_backward(x, weight, rstd, x.flip(0))


def sums(core: Core, x: Tensor) -> Results:
    return core.column_sums(x), core.sum(x)


def cross_entropy(core: Core, x: Tensor) -> Results:
    targets = torch.arange(len(x)) % x.shape[1]
    losses, lse = core.cross_entropy(x, targets, smoothing=0.1)
    return losses, lse, core.cross_entropy_backward(x, lse, targets, losses, smoothing=0.1)


def embedding(core: Core, x: Tensor) -> Results:
    indices = torch.arange(len(x)) ** 2 % 11
    return (core.embedding_backward(indices, x, vocabulary=13),)


def fills(core: Core, x: Tensor) -> Results:
    key = 0x123456789ABCDEF
    return (
        core.dropout(x, 0.3, key),
        core.uniform(x, -2, 5, key),
        core.normal(x, 1, 3, key),
    )


def rotary(core: Core, x: Tensor) -> Results:
    frequencies = core.inverse_frequencies(1e4, x.shape[1])
    positions = torch.arange(len(x)) * 97
    return core.rotary(positions, frequencies, 1.25, x.dtype)


CALLS: list[Callable[[Core, Tensor], Results]] = [
    softmax,
    causal_softmax,
    layer_norm,
    rms_norm,
    sums,
    cross_entropy,
    embedding,
    fills,
    rotary,
]
calls = pytest.mark.parametrize("call", CALLS)


def assert_same(found: Results, expected: Results) -> None:
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


@calls
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("columns", COLUMNS)
def test_on_every_isa(
    call: Callable[[Core, Tensor], Results], columns: int, dtype: torch.dtype
) -> None:
    x = numbers(20, columns, dtype=dtype)
    expected = call(Core(1, ISAS[-1]), x)
    for isa in ISAS[:-1]:
        assert_same(call(Core(1, isa), x), expected)


@calls
@pytest.mark.parametrize("shape", [(300, 129), (40000, 1), (3, 20000)])
def test_on_every_number_of_threads(
    call: Callable[[Core, Tensor], Results], shape: tuple[int, int]
) -> None:
    x = numbers(*shape, dtype=torch.float32)
    expected = call(Core(THREADS[0]), x)
    for threads in THREADS[1:]:
        assert_same(call(Core(threads), x), expected)


@pytest.mark.parametrize("name", ["softmax", "layer_norm", "rms_norm", "cross_entropy"])
def test_a_row_does_not_depend_on_its_neighbours(name: str) -> None:
    x = numbers(70, 129, dtype=torch.float32)
    targets = torch.arange(70)

    def of(rows: slice) -> Tensor:
        part = x[rows].clone()
        core = Core(1)
        if name == "softmax":
            return core.softmax(part[None])[0]
        if name == "cross_entropy":
            return core.cross_entropy(part, targets[rows])[0]
        norm = (
            core.layer_norm(part, None, None) if name == "layer_norm" else core.rms_norm(part, None)
        )
        return norm[0]

    together = of(slice(None))
    assert torch.equal(of(slice(33, 34)), together[33:34])
    assert torch.equal(of(slice(20, 70)), together[20:])


def test_flush_to_zero_in_the_calling_thread_changes_no_bit() -> None:
    """A thread that the user has put into flush-to-zero; results below 2^-126 would vanish."""
    x = torch.full((17,), -90.0)
    expected = Core(1).map("exp", x)
    assert bool((expected > 0).all())
    assert torch.set_flush_denormal(True) or pytest.skip("no such mode here")
    try:
        found = Core(1).map("exp", x)
    finally:
        torch.set_flush_denormal(False)
    assert torch.equal(found, expected)


def test_nothing_is_there_of_no_rows() -> None:
    empty = torch.empty(0, 5)
    assert Core().softmax(empty[None]).shape == (1, 0, 5)
    _, mean, rstd = Core().layer_norm(empty, None, None)
    dx, dweight, dbias = Core().layer_norm_backward(empty, None, mean, rstd, empty)
    assert dx.shape == (0, 5) and not dweight.any() and not dbias.any()
    none = torch.empty(0, dtype=torch.int64)
    assert Core().cross_entropy(empty, none)[0].numel() == 0
    assert not Core().embedding_backward(none, empty, vocabulary=3).any()
