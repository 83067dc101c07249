"""Codecs by name."""

from __future__ import annotations

from .aligned_bits import AlignedBits, AlignedBlocks
from .aligned_roots import AlignedRoots, RootBlocks
from .blockwise import Blockwise, Format
from .codec import Codec
from .costate import CoState
from .factored import KEPT, Factored
from .log_levels import LogBlocks, LogLevels
from .matrix import Matrix
from .midrise import Midrise
from .options import Options
from .plain import Plain
from .signed_levels import SignedLevels
from .ustate import UState

PLAIN = {"fp32": "float32", "bf16": "bfloat16", "fp64": "float64"}
AVERAGES: dict[str, Format] = {
    "q8": SignedLevels(8, update_units=True),
    "u4": SignedLevels(4, update_units=True),
    "u2": Midrise(2),
    "u1": Midrise(1),
}
LOGARITHMIC = {f"vlog{bits}": LogLevels(bits) for bits in (2, 3, 4, 6, 8)}


def average_codec(name: str, numel: int, options: Options) -> Codec:
    """Of a first moment or a slow average."""
    if name == "ustate":
        return UState(numel, options.m_step_factor)
    if name == "costate":
        return CoState(numel, options.null_pct, options.amp_pct)
    return Plain(numel, PLAIN[name]) if name in PLAIN else Blockwise(numel, AVERAGES[name])


def square_codec(name: str, numel: int, matrix: Matrix | None) -> Codec:
    """Of a second moment."""
    if name in KEPT:
        assert matrix is not None
        return Factored(matrix, name)
    if name in LOGARITHMIC:
        return LogBlocks(numel, LOGARITHMIC[name])
    if name == "q8":
        return RootBlocks(numel, AlignedRoots())
    if name == "v4":
        return AlignedBlocks(numel, AlignedBits(4))
    return Plain(numel, PLAIN[name])
