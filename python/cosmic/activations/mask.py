"""Tensors of zeros and one other number: one bit an element, exact."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Mask"]

# As bytes of 0 or 1, eight elements are one integer. Times this, byte k of it is bit 7 - k of the
# top byte; and bit 7 - k of a byte, times this, is the top bit of byte k. Nothing is carried over.
_DIAGONAL = 0x8040201008040201 - 2**64
_TOPS = 0x8080808080808080 - 2**64
_ONES = 0x0101010101010101


@dataclass(frozen=True)
class Mask:
    """Which elements are above zero, or NaN.

    Attributes:
        bits: uint8, element ``8 i + k`` in bit ``7 - k`` of byte ``i``.
        value: what the others come back as.
        shape: of the tensor.
    """

    bits: Tensor
    value: float
    shape: torch.Size

    @staticmethod
    def of(tensor: Tensor, value: float) -> Mask:
        """The mask of a floating tensor, which comes back with ``value`` for what is above zero."""
        above = (tensor <= 0).logical_not_().reshape(-1)
        short = -above.numel() % 8
        if short:
            above = torch.cat([above, above.new_zeros(short)])
        words = above.view(torch.int64) * _DIAGONAL
        return Mask((words >> 56).to(torch.uint8), value, tensor.shape)

    @property
    def nbytes(self) -> int:
        """Exact bytes of the bits."""
        return self.bits.nbytes

    def values(self, dtype: torch.dtype) -> Tensor:
        """Zeros and ``value``, contiguous."""
        words = self.bits.to(torch.int64) * _DIAGONAL
        found = (words.bitwise_and_(_TOPS) >> 7).bitwise_and_(_ONES).view(torch.bool)
        numbers = found[: self.shape.numel()].to(dtype)
        return (numbers if self.value == 1.0 else numbers.mul_(self.value)).view(self.shape)
