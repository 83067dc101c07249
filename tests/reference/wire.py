"""Gradients as bytes: every block of 128 by itself, in NumPy.

``u4`` and ``q8`` are the codes of ``signed_levels`` with the scale behind them; ``top8`` is a list
of 8 indices and 8 values under a scale. A block that is not finite, or reaches 2^127, has a scale
that is NaN.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .codec import Array
from .packed import pack, unpack
from .random_bits import BLOCK, MASK64, bits_of, slot_keys, tensor_key
from .signed_levels import LEAST, SignedLevels
from .storage import narrow_stochastic, widen

Bytes = NDArray[np.uint8]
BITS = {"q8": 8, "u4": 4}
BLOCK_BYTES = {"q8": 130, "u4": 66, "top8": 13}
RESIDUAL_SLOT = 3  # of the random bits
NAN = 0x7FC0  # as a bf16 number
TOO_LARGE = np.float32(2.0**127)
LEVELS = np.array([0.40, 0.51, 0.59, 0.67, 0.75, 0.82, 0.90, 1.0], np.float32)


def key_of(seed: int, step: int, index: int, rank: int) -> int:
    return tensor_key((seed + 0xD1B54A32D192ED03 * rank) & MASK64, step, index)


def in_blocks(values: Array) -> Array:
    """(blocks, 128), padded with zeros."""
    padded = np.zeros(-(-values.size // BLOCK) * BLOCK, np.float32)
    padded[: values.size] = values
    return padded.reshape(-1, BLOCK)


@np.errstate(divide="ignore", invalid="ignore", over="ignore")
def encode(
    gradient: Array,
    residual: Array | None,
    codec: str,
    key: int,
    stochastic: bool,
    decay: float = 1.0,
) -> tuple[Bytes, Array | None]:
    """Bytes of a gradient in float32, and what is left: bf16 as uint16, or float32."""
    if not (gradient != 0).any():
        blocks = -(-gradient.size // BLOCK)
        return np.zeros(blocks * BLOCK_BYTES[codec], np.uint8), residual
    x = in_blocks(gradient)
    if residual is not None:
        half = residual.dtype == np.uint16
        x = in_blocks(widen(residual, "bfloat16") if half else residual) + x
    finite = np.asarray((np.abs(x) < TOO_LARGE).all(axis=1))
    if codec == "top8":
        sent = np.concatenate([encode_top8(block) for block in x])
    else:
        sent = encode_levels(x, finite, BITS[codec], key, stochastic)
    if residual is None:
        return sent, None
    left = np.where(finite.reshape(-1, 1), x - decode(sent, codec), np.float32(0))
    left = left.reshape(-1)[: gradient.size] * np.float32(decay)
    if not half:
        return sent, left
    keys = slot_keys(key, RESIDUAL_SLOT, gradient.size)
    return sent, narrow_stochastic(left, bits_of(keys).reshape(-1)[: gradient.size])


def encode_levels(x: Array, finite: Array, bits: int, key: int, stochastic: bool) -> Bytes:
    levels = SignedLevels(bits, update_units=True)
    keys = slot_keys(key, 0, x.size)
    calm = np.where(finite.reshape(-1, 1), x, np.float32(0))
    codes, words = levels.encode(calm, np.full(len(x), BLOCK), keys, to_nearest=not stochastic)
    codes = np.where(finite.reshape(-1, 1), codes, 0)
    words = np.where(finite, words, NAN).astype("<u2")
    packed = pack(codes, bits).reshape(len(x), -1)
    return np.hstack([packed, words.view(np.uint8).reshape(-1, 2)]).reshape(-1)


def encode_top8(x: Array) -> Bytes:
    magnitudes = np.abs(x)
    top = magnitudes.max()
    indices, values = [], []
    if not (magnitudes < TOO_LARGE).all():
        word = NAN
    elif top < LEAST:
        word = 0
    else:
        word = nearest_bf16(top)
        scale = widen(np.array([word], np.uint16), "bfloat16")[0]
        largest = sorted(np.argsort(-magnitudes, kind="stable")[:8])
        grid = np.concatenate([[np.float32(0)], LEVELS])
        bounds = np.float32(0.5) * (grid[:-1] + grid[1:])
        for index in largest:
            level = int((magnitudes[index] / scale >= bounds).sum())
            if level:
                indices.append(int(index))
                values.append((8 if np.signbit(x[index]) else 0) + level - 1)
    places = (indices or [0]) + [(indices or [0])[-1]] * (8 - max(1, len(indices)))
    packed = sum(place << 7 * k for k, place in enumerate(places))
    nibbles = sum(value << 4 * k for k, value in enumerate(values))
    whole = packed | nibbles << 56 | word << 88
    return np.frombuffer(whole.to_bytes(13, "little"), np.uint8)


def nearest_bf16(x: np.float32) -> int:
    bits = int(np.float32(x).view(np.uint32))
    return (bits + 0x7FFF + (bits >> 16 & 1)) >> 16


def decode(sent: Bytes, codec: str) -> Array:
    """(blocks, 128) in float32."""
    blocks = sent.reshape(-1, BLOCK_BYTES[codec])
    if codec == "top8":
        return np.stack([decode_top8(block) for block in blocks])
    bits = BITS[codec]
    codes = unpack(np.ascontiguousarray(blocks[:, :-2]), bits)
    words = np.ascontiguousarray(blocks[:, -2:]).view("<u2")
    return SignedLevels(bits, update_units=True).decode(codes, words, np.ones(1, np.float32))


def decode_top8(block: Bytes) -> Array:
    whole = int.from_bytes(block.tobytes(), "little")
    scale = widen(np.array([whole >> 88], np.uint16), "bfloat16")[0]
    out = np.full(BLOCK, np.nan if np.isnan(scale) else 0, np.float32)
    last = -1
    for k in range(8):
        index, value = whole >> 7 * k & 127, whole >> 56 >> 4 * k & 15
        if index <= last or not scale > 0:
            break
        out[index] = LEVELS[value & 7] * scale * np.float32(-1 if value & 8 else 1)
        last = index
    return out


def mean(sent: list[Bytes], codec: str, numel: int) -> Array:
    """Of the ranks, in their order."""
    total = np.zeros_like(decode(sent[0], codec))
    for each in sent:
        total += decode(each, codec)
    return np.asarray((total / np.float32(len(sent))).reshape(-1)[:numel])
