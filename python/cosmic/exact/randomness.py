"""Random numbers from a counter: dropout and initial weights."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .. import _core
from ..threads import thread_count
from .nodes import Gradients, applied, first_order
from .tensors import check_tensors

__all__ = ["draw_key", "dropout", "normal_", "uniform_"]

_KEYS = 1 << 64


def draw_key(generator: torch.Generator | None = None) -> int:
    """64 bits of torch's CPU generator, the same integers on every machine.

    Args:
        generator: of the CPU; None: torch's own, of ``torch.manual_seed``.
    """
    number = torch.empty((), dtype=torch.int64, device="cpu")
    return int(number.random_(-(1 << 63), None, generator=generator)) % _KEYS


def dropout(
    input: Tensor,
    p: float = 0.5,
    training: bool = True,
    *,
    key: int | None = None,
) -> Tensor:
    """Each element is 0 with probability ``p`` and ``x / (1 - p)`` else.

    Element ``i``, in the order of indices, is decided by a number of ``(key, i)``. So the mask
    depends neither on threads nor on the dtype.

    Args:
        input: float32 or float64, of any shape.
        p: at least 0 and below 1.
        training: False: the input is handed on as it is, and nothing is drawn.
        key: 64 bits; None: drawn from torch's CPU generator, one draw a call.

    Returns:
        A tensor of the same shape.

    Raises:
        ValueError: for another ``p`` or key.
        UnsupportedTensorError: for another device, layout or dtype.

    Source: ``torch.nn.functional.dropout``; arXiv 1207.0580.
    """
    check_tensors("dropout", input=input)
    check_probability("dropout", p)
    if not training or p == 0:
        return input
    return applied(_Dropout, input.contiguous(), float(p), _key("dropout", key))


def check_probability(op: str, p: float) -> None:
    """See that an argument is a probability of dropout.

    Raises:
        ValueError: it is not.
    """
    if not 0 <= p < 1:
        raise ValueError(f"exact.{op}(): p is {p}; expected at least 0 and below 1")


def _key(op: str, key: int | None) -> int:
    if key is None:
        return draw_key()
    if not 0 <= key < _KEYS:
        raise ValueError(f"exact.{op}(): key is {key}; expected 64 bits, 0 to 2^64 - 1")
    return key


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float, key: int) -> Tensor:
        ctx.p, ctx.key = p, key
        return dropped(x, p, key)

    @staticmethod
    @first_order
    def backward(ctx: Any, grad: Tensor) -> Gradients:
        return dropped(grad.contiguous(), ctx.p, ctx.key), None, None


def dropped(x: Tensor, p: float, key: int) -> Tensor:
    """Dropout of a contiguous tensor, without autograd; of a gradient, its backward."""
    out = torch.empty_like(x)
    _core.exact_dropout(x, out, p, key, thread_count())
    return out


def normal_(
    tensor: Tensor,
    mean: float = 0.0,
    std: float = 1.0,
    *,
    key: int | None = None,
) -> Tensor:
    """Fill a tensor with normal numbers, in place.

    Args:
        tensor: float32 or float64, of any shape and layout.
        mean: of the distribution.
        std: its standard deviation.
        key: 64 bits that decide all numbers; None: drawn from torch's CPU generator.

    Returns:
        The tensor.

    Raises:
        ValueError: for a negative or infinite ``std``, and another key.
        UnsupportedTensorError: for another device, layout or dtype.

    Source: ``torch.nn.init.normal_``; numbers as in ``exact.dropout`` from a counter.
    """
    check_tensors("normal_", tensor=tensor)
    if not (std >= 0 and math.isfinite(std) and math.isfinite(mean)):
        raise ValueError(
            f"exact.normal_(): mean is {mean}, std is {std}; expected finite ones, std at least 0"
        )
    return _filled(tensor, _core.exact_normal, mean, std, _key("normal_", key))


def uniform_(
    tensor: Tensor,
    low: float = 0.0,
    high: float = 1.0,
    *,
    key: int | None = None,
) -> Tensor:
    """Fill a tensor with numbers between two bounds, in place.

    Args:
        tensor: float32 or float64, of any shape and layout.
        low: the lower bound.
        high: the upper bound.
        key: 64 bits that decide all numbers; None: drawn from torch's CPU generator.

    Returns:
        The tensor.

    Raises:
        ValueError: for bounds in the wrong order, and another key.
        UnsupportedTensorError: for another device, layout or dtype.

    Source: ``torch.nn.init.uniform_``; numbers as in ``exact.dropout`` from a counter.
    """
    check_tensors("uniform_", tensor=tensor)
    if not (low <= high and math.isfinite(high - low)):
        raise ValueError(
            f"exact.uniform_(): low is {low}, high is {high}; expected finite ones in this order"
        )
    return _filled(tensor, _core.exact_uniform, low, high, _key("uniform_", key))


def _filled(tensor: Tensor, fill: Any, first: float, second: float, key: int) -> Tensor:
    with torch.no_grad():
        out = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
        fill(out, first, second, key, thread_count())
        return tensor.copy_(out)
