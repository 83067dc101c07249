"""AXIOM's compressor of gradients: the largest of each block, and where they lie."""

from __future__ import annotations

import torch
from torch import Tensor

from ... import _core
from ...threads import thread_count

__all__ = ["AXIOM_DDP"]

CODEC = "top8"
PERCENT = 100 * 8 / _core.BLOCK
INDEX_BYTES, BLOCK_BYTES = 7, 13


class AXIOM_DDP:
    """The 8 largest of each 128 elements of a gradient, with what was left of earlier ones.

    A thin form of codec ``"top8"`` for code that exchanges gradients by hand. With
    DistributedDataParallel, use ``cosmic.distributed.compress_gradients(ddp, "top8")``.

    **Gather, never reduce.** Values and indices are bytes, and every rank keeps other places: a sum
    of indices is none. Give both to ``all_gather``, decompress each rank's and take the mean.

    A block is 13 bytes, 0.8125 bits an element: 39.4 times less than float32. Which sixteenth is
    kept has an entropy of 0.337 bits an element by itself, so that 128 times less, 0.25 bits, is
    below what indices alone take.

    Of what is not sent, ``decay`` is kept and added to the next gradient, in bfloat16, rounded
    stochastically: 2 bytes an element. A decay of 1 is error feedback in full, by which nothing is
    lost; but under Adam what has waited for tens of steps does more harm than good
    (``docs/distributed.md``).

    Args:
        n: elements of the gradient, of all parameters together.
        top_k_percent: 6.25, the 8 of 128 that the format holds.
        decay: from 0 to 1.
        seed: of the random bits; give each rank another.

    Raises:
        TypeError: if ``n`` or ``seed`` is no int, or ``decay`` no number.
        ValueError: if an argument is out of range, or another share is asked for.
    """

    def __init__(
        self, n: int, top_k_percent: float = PERCENT, *, decay: float = 0.5, seed: int = 0
    ) -> None:
        for name, value, least in (("n", n, 1), ("seed", seed, 0)):
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(f"{name} is {value!r}; expected an int")
            if not least <= value < 2**63:
                raise ValueError(f"{name} is {value}; expected {least} or more")
        if top_k_percent != PERCENT:
            raise ValueError(
                f"top_k_percent is {top_k_percent}; the format keeps 8 of each 128 elements, which "
                f"is {PERCENT}: with codecs 'u4' and 'q8' of cosmic.distributed all are kept"
            )
        if not isinstance(decay, (int, float)):
            raise TypeError(f"decay is {decay!r}; expected a number from 0 to 1")
        if not 0 <= decay <= 1:
            raise ValueError(f"decay is {decay}; expected a number from 0 to 1")
        self.n = n
        self._decay = decay
        self._seed, self._count = seed, 0
        self._residual = torch.zeros(n, dtype=torch.bfloat16, device="cpu")

    def compress(self, gradient: Tensor) -> tuple[Tensor, Tensor, int]:
        """What to send of a gradient; the rest is kept for the next one.

        A block with an element that is not finite comes back as NaN, and nothing of it is kept. Of
        a gradient that is zero throughout nothing is sent, and what was kept waits.

        Args:
            gradient: dense CPU tensor of ``n`` elements in float32, bfloat16 or float16.

        Returns:
            Values, uint8 of 6 bytes a block; indices, uint8 of 7; and how many elements there is
            room for, 8 a block.

        Raises:
            TypeError: if it is no tensor.
            ValueError: if the gradient has another number of elements.
            UnsupportedTensorError: if it is of another dtype, sparse, or not on the CPU.
        """
        if not isinstance(gradient, Tensor):
            raise TypeError(f"gradient is a {type(gradient).__name__}; expected a torch tensor")
        if gradient.is_complex():
            raise _core.UnsupportedTensorError(
                f"gradient is {gradient.dtype}; expected real numbers: torch.view_as_real gives "
                "twice as many"
            )
        if gradient.numel() != self.n:
            raise ValueError(f"the gradient has {gradient.numel()} elements; n is {self.n}")
        message = torch.empty(_core.wire_bytes(self.n, CODEC), dtype=torch.uint8, device="cpu")
        counter = (self._seed, self._count, 0, 0)
        kept = self._residual, self._decay
        _core.wire_encode(
            gradient.detach(), *kept, message, 0, CODEC, False, *counter, thread_count()
        )
        self._count += 1
        blocks = message.view(-1, BLOCK_BYTES)
        indices, values = blocks[:, :INDEX_BYTES], blocks[:, INDEX_BYTES:]
        return values.flatten(), indices.flatten(), 8 * len(blocks)

    def decompress(self, values: Tensor, indices: Tensor, count: int) -> Tensor:
        """The gradient that one rank's bytes stand for.

        Args:
            values: as ``compress`` gave them, on any rank.
            indices: of the same rank.
            count: of the same rank.

        Returns:
            float32, flat, ``n`` elements, most of them zero.

        Raises:
            ValueError: if they are not of a gradient of ``n`` elements.
        """
        blocks = _core.wire_bytes(self.n, CODEC) // BLOCK_BYTES
        sizes = (values.numel(), indices.numel(), count)
        wanted = (blocks * (BLOCK_BYTES - INDEX_BYTES), blocks * INDEX_BYTES, 8 * blocks)
        if sizes != wanted or values.dtype != torch.uint8 or indices.dtype != torch.uint8:
            raise ValueError(
                f"values, indices and count are of {sizes[0]} and {sizes[1]} elements in "
                f"{values.dtype} and {indices.dtype} for {count}; expected uint8 of {wanted[0]} "
                f"and {wanted[1]} for {wanted[2]}, as compress() gives them of {self.n} elements"
            )
        message = torch.cat([indices.reshape(blocks, -1), values.reshape(blocks, -1)], dim=1)
        out = torch.empty(self.n, dtype=torch.float32, device="cpu")
        _core.wire_decode(message, 1, 0, CODEC, out, thread_count())
        return out

    def reset(self) -> None:
        """Forget what was not sent."""
        self._residual.zero_()

    def state_bytes(self) -> int:
        """Bytes of what is kept: 2 an element."""
        return self._residual.nbytes
