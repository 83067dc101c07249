"""Functions that a converted forward calls by name: torch's arguments, and what is left behind."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import _get_current_function_mode_stack

from cosmic import exact
from helpers import normal

X, W, Q, K = normal(0, 3, 4), normal(1, 4), normal(2, 1, 1, 2, 4), normal(3, 1, 1, 3, 4)
EYE = torch.eye(4)


class Calls(nn.Module):
    """A forward of one's own."""

    def __init__(self, run: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.inner = nn.Identity()
        self.weight = nn.Parameter(W.clone())
        self.run = run

    def forward(self) -> object:
        return self.run(self.weight)


def called(run: Callable[[Tensor], object]) -> object:
    return exact.convert(Calls(run))()


@pytest.mark.parametrize(
    "run",
    [
        lambda w: w.expand(size=(3, 4)),
        lambda w: w.expand(torch.Size([3, -1])),
        lambda w: w.expand_as(other=X),
        lambda w: torch.broadcast_to(input=w, size=(3, 4)),
        lambda w: w.broadcast_to((3, 4)),
        lambda w: torch.add(input=X, other=w),
        lambda w: torch.add(other=X, input=w, alpha=-1),
        lambda w: X.mul(other=w),
        lambda w: torch.matmul(other=EYE, input=X * w),
        lambda w: torch.mm(X * w, mat2=EYE),
        lambda w: torch.addmm(w, mat1=X, mat2=EYE),
    ],
)
def test_arguments_have_torchs_names_and_gradients_are_exact(
    run: Callable[[Tensor], Tensor],
) -> None:
    plain = Calls(run)
    expected = run(plain.weight)
    (gradient,) = torch.autograd.grad(expected.sum(), plain.weight)
    model = exact.convert(plain)
    found = model()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(exact.sum(found), plain.weight)[0], gradient)
    assert exact.check(model) == []


def test_a_mask_beside_causal_is_refused_as_torch_does() -> None:
    mask = torch.ones(2, 3, dtype=torch.bool)
    with pytest.raises(ValueError, match="a mask is given and causal=True"):
        called(lambda _: F.scaled_dot_product_attention(Q, K, K, mask, is_causal=True))


def test_arguments_that_are_not_computed_are_named() -> None:
    with pytest.raises(TypeError, match=r"tanh\(\) is not computed with these arguments.*'out'"):
        called(lambda w: torch.tanh(w.detach(), out=torch.empty(4)))


@pytest.mark.parametrize("function", [F.silu, F.dropout])
def test_what_is_in_place_is_refused(function: Callable[..., Tensor]) -> None:
    with pytest.raises(ValueError, match="is computed with inplace=False"):
        called(lambda w: function(w * X, inplace=True))


@pytest.mark.parametrize("run", [lambda w: X.half() + w.half(), lambda w: X.half() @ EYE.half()])
def test_an_operator_says_why_it_refuses(run: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(RuntimeError, match=r"torch\.float16; expected torch\.float32"):
        called(run)


def test_an_interrupted_forward_leaves_nothing_to_other_code() -> None:
    def interrupt(_: Tensor) -> None:
        raise KeyboardInterrupt

    model = exact.convert(Calls(interrupt))
    with contextlib.suppress(KeyboardInterrupt):
        model()
    assert torch.tanh(X.half()).dtype == torch.float16  # by torch: ours refuses it
    model.run = torch.tanh
    assert torch.equal(model(), exact.tanh(W))
    assert _get_current_function_mode_stack() == []  # type: ignore[no-untyped-call]
