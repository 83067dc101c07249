"""What is kept in the place of a saved tensor, and how the tensor comes back."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from ..quantization import QuantizedTensor, quantize
from .codecs import MASK
from .layout import Layout
from .mask import Mask
from .meter import ActivationMeter
from .owned import pin

__all__ = ["Kept", "Packed", "Saved"]

# odd, so that no two of the first 2**64 tensors share random bits
_STRIDE = 0x9E3779B97F4A7C15


class Packed:
    """Distinct elements of a piece of memory, packed once for all operations that save it.

    It pins the address of the storage that the elements came from: while this lives, no other
    storage can be taken for it.
    """

    __slots__ = ("__weakref__", "_content", "_pin", "codec", "dtype", "form")

    def __init__(self, tensor: Tensor, layout: Layout, codec: str, form: str, seed: int) -> None:
        self._pin: StorageWeakRef = pin(tensor)
        self.dtype = tensor.dtype
        self.form = form
        self.encode(tensor, layout, codec, seed)

    def encode(self, tensor: Tensor, layout: Layout, codec: str, seed: int) -> None:
        """Pack with a codec, in the place of what was packed before.

        Raises:
            ValueError: if an element is infinite or NaN.
        """
        elements = layout.distinct(tensor)
        self._content: Mask | QuantizedTensor
        if codec == MASK:
            self._content = Mask.of(
                elements, 1.0 if self.form == "signs" else float(elements.max())
            )
        elif self.form == "exponentials":
            self._content = quantize(elements.float().exp(), codec=codec, seed=seed)
        else:
            self._content = quantize(elements, codec=codec, seed=seed)
        self.codec = codec

    @property
    def nbytes(self) -> int:
        """Exact bytes of what is held."""
        return self._content.nbytes

    def values(self) -> Tensor:
        """The elements, contiguous, in the order of memory."""
        if isinstance(self._content, Mask):
            return self._content.values(self.dtype)
        found = self._content.dequantize()
        return found.log_().to(self.dtype) if self.form == "exponentials" else found


def random_seed(seed: int, count: int) -> int:
    """Of the random bits of a context's tensor number ``count``."""
    return (seed + _STRIDE * (count + 1)) % 2**64


class Saved:
    """A packed tensor of one operation: shared elements in a shape of its own."""

    __slots__ = ("_layout", "_meter", "_packed")

    def __init__(self, packed: Packed, layout: Layout, meter: ActivationMeter) -> None:
        self._packed = packed
        self._layout = layout
        self._meter = meter

    def unpack(self) -> Tensor:
        """The tensor, in memory of its own."""
        with self._meter.unpacking(), torch._C.DisableTorchFunction(), torch.no_grad():
            return self._layout.restore(self._packed.values())


class Kept:
    """A tensor that is kept as it is, and which must not have changed when backward needs it."""

    __slots__ = ("_tensor", "_version")

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor.detach()  # of an output, the tensor itself would be a circle
        self._version = tensor._version

    def unpack(self) -> Tensor:
        """The tensor.

        Raises:
            RuntimeError: as torch without hooks does, if it was modified in place.
        """
        if self._tensor._version != self._version:
            raise RuntimeError(
                "one of the variables needed for gradient computation has been modified by an "
                f"inplace operation: a tensor of shape {tuple(self._tensor.shape)} is at version "
                f"{self._tensor._version}; expected version {self._version} instead"
            )
        return self._tensor
