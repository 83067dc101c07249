"""What a codec is: how one slot of a tensor's state lies in memory between two steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
#: Tensors of a slot by what follows the slot's name: "", "_scale", "_row", "_col"; numbers of the
#: whole tensor, "_steps", "_alpha", too.
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

    def unit_roots(self, planes: Planes, decay: Array) -> tuple[Array, np.float32]:
        """Roots as a step multiplies them for update units, and what restores them from that."""

    def unit(self, planes: Planes, denominators: Array) -> Array:
        """Update units of a second moment, whose roots make these denominators."""

    def levels(self, planes: Planes, decay: Array) -> tuple[Array, Array] | None:
        """A first moment as whole numbers and the level that each is multiplied with, where a unit
        takes the level."""

    def encode(
        self, old: Planes, decayed: Array, values: Array, keys: NDArray[np.uint64]
    ) -> Planes:
        """The new values; ``decayed`` is what ``decode`` gave, ``keys`` one a block."""


@dataclass(frozen=True)
class Frame:
    """What a first moment's codec may look at beside its own memory.

    Attributes:
        gradient: of the step; zeros outside of one.
        correction_before, correction: bias corrections ``1 - beta1^t`` of the step before and of
            this one.
        first: the average starts with this step.
    """

    gradient: Array
    correction_before: float = 1.0
    correction: float = 1.0
    first: bool = False


@runtime_checkable
class Framed(Codec, Protocol):
    """Codec of a first moment that depends on the step, or on the whole tensor.

    Attributes:
        persisted_units: it encodes the bias-corrected average over the denominator that the second
            moment makes as it is kept, after encoding.
    """

    @property
    def persisted_units(self) -> bool: ...

    def within(self, frame: Frame) -> Codec:
        """The codec in a step, or after one."""

    def encode_anew(self, old: Planes, values: Array, keys: NDArray[np.uint64]) -> Planes:
        """Outside a step; ``old`` has the numbers of the whole tensor."""
