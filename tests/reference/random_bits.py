"""Random bits from a counter: seed, step, tensor, block, slot, lane; never from a stream."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BLOCK = 128
WEYL = 0x9E3779B9  # 2^32 / golden ratio
MASK32, MASK64 = 2**32 - 1, 2**64 - 1
PARAM_SLOT = 3  # of the parameter itself, after m, m_slow and v
MASTER_SLOT = 4  # of the parameter with its lower bits


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


def slot_keys(key: int, slot: int, numel: int) -> NDArray[np.uint64]:
    """One hash for each block of a tensor with this key, which stands in the upper halves."""
    blocks = range(-(-numel // BLOCK))
    block_keys = (hash32(key ^ (b & MASK32) ^ ((b >> 32) * WEYL & MASK32)) for b in blocks)
    keys = [hash32((block_key + slot * WEYL) & MASK32) for block_key in block_keys]
    return np.array([key << 32 | each for each in keys], np.uint64).reshape(-1, 1)


def tensor_keys(keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Of every block, the key of its tensor."""
    return keys >> np.uint64(32)


def group_bits(bits: int) -> NDArray[np.uint64]:
    """What tells a block's groups of 16 apart, for numbers of so many bits, one an element: the
    group's number in the upper three, the other way round."""
    groups = np.arange(BLOCK) // 16
    reverse = (groups & 1) << 2 | (groups & 2) | groups >> 2
    return reverse.astype(np.uint64) << np.uint64(bits - 3)


def spread(firsts: NDArray[np.uint64], bits: int) -> NDArray[np.uint64]:
    """Numbers of that many bits for 16 lanes, (blocks, 16), made those of a whole block."""
    lanes = np.tile(firsts % np.uint64(2**bits), BLOCK // 16)
    return np.asarray(lanes ^ group_bits(bits))


def bits_of(keys: NDArray[np.uint64]) -> NDArray[np.uint32]:
    """32 random bits an element, (blocks, 128): a Weyl sequence along each block."""
    lanes = np.arange(BLOCK, dtype=np.uint64)
    return ((keys + lanes * np.uint64(WEYL)) & np.uint64(MASK32)).astype(np.uint32)


def spread_bits_of(keys: NDArray[np.uint64]) -> NDArray[np.uint32]:
    """The same from a Weyl sequence along 16 lanes."""
    return spread(keys + np.arange(16, dtype=np.uint64) * np.uint64(WEYL), 32).astype(np.uint32)


def element_bits(key: int, slot: int, numel: int) -> NDArray[np.uint32]:
    """32 random bits for each element of a tensor, flat."""
    return bits_of(slot_keys(key, slot, numel)).reshape(-1)[:numel]


def uniform(keys: NDArray[np.uint64], bits: int) -> NDArray[np.float32]:
    """Numbers in [0, 1) of that many bits, (blocks, 128): the upper bits of the golden ratio, made
    odd, step a Weyl sequence of their own length along 16 lanes."""
    step = WEYL >> (32 - bits) | 1
    fractions = spread(keys + np.arange(16, dtype=np.uint64) * np.uint64(step), bits)
    return (fractions / 2.0**bits).astype(np.float32)
