"""What several test files share: numbers, gradients, fingerprints, a text to train on."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cosmic import Cosmic, _core
from cosmic.state.entries import rung_of
from cosmic.state.shards import local_of

#: Sizes where blocks of 128 and lanes of 16 begin and end.
SIZES = (1, 7, 127, 128, 129, 511, 4097)

#: Options that are nowhere at their defaults.
UNUSUAL: dict[str, Any] = {"lr": 3e-3, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.1}

TEXT = "".join(
    f"the quick brown fox jumps over the lazy dog, and number {number} never sleeps\n"
    for number in range(400)
)

_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_REAL = {torch.complex64: torch.float32, torch.complex128: torch.float64}


@cache
def with_slow_average() -> frozenset[str]:
    """Names of state dtypes that are compiled with a slow average, too."""
    rows = (name.split() for name in _core.combinations())
    found = (
        (m, slow, v) for real, rule, m, slow, v, *_ in rows if (real, rule) == ("float", "adam")
    )
    return frozenset(f"{m}+{v}" for m, slow, v in found if m == slow)


def normal(
    seed: int, *shape: int, dtype: torch.dtype = torch.float32, scale: float = 1.0
) -> Tensor:
    """Normal numbers that depend on nothing but the seed."""
    generator = torch.Generator().manual_seed(seed)
    real = _REAL.get(dtype, dtype)
    size = (*shape, 2) if dtype.is_complex else shape
    values = (torch.randn(size, generator=generator, dtype=torch.float64) * scale).to(real)
    return torch.view_as_complex(values) if dtype.is_complex else values


def parameter(seed: int, *shape: int, dtype: torch.dtype = torch.float32) -> nn.Parameter:
    return nn.Parameter(normal(seed, *shape, dtype=dtype))


def parameters(*shapes: Sequence[int], dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    """One parameter a shape, all different."""
    return [parameter(k, *shape, dtype=dtype) for k, shape in enumerate(shapes)]


def give_gradients(params: Iterable[Tensor], seed: int, scale: float = 1.0) -> None:
    """A normal gradient for every parameter."""
    for k, p in enumerate(params):
        p.grad = normal(1000 * seed + k, *p.shape, dtype=p.dtype, scale=scale)


def set_gradient(param: Tensor, gradient: Tensor | None) -> None:
    """Assign a gradient, of whatever dtype."""
    param.grad = None
    if gradient is not None and gradient.dtype != param.grad_dtype:
        param.grad_dtype = gradient.dtype
    param.grad = gradient


def take_steps(optimizer: Cosmic, first: int, last: int) -> None:
    """Steps first..last - 1, each with gradients of its own."""
    params = [p for group in optimizer.param_groups for p in group["params"]]
    for step in range(first, last):
        give_gradients(params, seed=step)
        optimizer.step()


def bits(tensor: Tensor) -> Tensor:
    """The same memory as integers, so that NaN equals itself and -0 differs from 0."""
    real = tensor.detach().resolve_conj().resolve_neg()
    if real.is_complex():
        real = torch.view_as_real(real)
    return real.contiguous().view(_BITS[real.element_size()])


def same_bits(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(bits(a), bits(b))


def stored(tensor: Tensor) -> NDArray[Any]:
    """A tensor's elements as the reference carries them: flat, real, bfloat16 as uint16."""
    array = bits(tensor).reshape(-1).numpy()
    real = _REAL.get(tensor.dtype, tensor.dtype)
    if real == torch.bfloat16:
        return array.view(np.uint16)
    return array.view(torch.empty(0, dtype=real).numpy().dtype)


def real_dtype_name(dtype: torch.dtype) -> str:
    """Such as ``"float32"`` for complex64."""
    return str(_REAL.get(dtype, dtype)).removeprefix("torch.")


def through_a_file(saved: dict[str, Any]) -> dict[str, Any]:
    """As ``torch.load(weights_only=True)`` brings it back."""
    file = io.BytesIO()
    torch.save(saved, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


def digest(optimizer: Cosmic) -> str:
    """Fingerprint of every parameter and of all state that is here: names, dtypes, shapes, bits."""
    found = hashlib.sha256()
    for index, param in enumerate(p for g in optimizer.param_groups for p in g["params"]):
        state = sorted(optimizer.state.get(param, {}).items())
        for key, value in [("param", local_of(param)), *state]:
            found.update(f"{index} {key}".encode())
            if isinstance(value, Tensor):
                found.update(f"{value.dtype} {tuple(value.shape)}".encode())
                found.update(bits(value).numpy().tobytes())
            else:
                found.update(repr(value).encode())
    return found.hexdigest()


@contextmanager
def refused(optimizer: Cosmic, error: type[BaseException], *fragments: str) -> Iterator[None]:
    """The block raises ``error`` with every fragment in its message, and changes nothing."""
    before = digest(optimizer)
    with pytest.raises(error) as caught:
        yield
    message = str(caught.value)
    missing = [fragment for fragment in fragments if fragment not in message]
    assert not missing, f"{missing} not in: {message}"
    assert digest(optimizer) == before


def plane(state: dict[str, Any], moment: str, what: str = "codes") -> Tensor:
    """One of the tensors that a packed state keeps of a moment, such as its codes."""
    slot = rung_of(state).second if moment == "exp_avg_sq" else moment
    found = state[f"{slot}_{rung_of(state).slots[slot]}_{what}"]
    assert isinstance(found, Tensor)
    return found


def state_tensors(optimizer: Cosmic) -> list[Tensor]:
    """Every tensor in the state of ``state_dict()``."""
    return [
        value
        for state in optimizer.state_dict()["state"].values()
        for value in state.values()
        if isinstance(value, Tensor)
    ]
