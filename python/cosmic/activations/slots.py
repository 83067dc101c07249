"""Numbered slots of packed tensors, for who writes the backward pass by hand."""

from __future__ import annotations

from torch import Tensor

from .._core import UnsupportedTensorError
from ..errors import check_count
from ..quantization import QuantizedTensor, quantize
from .checks import check_seed
from .codecs import CODECS
from .packed import random_seed
from .rules import PACKED_DTYPES

__all__ = ["ActivationSlots"]


class ActivationSlots:
    """Tensors packed by ``cosmic.quantize``, each in a numbered slot.

    Memory is taken when a tensor is stored, not before. Rounding is stochastic and unbiased with
    ``"q8"`` and ``"u4"``; each tensor stored has random bits of its own.

    Args:
        max_slots: how many slots there are.
        max_n: elements that a tensor may have.
        codec: ``"q8"``, ``"u4"``, ``"u2"`` or ``"u1"``.
        seed: of the random bits.

    Raises:
        TypeError: if ``max_slots``, ``max_n`` or ``seed`` is no int.
        ValueError: if one of them is out of range, or ``codec`` is not known.
    """

    def __init__(
        self,
        max_slots: int = 32,
        max_n: int = 4 * 512 * 4096,
        codec: str = "q8",
        *,
        seed: int = 0,
    ) -> None:
        if codec not in CODECS:
            raise ValueError(f"codec is {codec!r}; expected one of {', '.join(CODECS)}")
        self.max_slots = check_count("max_slots", max_slots, 1)
        self.max_n = check_count("max_n", max_n, 1)
        self.codec = codec
        self._seed = check_seed(seed)
        self._count = 0
        self._slots: dict[int, QuantizedTensor] = {}

    def store(self, tensor: Tensor, slot: int) -> None:
        """Pack a tensor into a slot, in the place of what was there.

        Args:
            tensor: dense CPU tensor of float32, bfloat16 or float16, of at most ``max_n`` elements.
            slot: from 0 to ``max_slots - 1``.

        Raises:
            TypeError: if ``slot`` is no int.
            IndexError: if there is no such slot.
            ValueError: if the tensor has too many elements, or one that is not finite.
            UnsupportedTensorError: if it is of another dtype, sparse, or not on the CPU.
        """
        self._check(slot)
        if isinstance(tensor, Tensor) and tensor.dtype not in PACKED_DTYPES:
            raise UnsupportedTensorError(
                f"tensor for slot {slot} is {tensor.dtype}; expected float32, bfloat16 or float16"
            )
        if isinstance(tensor, Tensor) and tensor.numel() > self.max_n:
            raise ValueError(
                f"tensor for slot {slot} has {tensor.numel()} elements, of shape "
                f"{tuple(tensor.shape)}; max_n is {self.max_n}"
            )
        seed = random_seed(self._seed, self._count)
        self._slots[slot] = quantize(tensor, codec=self.codec, seed=seed)
        self._count += 1

    def restore(self, slot: int) -> Tensor:
        """The tensor of a slot, contiguous, in its shape and dtype; the slot keeps it.

        Raises:
            TypeError: if ``slot`` is no int.
            IndexError: if there is no such slot.
            KeyError: if nothing was stored there.
        """
        self._check(slot)
        if slot not in self._slots:
            raise KeyError(f"slot {slot} is empty; filled are {sorted(self._slots)}")
        return self._slots[slot].dequantize()

    def clear(self, slot: int | None = None) -> None:
        """Empty a slot, or all."""
        if slot is None:
            self._slots.clear()
        else:
            self._check(slot)
            self._slots.pop(slot, None)

    def memory_stats(self) -> dict[str, int | float]:
        """What the filled slots hold.

        Returns:
            ``slots_used`` and ``max_slots``; ``stored_bytes``, of the tensors as they were;
            ``packed_bytes``, of codes and scales; ``compression_ratio``, the former over the
            latter, 1.0 if all slots are empty.
        """
        packed = sum(t.nbytes for t in self._slots.values())
        stored = sum(t.shape.numel() * t.dtype.itemsize for t in self._slots.values())
        return {
            "slots_used": len(self._slots),
            "max_slots": self.max_slots,
            "stored_bytes": stored,
            "packed_bytes": packed,
            "compression_ratio": stored / packed if packed else 1.0,
        }

    def _check(self, slot: object) -> None:
        if not isinstance(slot, int) or isinstance(slot, bool):
            raise TypeError(f"slot is {slot!r}; expected an int")
        if not 0 <= slot < self.max_slots:
            raise IndexError(f"slot is {slot}; expected 0 to {self.max_slots - 1}")
