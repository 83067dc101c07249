"""Codecs by name."""

from __future__ import annotations

from .aligned_bits import AlignedBits
from .blockwise import Blockwise, Format
from .codec import Codec
from .factored import KEPT, Factored
from .matrix import Matrix
from .midrise import Midrise
from .plain import Plain
from .signed_levels import SignedLevels

PLAIN = {"fp32": "float32", "bf16": "bfloat16", "fp64": "float64"}
AVERAGES: dict[str, Format] = {
    "q8": SignedLevels(8, update_units=False),
    "u4": SignedLevels(4, update_units=True),
    "u2": Midrise(2),
    "u1": Midrise(1),
}
SQUARES: dict[str, Format] = {"q8": AlignedBits(8), "v4": AlignedBits(4)}


def average_codec(name: str, numel: int) -> Codec:
    """Of a first moment or a slow average."""
    return Plain(numel, PLAIN[name]) if name in PLAIN else Blockwise(numel, AVERAGES[name])


def square_codec(name: str, numel: int, matrix: Matrix | None) -> Codec:
    """Of a second moment."""
    if name in KEPT:
        assert matrix is not None
        return Factored(matrix, name)
    return Plain(numel, PLAIN[name]) if name in PLAIN else Blockwise(numel, SQUARES[name])
