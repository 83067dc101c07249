"""Plain block-wise quantization of tensors to 1, 2, 4 or 8 bits."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from . import _core
from ._core import UnsupportedTensorError
from .threads import thread_count

__all__ = ["QuantizedTensor", "quantize"]

ABSMAX = "absmax"


@dataclass(frozen=True, eq=False)  # == of tensors is no truth value
class QuantizedTensor:
    """A tensor as signed integers with one scale a block.

    Elements are taken in the order of their indices (C order), ``block_size`` at a time. With
    ``L = 2^(bits - 1) - 1`` (7 or 127) and ``s`` the block's largest magnitude over ``L`` (rounded
    so that ``s L`` does not exceed the maximum), the code of ``x`` is ``round(x / s)``, ties to
    even, and decodes to ``s`` times the code.

    Error bound: ``s / 2 (1 + 2^-15)``, that is at most 1/14 (4 bits) or 1/254 (8 bits) of the
    block's largest magnitude, plus the rounding of the output dtype. In a block whose largest
    magnitude is below ``2^-120`` the bound is ``2^-123`` instead.

    That is codec ``"absmax"``. The codecs of compressed state serve plain tensors, too, in blocks
    of 128; they round stochastically, unbiased, with the random bits of ``seed``, and
    ``docs/codecs.md`` has their mathematics: ``"u1"``, ``"u2"`` (mid-rise levels around zero, steps
    of the block's RMS), ``"u4"``, ``"q8"`` (signed integers under the block's largest magnitude),
    ``"v4"``, ``"v8"`` (numbers >= 0, with about constant relative precision).

    Attributes:
        codes: uint8, planar within a block: the last block is padded. With ``"absmax"``, 8 bits:
            one int8 an element; 4 bits: code + 8 as nibbles (nibble i of the 32-bit word j holds
            element i * block_size / 8 + j).
        scales: one a block; float32 for ``"absmax"``.
        shape: of the original tensor.
        dtype: of the original tensor, and of ``dequantize()``.
        bits: of a code.
        block_size: elements that share a scale.
        codec: ``"absmax"`` or a codec's name.
    """

    codes: Tensor
    scales: Tensor
    shape: torch.Size
    dtype: torch.dtype
    bits: int
    block_size: int
    codec: str = "absmax"

    @property
    def nbytes(self) -> int:
        """Exact bytes of codes and scales, padding included."""
        return self.codes.nbytes + self.scales.nbytes

    def dequantize(self) -> Tensor:
        """The tensor back, contiguous, in its original shape and dtype."""
        out = torch.empty(self.shape, dtype=self.dtype, device="cpu")
        threads = thread_count()
        if self.codec == ABSMAX:
            _core.dequantize(self.codes, self.scales, self.bits, self.block_size, out, threads)
        else:
            _core.unpack(self.codes, self.scales, self.codec, out, threads)
        return out


def quantize(
    tensor: Tensor,
    bits: int | None = None,
    block_size: int = 128,
    *,
    codec: str = "absmax",
    seed: int = 0,
) -> QuantizedTensor:
    """Quantize a tensor block-wise.

    Args:
        tensor: dense CPU tensor of float32, bfloat16 or float16, of any shape and layout.
        bits: 4 (the default) or 8, for codec ``"absmax"``; the others have their own.
        block_size: elements that share a scale; a multiple of 8 from 8 to 4096 for ``"absmax"``,
            128 for the others.
        codec: ``"absmax"``, ``"u1"``, ``"u2"``, ``"u4"``, ``"q8"``, ``"v4"`` or ``"v8"``.
        seed: of the random bits of stochastic rounding; ``"absmax"`` has none.

    Returns:
        A QuantizedTensor: ``bits + 32 / block_size`` bits an element for ``"absmax"``, and an
        eighth (``"v8"``: a quarter) more than its bits for the others, plus padding of the last
        block.

    Raises:
        ValueError: if an argument is out of range, or an element is infinite, NaN or, for ``"v4"``
            and ``"v8"``, negative.
        UnsupportedTensorError: if the tensor is sparse, not on the CPU, or of another dtype.
    """
    _check_arguments(tensor, bits, block_size, seed)
    if codec == ABSMAX:
        return _quantize_absmax(tensor, 4 if bits is None else bits, block_size)
    return _quantize_packed(tensor, bits, block_size, codec, seed)


def _check_arguments(tensor: object, bits: object, block_size: object, seed: object) -> None:
    if not isinstance(tensor, Tensor):
        raise TypeError(f"tensor is a {type(tensor).__name__}; expected a torch.Tensor")
    if tensor.is_complex():
        raise UnsupportedTensorError(
            f"tensor is {tensor.dtype}; quantize torch.view_as_real(tensor) instead"
        )
    for name, value in (("bits", 4 if bits is None else bits), ("block_size", block_size)):
        if not isinstance(value, int):
            raise TypeError(f"{name} is {value!r}; expected an int")
    if not isinstance(seed, int) or not 0 <= seed < 2**64:
        raise ValueError(f"seed is {seed!r}; expected an int from 0 to 2**64 - 1")


def _quantize_absmax(tensor: Tensor, bits: int, block_size: int) -> QuantizedTensor:
    if block_size < 1:
        raise ValueError(f"block_size is {block_size}; expected a multiple of 8 from 8 to 4096")
    blocks = -(-tensor.numel() // block_size)
    codes = torch.empty(
        _core.quantized_code_bytes(tensor.numel(), bits, block_size),
        dtype=torch.uint8,
        device="cpu",
    )
    scales = torch.empty(blocks, dtype=torch.float32, device="cpu")
    bad = _core.quantize(tensor.detach(), bits, block_size, codes, scales, thread_count())
    if bad >= 0:
        raise ValueError(f"{_place(tensor, bad)} is not finite; only finite values have a code")
    return QuantizedTensor(codes, scales, tensor.shape, tensor.dtype, bits, block_size)


def _quantize_packed(
    tensor: Tensor, bits: int | None, block_size: int, codec: str, seed: int
) -> QuantizedTensor:
    own_bits, scale_dtype, nonnegative = _core.plain_codec(codec)
    if bits not in (None, own_bits):
        raise ValueError(f"bits is {bits}; codec {codec!r} has {own_bits}: leave bits out")
    if block_size != _core.BLOCK:
        raise ValueError(f"block_size is {block_size}; codec {codec!r} has blocks of {_core.BLOCK}")
    blocks = -(-tensor.numel() // block_size)
    codes = torch.empty(blocks * block_size * own_bits // 8, dtype=torch.uint8, device="cpu")
    scales = torch.empty(blocks, dtype=getattr(torch, scale_dtype), device="cpu")
    bad = _core.pack(tensor.detach(), codec, seed, codes, scales, thread_count())
    if bad >= 0:
        wanted = "finite numbers >= 0" if nonnegative else "finite numbers"
        raise ValueError(f"{_place(tensor, bad)} has no code: codec {codec!r} stores {wanted}")
    return QuantizedTensor(codes, scales, tensor.shape, tensor.dtype, own_bits, block_size, codec)


def _place(tensor: Tensor, position: int) -> str:
    index = tuple(int(i) for i in torch.unravel_index(torch.tensor(position), tensor.shape))
    return f"tensor[{index}]"
