"""Codecs with a few bits an element and one word a block of 128.

Only ordinary values are encoded. In a block that holds others, and in the last one where it is
partial, every value is mended first: what is infinite or NaN becomes what its element had before,
and elements past the tensor's end become the format's padding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from .codec import Array, Planes
from .packed import pack, unpack
from .random_bits import BLOCK


class Format(Protocol):
    """The arithmetic of whole blocks: values are (blocks, 128), words one a block."""

    @property
    def bits(self) -> int: ...
    @property
    def update_units(self) -> bool: ...
    @property
    def word(self) -> str: ...  # NumPy's type
    def decode(self, codes: Array, words: Array, decay: Array) -> Array: ...
    def ordinary(self, values: Array) -> Array: ...  # whether a block needs no mending
    def mended(self, values: Array, before: Array) -> Array: ...
    def padding(self, values: Array) -> Array: ...
    def encode(
        self, values: Array, counts: Array, keys: NDArray[np.uint64]
    ) -> tuple[Array, Array]: ...


@runtime_checkable
class WithLevels(Protocol):
    """A format of whole numbers under a level a block."""

    def levels(self, codes: Array, words: Array, decay: Array) -> tuple[Array, Array]: ...


@dataclass(frozen=True)
class Blockwise:
    numel: int
    format: Format

    @property
    def update_units(self) -> bool:
        return self.format.update_units

    @property
    def blocks(self) -> int:
        return -(-self.numel // BLOCK)

    def empty(self) -> Planes:
        codes = np.zeros(self.blocks * BLOCK * self.format.bits // 8, np.uint8)
        return {"": codes, "_scale": np.zeros(self.blocks, self.format.word)}

    def decode(self, planes: Planes, decay: Array) -> Array:
        return self._decode_blocks(planes, decay).reshape(-1)[: self.numel]

    def unit(self, planes: Planes, denominators: Array) -> Array:
        return denominators

    def roots(self, planes: Planes) -> Array:
        return np.sqrt(self.decode(planes, np.array(1, np.float32)))

    def unit_roots(self, planes: Planes, decay: Array) -> tuple[Array, np.float32]:
        return self.roots(planes), np.float32(1)

    def levels(self, planes: Planes, decay: Array) -> tuple[Array, Array] | None:
        if not isinstance(self.format, WithLevels) or not self.update_units:
            return None
        codes = unpack(planes[""], self.format.bits)
        whole, levels = self.format.levels(codes, planes["_scale"].reshape(-1, 1), decay)
        each = np.broadcast_to(levels, whole.shape)
        return whole.reshape(-1)[: self.numel], each.reshape(-1)[: self.numel]

    def encode(
        self, old: Planes, decayed: Array, values: Array, keys: NDArray[np.uint64]
    ) -> Planes:
        padded = np.zeros((self.blocks, BLOCK), np.float32)
        padded.reshape(-1)[: self.numel] = values
        counts = np.full(self.blocks, BLOCK)
        counts[-1] = self.numel - BLOCK * (self.blocks - 1)

        before = self._decode_blocks(old, np.array(1, np.float32))
        mended = self.format.mended(padded, before)
        inside = np.arange(BLOCK) < counts[:, None]
        mended = np.where(inside, mended, self.format.padding(mended))
        fine = self.format.ordinary(padded) & (counts == BLOCK)

        codes, words = self.format.encode(np.where(fine[:, None], padded, mended), counts, keys)
        return {"": pack(codes, self.format.bits), "_scale": words.astype(self.format.word)}

    def _decode_blocks(self, planes: Planes, decay: Array) -> Array:
        codes = unpack(planes[""], self.format.bits)
        return self.format.decode(codes, planes["_scale"].reshape(-1, 1), decay)
