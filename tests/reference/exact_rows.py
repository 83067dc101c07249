"""Functions of elements and of rows by the C library's functions and exactly rounded sums.

Numbers are Python floats, rows are lists. What the core computes is held against this to a few
units of the last place, not bit for bit: the core has its own exponential and its own order of
sums, and promises that both are the same everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

Row = list[float]


class Function(NamedTuple):
    value: Callable[[float], float]
    slope: Callable[[float], float]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def share_below(x: float) -> float:
    """Of the normal distribution."""
    return math.erfc(-x / math.sqrt(2)) / 2


def density(x: float) -> float:
    return math.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def twice_u(x: float) -> float:
    """What the tanh of ``gelu_tanh`` is of, twice."""
    return 2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)


def slope_of_gelu_tanh(x: float) -> float:
    bent = sigmoid(twice_u(x)) * sigmoid(-twice_u(x))
    inner = 2 * math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x * x)
    return sigmoid(twice_u(x)) + x * bent * inner


FUNCTIONS = {
    "exp": Function(math.exp, math.exp),
    "log": Function(math.log, lambda x: 1 / x),
    "tanh": Function(math.tanh, lambda x: 4 * sigmoid(2 * x) * sigmoid(-2 * x)),
    "erf": Function(math.erf, lambda x: 2 / math.sqrt(math.pi) * math.exp(-x * x)),
    "sigmoid": Function(sigmoid, lambda x: sigmoid(x) * sigmoid(-x)),
    "gelu": Function(lambda x: x * share_below(x), lambda x: share_below(x) + x * density(x)),
    "gelu_tanh": Function(lambda x: x * sigmoid(twice_u(x)), slope_of_gelu_tanh),
    "silu": Function(
        lambda x: x * sigmoid(x),
        lambda x: sigmoid(x) + x * sigmoid(x) * sigmoid(-x),
    ),
}


def products(a: Sequence[float], b: Sequence[float]) -> float:
    return math.fsum(x * y for x, y in zip(a, b, strict=True))


def softmax(x: Row, scale: float, seen: int) -> Row:
    """Of the first ``seen`` numbers; the others get 0, as all do where none is above -inf."""
    most = max(x[:seen], default=-math.inf)
    if most == -math.inf:
        return [0.0] * len(x)
    powers = [math.exp(scale * (number - most)) for number in x[:seen]]
    total = math.fsum(powers)
    return [power / total for power in powers] + [0.0] * (len(x) - seen)


def softmax_backward(y: Row, grad: Row, scale: float) -> Row:
    mean = products(y, grad)
    return [scale * share * (g - mean) for share, g in zip(y, grad, strict=True)]


class Normalized(NamedTuple):
    y: Row
    mean: float
    rstd: float


def normalize(x: Row, weight: Row, bias: Row, eps: float, centered: bool) -> Normalized:
    """LayerNorm, or RMSNorm where it is not centered."""
    mean = math.fsum(x) / len(x) if centered else 0.0
    apart = [number - mean for number in x]
    rstd = 1 / math.sqrt(products(apart, apart) / len(x) + eps)
    y = [d * rstd * w + b for d, w, b in zip(apart, weight, bias, strict=True)]
    return Normalized(y, mean, rstd)


def heights(x: Row, mean: float, rstd: float) -> Row:
    return [(number - mean) * rstd for number in x]


def normalize_backward(
    x: Row, weight: Row, mean: float, rstd: float, grad: Row, centered: bool
) -> Row:
    """The gradient to ``x``."""
    height = heights(x, mean, rstd)
    along = [g * w for g, w in zip(grad, weight, strict=True)]
    plain = math.fsum(along) / len(x) if centered else 0.0
    slope = products(along, height) / len(x)
    return [rstd * (d - plain - h * slope) for d, h in zip(along, height, strict=True)]


def column_sums(rows: Sequence[Row]) -> Row:
    return [math.fsum(column) for column in zip(*rows, strict=True)]


class Loss(NamedTuple):
    loss: float
    lse: float


def cross_entropy(x: Row, target: int, smoothing: float) -> Loss:
    most = max(x)
    lse = most + math.log(math.fsum(math.exp(number - most) for number in x))
    mean = math.fsum(x) / len(x)
    return Loss((1 - smoothing) * (lse - x[target]) + smoothing * (lse - mean), lse)


def cross_entropy_backward(x: Row, lse: float, target: int, smoothing: float, grad: float) -> Row:
    wanted = [
        smoothing / len(x) + (1 - smoothing if column == target else 0) for column in range(len(x))
    ]
    return [grad * (math.exp(number - lse) - part) for number, part in zip(x, wanted, strict=True)]


# ---- random numbers --------------------------------------------------------------------------


def hash32(x: int) -> int:
    """Wellons' lowbias32."""
    x ^= x >> 16
    x = x * 0x7FEB352D & 0xFFFFFFFF
    x ^= x >> 15
    x = x * 0x846CA68B & 0xFFFFFFFF
    return x ^ x >> 16


def random_bits(key: int, index: int, number: int) -> int:
    """32 bits of an element: which of its numbers it is, ``number`` says."""
    weyl = 0x9E3779B9
    low = hash32((key + number * weyl) & 0xFFFFFFFF)
    high = hash32(key >> 32 ^ hash32((low + (index >> 32) * weyl) & 0xFFFFFFFF))
    return hash32((hash32((index ^ low) & 0xFFFFFFFF) + high) & 0xFFFFFFFF)


def keeps(key: int, index: int, p: float) -> bool:
    """Whether dropout keeps an element: its bits as a signed number, from the least one on."""
    bits = random_bits(key, index, 0)
    signed = bits - 2**32 if bits >= 2**31 else bits
    return signed + 2**31 >= round(p * 2**32)


def uniform(key: int, index: int, low: float, high: float) -> float:
    upper, lower = (random_bits(key, index, number) for number in (0, 1))
    return low + (high - low) * (upper / 2**32 + (lower >> 11) / 2**53)


def normal(key: int, index: int, mean: float, std: float) -> float:
    radius, angle = (random_bits(key, index, number) / 2**32 for number in (0, 1))
    size = math.sqrt(-2 * math.log(radius + 2**-32))
    return mean + std * size * math.cos(2 * math.pi * angle)
