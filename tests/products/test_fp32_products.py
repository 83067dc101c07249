"""Products of bfloat16 in float32: what they give, and where they do nothing."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import cosmic
from cosmic import fp32_products
from helpers import normal

HALF = (torch.bfloat16, torch.float16)
SIDE = st.integers(1, 40)


def half(seed: int, *shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return normal(seed, *shape).to(dtype)


def turned(tensor: Tensor) -> Tensor:
    """The same matrix, stored by columns."""
    return tensor.mT.contiguous().mT


def assert_rounded_once(got: Tensor, exact: Tensor, terms: Tensor) -> None:
    """Within half a step of the dtype, and what float32 sums of such terms can be off."""
    assert got.shape == exact.shape
    unit = torch.finfo(got.dtype).eps / 2
    bound = unit * exact.abs() * 1.01 + 1e-6 * terms + 1e-7
    assert bool(((got.double() - exact).abs() <= bound).all())


@pytest.fixture(params=[1, 64, 4 * 1024 * 1024], ids=["one", "few", "all"])
def piece(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Pieces of one row, of some, and of everything."""
    monkeypatch.setattr("cosmic.products.PIECE", request.param)
    return int(request.param)


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("shape", list(itertools.permutations((3, 17, 40))))
@pytest.mark.parametrize("by_columns", [False, True])
@pytest.mark.usefixtures("piece")
def test_a_product_is_the_exact_one_rounded_once(
    shape: tuple[int, int, int], dtype: torch.dtype, by_columns: bool
) -> None:
    m, k, n = shape
    a, b = half(1, m, k, dtype=dtype), half(2, k, n, dtype=dtype)
    bias = half(3, n, dtype=dtype)
    if by_columns:
        a, b = turned(a), turned(b)
    exact, terms = a.double() @ b.double(), a.double().abs() @ b.double().abs()
    with fp32_products("always"):
        assert_rounded_once(a @ b, exact, terms)
        assert_rounded_once(torch.addmm(bias, a, b), exact + bias.double(), terms)
        scaled = torch.addmm(bias, a, b, beta=0.5, alpha=2)
        assert_rounded_once(scaled, 2 * exact + 0.5 * bias.double(), 2 * terms + 1)
        batch = torch.bmm(torch.stack([a, -a]), torch.stack([b, b]))
        assert_rounded_once(batch, torch.stack([exact, -exact]), torch.stack([terms, terms]))


@given(m=st.integers(0, 40), k=st.integers(0, 40), n=st.integers(0, 40))
def test_any_sides_none_among_them(m: int, k: int, n: int) -> None:
    a, b = half(1, m, k), half(2, k, n)
    with fp32_products("always"):
        got = a @ b
    assert_rounded_once(got, a.double() @ b.double(), a.double().abs() @ b.double().abs())


class Block(nn.Module):
    """Attention, a convolution and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.qkv = nn.Linear(16, 48)
        self.conv = nn.Conv1d(16, 16, 3, padding=1)
        self.out = nn.Linear(16, 16, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).view(2, -1, 2, 24).transpose(1, 2).chunk(3, -1)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        mixed = mixed.transpose(1, 2).reshape(2, -1, 16)
        out: Tensor = self.out(self.conv(mixed.mT).mT)
        return out


def gradients(block: Block, x: Tensor) -> list[Tensor]:
    block.zero_grad()
    block(x).square().mean().backward()
    return [p.grad.clone() for p in block.parameters() if p.grad is not None]


@pytest.mark.parametrize("dtype", HALF)
def test_a_model_trains_as_in_float32_within_bfloat16s_rounding(dtype: torch.dtype) -> None:
    x = half(5, 2, 12, 16, dtype=dtype)
    block = Block().to(dtype)
    with fp32_products("always"):
        found = gradients(block, x)
    assert all(g.dtype == dtype for g in found)
    exact = gradients(block.double(), x.double())
    assert len(found) == len(exact) == 5
    for got, wanted in zip(found, exact, strict=True):
        error = float((got.double() - wanted).norm() / wanted.norm())
        assert error < 4 * torch.finfo(dtype).eps


def test_float32_and_float64_are_left_alone() -> None:
    a, b = normal(1, 20, 20), normal(2, 20, 20)
    plain = [a @ b, a.double() @ b.double()]
    with fp32_products("always"):
        inside = [a @ b, a.double() @ b.double()]
    assert all(torch.equal(x, y) for x, y in zip(plain, inside, strict=True))


@pytest.mark.parametrize(
    "product",
    [
        lambda: half(1, 5, 7) @ normal(2, 7, 3),
        lambda: half(1, 5, 7) @ half(2, 7, 3, dtype=torch.float16),
        lambda: nn.functional.linear(half(1, 2, 5, 7), normal(2, 3, 7)),
        lambda: torch.addmm(half(0, 3), normal(1, 5, 7), normal(2, 7, 3)),
        lambda: torch.baddbmm(half(0, 2, 5, 3), normal(1, 2, 5, 7), normal(2, 2, 7, 3)),
        lambda: nn.functional.conv2d(half(1, 2, 4, 9, 9), normal(2, 4, 4, 3, 3)),
        lambda: torch.mm(half(1, 5, 7), half(2, 8, 3)),
        lambda: torch.mm(half(1, 2, 5, 7), half(2, 7, 3)),
        lambda: torch.bmm(half(1, 5, 7), half(2, 7, 3)),
        lambda: torch.bmm(half(1, 2, 5, 7), half(2, 1, 7, 3)),
    ],
)
def test_what_torch_refuses_it_refuses_in_the_same_words(product: Callable[[], Tensor]) -> None:
    with pytest.raises(RuntimeError) as plain:
        product()
    with fp32_products("always"), pytest.raises(RuntimeError) as within:
        product()
    assert str(within.value) == str(plain.value)


def test_sparse_factors_are_left_alone() -> None:
    a, b = half(1, 4, 4), half(2, 4, 3)
    with fp32_products("always"):
        found = torch.mm(a.to_sparse(), b)
    assert float((found.double() - a.double() @ b.double()).abs().max()) < 0.1


def test_only_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def count(a: Tensor, b: Tensor) -> Tensor:
        seen.append(1)
        return (a.float() @ b.float()).to(a.dtype)

    monkeypatch.setitem(cosmic.products._INSTEAD, torch.ops.aten.mm.default, count)
    a = half(1, 4, 4)
    for when, native, times in (
        ("always", True, 1), ("never", False, 0), ("needed", True, 0), ("needed", False, 1),
    ):  # fmt: skip
        monkeypatch.setattr("cosmic.products.native_products", lambda native=native: native)
        seen.clear()
        with fp32_products(when):
            a @ a
        a @ a
        assert len(seen) == times, (when, native)


def test_a_word_that_is_none() -> None:
    with pytest.raises(ValueError, match="when is 'auto'; expected 'needed', 'always' or 'never'"):
        fp32_products("auto")


@pytest.mark.parametrize("released", [False, True])
def test_steps_within_it_have_the_same_bits_twice(released: bool) -> None:
    def train() -> list[Tensor]:
        block = Block().bfloat16()
        optimizer = cosmic.Cosmic(block.parameters(), lr=1e-2)
        if released:
            optimizer.step_in_backward(block)
        with fp32_products("always"):
            for step in range(3):
                block(half(step, 2, 12, 16)).square().mean().backward()
                optimizer.step()
                optimizer.zero_grad()
        return [p.detach() for p in block.parameters()]

    assert all(torch.equal(a, b) for a, b in zip(train(), train(), strict=True))
