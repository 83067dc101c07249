"""What cosmic.exact refuses, and that the message says what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from cosmic import Cosmic, UnsupportedTensorError, exact
from helpers import normal

X, W = normal(0, 3, 4), normal(1, 5, 4)
Q = normal(2, 1, 4, 3, 8)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int64, torch.complex64])
def test_another_dtype_is_refused_with_what_to_do(dtype: torch.dtype) -> None:
    with pytest.raises(UnsupportedTensorError, match=r"linear\(\): input is .*\.float\(\)"):
        exact.linear(X.to(dtype), W)
    with pytest.raises(UnsupportedTensorError, match=r"gelu\(\): input is .*\.float\(\)"):
        exact.gelu(X.to(dtype))


def test_two_dtypes_are_refused() -> None:
    with pytest.raises(UnsupportedTensorError, match=r"weight is torch\.float64, another"):
        exact.linear(X, W.double())


def test_another_device_and_layout_are_refused() -> None:
    with pytest.raises(UnsupportedTensorError, match=r"weight is a tensor of meta.*\.cpu\(\)"):
        exact.layer_norm(X, (4,), torch.ones(4, device="meta"))
    with pytest.raises(UnsupportedTensorError, match=r"to_dense\(\)"):
        exact.softmax(X.to_sparse())
    with pytest.raises(TypeError, match="input is list; expected a tensor"):
        exact.tanh([1.0])  # type: ignore[arg-type]


CALLS: dict[str, tuple[Callable[[], Any], str]] = {
    "a weight of three dimensions": (
        lambda: exact.linear(X, W[None]), r"shape \(1, 5, 4\); expected a matrix of 2"
    ),
    "a weight of another width": (lambda: exact.linear(X, W.t()), "expected 5 elements"),
    "a bias of another length": (
        lambda: exact.linear(X, W, X[0]), r"bias has shape \(4,\); expected \(5,\)"
    ),
    "another word for sums": (
        lambda: exact.linear(X, W, accumulate="bf16"), "'bf16'; expected 'fp64', 'fp32' or 'exact'"
    ),
    "float64 in fp32": (
        lambda: exact.linear(X.double(), W.double(), accumulate="fp32"), "would round float64"
    ),
    "float64 attention in fp32": (
        lambda: exact.attention(*[Q.double()] * 3, accumulate="fp32"), "would round float64"
    ),
    "a vector in matmul": (lambda: exact.matmul(X, X[0]), r"unsqueeze\(\)"),
    "matrices that do not fit": (lambda: exact.matmul(X, X), r"\(3, 4\) and \(3, 4\)"),
    "another normalized shape": (lambda: exact.layer_norm(X, (3,)), "normalized_shape"),
    "norm weights of another shape": (lambda: exact.rms_norm(X, (4,), X), "weight has shape"),
    "another approximation": (lambda: exact.gelu(X, "sigmoid"), "expected 'none' or 'tanh'"),
    "class weights": (
        lambda: exact.cross_entropy(X, torch.zeros(3).long(), X[0]), "expected None"
    ),
    "targets of probabilities": (lambda: exact.cross_entropy(X, X), "one class a row"),
    "smoothing beyond 1": (
        lambda: exact.cross_entropy(X, torch.zeros(3).long(), label_smoothing=1.5), "0 to 1"
    ),
    "another reduction": (
        lambda: exact.cross_entropy(X, torch.zeros(3).long(), reduction="max"), "'sum' or 'none'"
    ),
    "heads that do not share keys": (
        lambda: exact.attention(Q, Q[:, :3], Q[:, :3]), "heads a multiple of key heads"
    ),
    "a mask beside the causal pattern": (
        lambda: exact.attention(Q, Q, Q, torch.ones(3, 3).bool(), causal=True), "one of them"
    ),
    "a mask that wants a gradient": (
        lambda: exact.attention(Q, Q, Q, torch.zeros(3, 3, requires_grad=True)), r"detach\(\)"
    ),
    "a mask of another shape": (
        lambda: exact.attention(Q, Q, Q, torch.ones(2, 2).bool()), r"broadcasts to \(1, 4, 3, 3\)"
    ),
    "all dropped": (lambda: exact.dropout(X, 1.0), "p is 1.0; expected at least 0 and below 1"),
    "a key of 65 bits": (lambda: exact.dropout(X, key=1 << 64), "expected 64 bits"),
    "a matrix of frequencies": (
        lambda: exact.rotary(torch.tensor([0]), torch.ones(2, 2)), "expected one dimension"
    ),
    "an odd head": (lambda: exact.rotary_frequencies(7), "expected an even number"),
    "another scaling of positions": (
        lambda: exact.rotary_frequencies(8, scaling={"rope_type": "yarn"}), "'linear', 'llama3'"
    ),
    "a scaling without its numbers": (
        lambda: exact.rotary_frequencies(8, scaling={"rope_type": "linear"}), "lacks factor"
    ),
    "a padding row beyond the table": (
        lambda: exact.embedding(torch.tensor([0]), W, 5), "padding_idx is 5; expected a row of 5"
    ),
    "a deviation below 0": (lambda: exact.normal_(X.clone(), std=-1.0), "std at least 0"),
    "bounds in the wrong order": (lambda: exact.uniform_(X.clone(), 1.0, 0.0), "in this order"),
    "no norm to clip at": (lambda: exact.clip_grad_norm_([], 0.0), "expected above 0"),
    "compressed state by this name": (
        lambda: exact.VerityAdam([X.clone()], state_dtype="u4"), "take cosmic.Cosmic"
    ),
    "an embedding with a largest norm": (lambda: exact.Embedding(5, 4, max_norm=1.0), "max_norm"),
    "dropout in place": (lambda: exact.Dropout(0.1, inplace=True), "expected False"),
    "a loss with class weights": (lambda: exact.CrossEntropyLoss(X[0]), "expected None"),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_a_wrong_call_is_refused_with_what_to_do(name: str) -> None:
    call, message = CALLS[name]
    with pytest.raises(ValueError, match=message):
        call()


def test_rows_and_classes_that_are_not_there_are_refused() -> None:
    with pytest.raises(IndexError):
        exact.embedding(torch.tensor([5]), W)
    for target in (4, -1):
        with pytest.raises(IndexError):
            exact.cross_entropy(X, torch.tensor([0, target, 1]))


def test_indices_of_another_dtype_are_refused() -> None:
    with pytest.raises(UnsupportedTensorError, match=r"torch\.int64"):
        exact.embedding(torch.tensor([0.0]), W)
    with pytest.raises(UnsupportedTensorError, match=r"torch\.int64"):
        exact.cross_entropy(X, torch.zeros(3, dtype=torch.int32))
    with pytest.raises(UnsupportedTensorError, match=r"torch\.int64"):
        exact.rotary(torch.zeros(3), exact.rotary_frequencies(4))


def test_what_is_no_tensor_is_named() -> None:
    calls: tuple[tuple[Callable[[], Any], str], ...] = (
        (lambda: exact.embedding([0], W), "input is list"),  # type: ignore[arg-type]
        (lambda: exact.cross_entropy(X, [0, 1, 2]), "target is list"),  # type: ignore[arg-type]
        (lambda: exact.attention(Q, Q, Q, [True]), "mask is list"),  # type: ignore[arg-type]
        (lambda: exact.rotary([0], [1.0]), "positions is list"),  # type: ignore[arg-type]
    )
    for call, message in calls:
        with pytest.raises(TypeError, match=f"{message}; expected a tensor"):
            call()


def test_second_derivatives_are_refused() -> None:
    x = X.clone().requires_grad_()
    for call in (exact.gelu, exact.softmax, lambda t: exact.linear(t, W)):
        out = call(x)
        with pytest.raises(RuntimeError, match="create_graph=True"):
            torch.autograd.grad(out.square().sum(), x, create_graph=True)


def test_autocast_is_refused() -> None:
    with (
        torch.autocast("cpu", torch.bfloat16),
        pytest.raises(RuntimeError, match="leave autocast"),
    ):
        exact.linear(X, W)


def test_an_optimizer_by_this_name_is_cosmic() -> None:
    params = [torch.nn.Parameter(X.clone()) for _ in range(2)]
    for param in params:
        param.grad = X.sin()
    exact.VerityAdam(params[:1], 1e-2, weight_decay=0.1).step()
    Cosmic(params[1:], 1e-2, weight_decay=0.1, state_dtype="fp32").step()
    assert torch.equal(params[0], params[1])
