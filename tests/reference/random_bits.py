"""Random bits from a counter: seed, step, tensor, block, slot, lane; never from a stream."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BLOCK = 128
WEYL = 0x9E3779B9  # 2^32 / golden ratio
MASK32, MASK64 = 2**32 - 1, 2**64 - 1


def hash32(x: int) -> int:
    """lowbias32 (Wellons, "Prospecting for hash functions", 2018)."""
    x ^= x >> 16
    x = x * 0x7FEB352D & MASK32
    x ^= x >> 15
    x = x * 0x846CA68B & MASK32
    return x ^ (x >> 16)


def tensor_key(seed: int, step: int, index: int) -> int:
    """Key of parameter ``index`` at a step with ``step`` steps behind it: splitmix64's finalizer
    (Steele, Lea & Flood, OOPSLA 2014)."""
    x = (seed + 0x9E3779B97F4A7C15 * (step + 1)) & MASK64
    x ^= index << 32 | index
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & MASK64
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & MASK64
    return (x ^ (x >> 31)) >> 32


def element_bits(key: int, slot: int, numel: int) -> NDArray[np.uint32]:
    """32 random bits an element: one hash a block and slot, then a Weyl sequence along it."""
    bits = np.empty(numel, np.uint32)
    for first in range(0, numel, BLOCK):
        block = first // BLOCK
        block_key = hash32(key ^ (block & MASK32) ^ ((block >> 32) * WEYL & MASK32))
        slot_key = hash32((block_key + slot * WEYL) & MASK32)
        for lane in range(min(BLOCK, numel - first)):
            bits[first + lane] = (slot_key + lane * WEYL) & MASK32
    return bits
