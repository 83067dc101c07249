"""``fp32``, ``fp64``: as they are. ``bf16``: rounded stochastically. One number an element."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .codec import Array, Planes
from .random_bits import bits_of
from .storage import STORED, narrow_stochastic, widen


@dataclass(frozen=True)
class Plain:
    numel: int
    dtype: str  # torch's name
    update_units: bool = False

    def empty(self) -> Planes:
        return {"": np.zeros(self.numel, STORED[self.dtype])}

    def decode(self, planes: Planes, decay: Array) -> Array:
        return decay * widen(planes[""], self.dtype)

    def unit(self, planes: Planes, denominators: Array) -> Array:
        return denominators

    def roots(self, planes: Planes) -> Array:
        return np.sqrt(widen(planes[""], self.dtype))

    def unit_roots(self, planes: Planes, decay: Array) -> tuple[Array, np.float32]:
        return self.roots(planes), np.float32(1)

    def levels(self, planes: Planes, decay: Array) -> tuple[Array, Array] | None:
        return None

    def encode(
        self, old: Planes, decayed: Array, values: Array, keys: NDArray[np.uint64]
    ) -> Planes:
        if self.dtype == "bfloat16":
            return {"": narrow_stochastic(values, bits_of(keys).reshape(-1)[: self.numel])}
        return {"": values}
