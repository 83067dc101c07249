"""Codes of 1, 2, 3, 4, 6 or 8 bits in blocks of 128.

A block is 8 groups of 16 codes. Word ``j`` of a row holds the codes ``j`` of all its groups, the
first in its lowest bits: all 8 groups in one row of 16 words, but with 8 bits groups 0 to 3 in one
and 4 to 7 in the next. Words have as many bits as that takes: 8, 16, 32 and 32.

Codes of 3 bits are a block's lower 2 bits as such, then the upper ones; of 6 bits, 4 and 2.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_LOWER = {3: 2, 6: 4}  # bits of the first part
_WORDS = {1: "<u1", 2: "<u2", 4: "<u4", 8: "<u4"}


def _shifts(bits: int) -> NDArray[np.int64]:
    groups = 4 if bits == 8 else 8
    return bits * np.arange(groups).reshape(groups, 1)


def pack(codes: NDArray[np.int64], bits: int) -> NDArray[np.uint8]:
    """Bytes of (blocks, 128) codes."""
    assert codes.size == 0 or 0 <= codes.min() <= codes.max() < 1 << bits
    if bits in _LOWER:
        lower = _LOWER[bits]
        parts = pack(codes & ((1 << lower) - 1), lower), pack(codes >> lower, bits - lower)
        return np.hstack([part.reshape(len(codes), -1) for part in parts]).reshape(-1)
    shifts = _shifts(bits)
    words = (codes.reshape(-1, len(shifts), 16) << shifts).sum(axis=1)
    packed: NDArray[np.uint8] = words.astype(_WORDS[bits]).view(np.uint8).reshape(-1)
    return packed


def unpack(packed: NDArray[Any], bits: int) -> NDArray[np.int64]:
    """(blocks, 128) codes."""
    if bits in _LOWER:
        lower, blocks = _LOWER[bits], packed.reshape(-1, 16 * bits)
        first, second = np.split(blocks, [16 * lower], axis=1)
        above = unpack(np.ascontiguousarray(second), bits - lower)
        return unpack(np.ascontiguousarray(first), lower) | above << lower
    words = packed.view(_WORDS[bits]).astype(np.int64).reshape(-1, 1, 16)
    return ((words >> _shifts(bits)) & ((1 << bits) - 1)).reshape(-1, 128)
