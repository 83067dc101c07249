"""How numbers lie in memory: storage types, and rounding to them.

bfloat16 has no NumPy type; it is carried as the uint16 of its bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

#: NumPy's type for a stored number, by torch's name of the (real) dtype.
STORED: dict[str, type[np.generic]] = {
    "float32": np.float32,
    "bfloat16": np.uint16,
    "float16": np.float16,
    "float64": np.float64,
}


def arithmetic(dtype: str) -> type[np.floating[Any]]:
    """The type that a parameter of ``dtype`` is stepped in."""
    return np.float64 if dtype == "float64" else np.float32


def widen(stored: Array, dtype: str) -> Array:
    """Stored numbers in the arithmetic type; exact."""
    if dtype == "bfloat16":
        return (stored.astype(np.uint32) << 16).view(np.float32)
    return stored.astype(arithmetic(dtype))


def narrow(values: Array, dtype: str) -> Array:
    """Numbers of the arithmetic type as stored: to nearest, ties to even."""
    if dtype != "bfloat16":
        with np.errstate(over="ignore"):
            return values.astype(STORED[dtype])
    bits = values.view(np.uint32)
    return _cut_to_bf16(values, 0x7FFF + (bits >> 16 & 1))


def narrow_stochastic(values: Array, random_bits: NDArray[np.uint32]) -> Array:
    """To bfloat16, up with the probability that makes the mean right: add 16 random bits below
    the cut, then cut."""
    return _cut_to_bf16(values, random_bits >> 16)


def _cut_to_bf16(values: Array, addend: Array) -> Array:
    cut = (values.view(np.uint32) + addend) >> 16
    return np.where(np.isnan(values), 0x7FC0, cut).astype(np.uint16)


# ---- bfloat16 with eight bits more --------------------------------------------------------------


def join_24(high: Array, low: Array) -> Array:
    """Floats of the 24 bits that ``high`` (bfloat16's, uint16) and ``low`` (int8) are together. Low
    bits that cannot go with their high ones, which somebody has changed, count for zero."""
    magnitude, low = high & 0x7FFF, low.astype(np.int64)
    low = np.where((magnitude == 0) & (low < 0), 0, low)
    low = np.where((magnitude == 0x7F80) & (low > 0), 0, low)
    low = np.where(magnitude > 0x7F80, 0, low)
    return (((high.astype(np.int64) << 8) + low) << 8).astype(np.uint32).view(np.float32)


def split_24(values: Array, random_bits: NDArray[np.uint32] | None = None) -> tuple[Array, Array]:
    """The halves of floats rounded to 24 bits: to nearest, ties to even, or up with the probability
    that makes the mean right."""
    bits = values.view(np.uint32).astype(np.int64)
    addend = 0x7F + (bits >> 8 & 1) if random_bits is None else random_bits.astype(np.int64) >> 24
    t = np.where(np.isnan(values), 0x7FC000, (bits + addend) >> 8)
    high = (t + 128) >> 8
    return high.astype(np.uint16), (t - (high << 8)).astype(np.int8)
