"""Block-wise quantization to signed integers of 4 or 8 bits, to nearest with ties to even."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def levels(bits: int) -> int:
    """The largest code: 7 or 127."""
    return (1 << bits - 1) - 1


def encode(
    values: NDArray[np.float32], bits: int, block_size: int
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """(codes, scales) of flat values; the last block is padded with zeros."""
    blocks = -(-values.size // block_size)
    padded = np.zeros((blocks, block_size), np.float32)
    padded.reshape(-1)[: values.size] = values
    codes, scales = [], np.empty(blocks, np.float32)
    for b, block in enumerate(padded):
        absmax = np.abs(block).max()
        scales[b] = absmax / np.float32(levels(bits))
        with np.errstate(over="ignore"):
            if scales[b] * np.float32(levels(bits)) > absmax:  # no level above the largest value
                scales[b] = np.nextafter(scales[b], np.float32(0))
        scaled = block / scales[b] if scales[b] > 0 else np.zeros_like(block)
        integers = np.clip(np.rint(scaled), -levels(bits), levels(bits)).astype(np.int64)
        codes.append(_pack(integers, bits))
    packed = np.concatenate(codes) if codes else np.empty(0, np.uint8)
    return packed, scales


def _pack(integers: NDArray[np.int64], bits: int) -> NDArray[np.uint8]:
    if bits == 8:
        return integers.astype(np.int8).view(np.uint8)
    words = integers.size // 8
    planes = (integers + 8).reshape(8, words)  # plane i becomes nibble i of every word
    packed = sum(planes[i] << 4 * i for i in range(8))
    return np.asarray(packed).astype("<u4").view(np.uint8)


def decode(
    codes: NDArray[np.uint8], scales: NDArray[np.float32], bits: int, block_size: int, count: int
) -> NDArray[np.float32]:
    """The inverse of ``encode`` for ``count`` values."""
    integers: NDArray[Any]
    if bits == 8:
        integers = codes.view(np.int8).reshape(-1, block_size)
    else:
        words = codes.view("<u4").reshape(-1, 1, block_size // 8)
        shifts = (4 * np.arange(8)).reshape(1, 8, 1)
        integers = ((words >> shifts) & 15).astype(np.int64).reshape(-1, block_size) - 8
    return (integers.astype(np.float32) * scales[:, None]).reshape(-1)[:count]
