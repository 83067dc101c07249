"""What a codec is: how one slot of a tensor's state lies in memory between two steps."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
#: Tensors of a slot by what follows the slot's name: "", "_scale", "_row", "_col".
Planes = dict[str, Array]


class Codec(Protocol):
    """Codec of one slot of one tensor.

    Attributes:
        update_units: what is stored is not the average but the average over the step's denominator.
    """

    @property
    def update_units(self) -> bool: ...

    def empty(self) -> Planes:
        """State that decodes to zeros."""

    def decode(self, planes: Planes, decay: Array) -> Array:
        """The slot times its decay, one number an element."""

    def roots(self, planes: Planes) -> Array:
        """Square roots of a second moment."""

    def encode(
        self, old: Planes, decayed: Array, values: Array, keys: NDArray[np.uint64]
    ) -> Planes:
        """The new values; ``decayed`` is what ``decode`` gave, ``keys`` one a block."""
