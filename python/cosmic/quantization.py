"""Plain block-wise quantization of tensors to 4 or 8 bits."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from . import _core

__all__ = ["QuantizedTensor", "quantize"]


@dataclass(frozen=True, eq=False)  # == of tensors is no truth value
class QuantizedTensor:
    r"""A tensor as signed integers with one scale a block.

    Elements are taken in the order of their indices (C order), ``block_size`` at a time. With
    :math:`L = 2^{bits-1} - 1` (7 or 127) and :math:`s = \max_{block}|x| / L` (rounded so that
    :math:`sL` does not exceed the maximum), the code of
    :math:`x` is :math:`\mathrm{round}(x/s)`, ties to even, and decodes to :math:`s` times the code.

    Error bound: :math:`|x - \hat x| \le \tfrac{s}{2}(1 + 2^{-15})`, that is at most 1/14 (4 bits)
    or 1/254 (8 bits) of the block's largest magnitude, plus the rounding of the output dtype. In a
    block whose largest magnitude is below 2^-120 the bound is 2^-123 instead.

    Attributes:
        codes: uint8. 8 bits: one int8 an element. 4 bits: code + 8 as nibbles, planar within a
            block (nibble i of the 32-bit word j holds element i * block_size / 8 + j). The last
            block is padded.
        scales: float32, one a block.
        shape: of the original tensor.
        dtype: of the original tensor, and of ``dequantize()``.
        bits: 4 or 8.
        block_size: elements that share a scale.
    """

    codes: Tensor
    scales: Tensor
    shape: torch.Size
    dtype: torch.dtype
    bits: int
    block_size: int

    @property
    def nbytes(self) -> int:
        """Exact bytes of codes and scales, padding included."""
        return self.codes.nbytes + self.scales.nbytes

    def dequantize(self) -> Tensor:
        """The tensor back, contiguous, in its original shape and dtype."""
        out = torch.empty(self.shape, dtype=self.dtype, device="cpu")
        _core.dequantize(
            self.codes, self.scales, self.bits, self.block_size, out, torch.get_num_threads()
        )
        return out


def quantize(tensor: Tensor, bits: int = 4, block_size: int = 128) -> QuantizedTensor:
    """Quantize a tensor block-wise.

    Args:
        tensor: dense CPU tensor of float32, bfloat16 or float16, of any shape and layout.
        bits: 4 or 8.
        block_size: elements that share a scale; a multiple of 8 from 8 to 4096.

    Returns:
        A QuantizedTensor: ``bits + 32 / block_size`` bits an element, plus padding of the last
        block.

    Raises:
        ValueError: if ``bits`` or ``block_size`` is out of range, or an element is infinite or NaN.
        TypeError: if the tensor is sparse, not on the CPU, or of another dtype.
    """
    if not isinstance(tensor, Tensor):
        raise TypeError(f"tensor is a {type(tensor).__name__}; expected a torch.Tensor")
    if tensor.is_complex():
        raise TypeError(f"tensor is {tensor.dtype}; quantize torch.view_as_real(tensor) instead")
    for name, value in (("bits", bits), ("block_size", block_size)):
        if not isinstance(value, int):
            raise TypeError(f"{name} is {value!r}; expected an int")
    if block_size < 1:
        raise ValueError(f"block_size is {block_size}; expected a multiple of 8 from 8 to 4096")
    blocks = -(-tensor.numel() // block_size)
    codes = torch.empty(
        _core.quantized_code_bytes(tensor.numel(), bits, block_size),
        dtype=torch.uint8,
        device="cpu",
    )
    scales = torch.empty(blocks, dtype=torch.float32, device="cpu")
    bad = _core.quantize(tensor.detach(), bits, block_size, codes, scales, torch.get_num_threads())
    if bad >= 0:
        index = tuple(int(i) for i in torch.unravel_index(torch.tensor(bad), tensor.shape))
        raise ValueError(f"tensor[{index}] is not finite; only finite values have a code")
    return QuantizedTensor(codes, scales, tensor.shape, tensor.dtype, bits, block_size)
