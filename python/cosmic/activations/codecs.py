"""Which codec serves which operation, and what a tensor takes in it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .. import _core

__all__ = ["CODECS", "MASK", "CodecChoice", "finer", "packed_bytes"]

#: Codecs of signed numbers, from the most precise on.
CODECS = ("q8", "u4", "u2", "u1")

#: Of what is zero or not: one bit an element, exact.
MASK = "mask"


@dataclass(frozen=True)
class CodecChoice:
    """Codecs by what backward does with the tensor.

    Attributes:
        linear: where backward is linear in what was saved.
        other: where it is not, or where that is not known.
    """

    linear: str
    other: str

    @staticmethod
    def named(codec: object) -> CodecChoice:
        """``"q8"``: one for all. ``"u4+q8"``: 4 bits where backward is linear, 8 elsewhere.

        Raises:
            TypeError: if ``codec`` is no string.
            ValueError: if a part of it is no codec.
        """
        if not isinstance(codec, str):
            raise TypeError(f"codec is {codec!r}; expected a str such as 'q8' or 'u4+q8'")
        linear, plus, other = codec.partition("+")
        if linear not in CODECS or (plus and other not in CODECS):
            known = ", ".join(CODECS)
            raise ValueError(
                f"codec is {codec!r}; expected one of {known}, or two joined by a plus, the first "
                "for operations whose backward is linear in what they save, such as 'u4+q8'"
            )
        return CodecChoice(linear, other or linear)

    @property
    def name(self) -> str:
        """As it is given."""
        return self.linear if self.linear == self.other else f"{self.linear}+{self.other}"


def finer(a: str, b: str) -> str:
    """The more precise of two codecs."""
    return min(a, b, key=CODECS.index)


def packed_bytes(numel: int, codec: str) -> int:
    """Exact bytes of ``numel`` elements in a codec, padding and scales included; ``"mask"`` is one
    bit an element."""
    if codec == MASK:
        return -(-numel // 8)
    bits, scale_dtype, _ = _core.plain_codec(codec)
    scale: torch.dtype = getattr(torch, scale_dtype)
    blocks = -(-numel // _core.BLOCK)
    return blocks * (_core.BLOCK * bits // 8 + scale.itemsize)
