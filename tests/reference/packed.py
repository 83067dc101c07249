"""Codes of 1, 2, 4 or 8 bits in blocks of 128.

A block is 8 groups of 16 codes. Word ``j`` of a row holds the codes ``j`` of all its groups, the
first in its lowest bits: all 8 groups in one row of 16 words, but with 8 bits groups 0 to 3 in one
and 4 to 7 in the next. Words have as many bits as that takes: 8, 16, 32 and 32.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_WORDS = {1: "<u1", 2: "<u2", 4: "<u4", 8: "<u4"}


def _shifts(bits: int) -> NDArray[np.int64]:
    groups = 4 if bits == 8 else 8
    return bits * np.arange(groups).reshape(groups, 1)


def pack(codes: NDArray[np.int64], bits: int) -> NDArray[np.uint8]:
    """Bytes of (blocks, 128) codes."""
    assert codes.size == 0 or 0 <= codes.min() <= codes.max() < 1 << bits
    shifts = _shifts(bits)
    words = (codes.reshape(-1, len(shifts), 16) << shifts).sum(axis=1)
    packed: NDArray[np.uint8] = words.astype(_WORDS[bits]).view(np.uint8).reshape(-1)
    return packed


def unpack(packed: NDArray[Any], bits: int) -> NDArray[np.int64]:
    """(blocks, 128) codes."""
    words = packed.view(_WORDS[bits]).astype(np.int64).reshape(-1, 1, 16)
    return ((words >> _shifts(bits)) & ((1 << bits) - 1)).reshape(-1, 128)
