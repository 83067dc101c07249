"""One exception for tensors that cannot be used, caught as torch's own and as what it is."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import AdamW

import cosmic
from cosmic import Cosmic, UnsupportedTensorError, quantize
from cosmic.presets import CASMO, TurboAdam
from helpers import normal, parameter, refused, set_gradient

EVERY = pytest.mark.parametrize("kind", [Cosmic, TurboAdam, CASMO])


def freed() -> Tensor:
    plain = torch.ones(9)
    plain.untyped_storage().resize_(0)
    return plain


def test_it_is_both_errors_and_travels() -> None:
    assert issubclass(UnsupportedTensorError, TypeError)
    assert issubclass(UnsupportedTensorError, RuntimeError)
    again = pickle.loads(pickle.dumps(UnsupportedTensorError("why")))
    assert type(again) is UnsupportedTensorError and str(again) == "why"
    assert f"{UnsupportedTensorError.__module__}.{UnsupportedTensorError.__qualname__}" == (
        "cosmic.UnsupportedTensorError"
    )
    assert "UnsupportedTensorError" in cosmic.__all__
    assert "sparse" in str(UnsupportedTensorError.__doc__)


@EVERY
def test_a_sparse_gradient_is_refused_as_torch_refuses_it(kind: type[Cosmic]) -> None:
    """By an error that the same code catches; the message says what to do, which helps."""
    layer = nn.Embedding(10, 4, sparse=True)
    ours, theirs = kind(layer.parameters()), AdamW(layer.parameters())
    layer(torch.tensor([1, 2])).sum().backward()
    with pytest.raises(RuntimeError, match="sparse"):
        theirs.step()
    wanted = ("parameter 0", "torch.sparse_coo", "param.grad.to_dense()", "sparse=False")
    for error in (UnsupportedTensorError, RuntimeError, TypeError):
        with refused(ours, error, *wanted):
            ours.step()
    assert layer.weight.grad is not None
    layer.weight.grad = layer.weight.grad.to_dense()
    ours.step()


#: A parameter that the constructor refuses.
PARAMETERS: dict[str, Callable[[], Tensor]] = {
    "layout": lambda: torch.zeros(3, 3).to_sparse(),
    "device": lambda: torch.zeros(3, device="meta"),
    "dtype": lambda: torch.zeros(3, dtype=torch.int32),
    "conjugate": lambda: normal(0, 5, dtype=torch.complex64).conj(),
}


@pytest.mark.parametrize("case", PARAMETERS)
@EVERY
def test_a_parameter_is_refused_by_it(kind: type[Cosmic], case: str) -> None:
    with pytest.raises(UnsupportedTensorError, match="parameter 0"):
        kind([PARAMETERS[case]()])
    optimizer = kind([parameter(0, 3)])
    with pytest.raises(UnsupportedTensorError, match="parameter 1"):
        optimizer.add_param_group({"params": [PARAMETERS[case]()]})
    assert len(optimizer.param_groups) == 1


#: What a float32 parameter of 9 elements has in the place of its gradient.
GRADIENTS: dict[str, Callable[[], Tensor]] = {
    "layout": lambda: torch.ones(9).to_sparse(),
    "dtype": lambda: torch.ones(9, dtype=torch.int32),
    "float64": lambda: torch.ones(9, dtype=torch.float64),
    "memory": freed,
}


@pytest.mark.parametrize("nonfinite", ["propagate", "skip"])
@pytest.mark.parametrize("case", GRADIENTS)
def test_a_gradient_is_refused_by_it(case: str, nonfinite: str) -> None:
    p = parameter(0, 9)
    optimizer = Cosmic([("weight", p)], nonfinite=nonfinite)
    set_gradient(p, GRADIENTS[case]())
    with refused(optimizer, UnsupportedTensorError, "'weight'", "gradient"):
        optimizer.step()


@pytest.mark.parametrize("case", ["layout", "dtype", "float64", "memory"])
def test_a_gradient_is_refused_by_it_in_backward(case: str) -> None:
    p = parameter(0, 9)
    optimizer = Cosmic([("weight", p)])
    with optimizer.step_in_backward():
        set_gradient(p, GRADIENTS[case]())
        with refused(optimizer, UnsupportedTensorError, "'weight'", "gradient"):
            optimizer.step()


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.ones(3).to_sparse(), lambda: torch.ones(3, device="meta"),
        lambda: torch.ones(3).double(), lambda: torch.ones(3, dtype=torch.complex64), freed,
    ],
    ids=["layout", "device", "float64", "complex", "memory"],
)  # fmt: skip
@pytest.mark.parametrize("codec", ["absmax", "u4"])
def test_quantize_refuses_by_it(make: Callable[[], Tensor], codec: str) -> None:
    with pytest.raises(UnsupportedTensorError, match="tensor"):
        quantize(make(), codec=codec)


def test_what_is_no_tensor_is_a_type_error_alone() -> None:
    """It is not one that torch would take."""
    wrong: Any = [1.0]
    with pytest.raises(TypeError) as caught:
        quantize(wrong)
    assert not isinstance(caught.value, RuntimeError)
