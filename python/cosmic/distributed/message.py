"""What one bucket of gradients sends: small gradients as they are, then the others encoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .wire import Counter, bytes_of, decode_mean, encode

__all__ = ["Gradient", "Message"]

#: Of the part that is sent as it is, so that what follows begins at a round place.
ALIGNMENT = 16


@dataclass(frozen=True)
class Gradient:
    """A parameter's gradient in a bucket.

    Attributes:
        index: of the parameter in its model.
        values: a view of the bucket's memory, real.
        residual: what was not sent of earlier ones; None if nothing is kept.
        decay: the share that is kept of what is not sent now.
    """

    index: int
    values: Tensor
    residual: Tensor | None
    decay: float = 1.0


class Message:
    """The layout of a bucket's bytes, the same on all ranks.

    Args:
        plain: gradients that travel as they are, in their dtype.
        encoded: gradients that are encoded, each by itself.
        codec: of these.
    """

    def __init__(self, plain: Sequence[Tensor], encoded: Sequence[Gradient], codec: str) -> None:
        self._plain, self._encoded, self._codec = plain, encoded, codec
        self._plain_bytes = sum(gradient.nbytes for gradient in plain)
        at = -(-self._plain_bytes // ALIGNMENT) * ALIGNMENT
        self._offsets = []
        for gradient in encoded:
            self._offsets.append(at)
            at += bytes_of(gradient.values.numel(), codec)
        self.nbytes = -(-at // ALIGNMENT) * ALIGNMENT

    def write(self, seed: int, step: int, rank: int) -> Tensor:
        """This rank's bytes. Residuals become what is left."""
        message = torch.zeros(self.nbytes, dtype=torch.uint8)
        if self._plain:
            flat = torch.cat([gradient.detach().reshape(-1) for gradient in self._plain])
            message[: self._plain_bytes] = flat.view(torch.uint8)
        for gradient, at in zip(self._encoded, self._offsets, strict=True):
            counter = Counter(seed, step, gradient.index, rank)
            kept = gradient.residual, gradient.decay
            encode(gradient.values, *kept, message, at, self._codec, counter)
        return message

    def read_mean(self, messages: Tensor) -> None:
        """Set every gradient to the mean over ranks.

        Args:
            messages: uint8, (ranks, bytes), contiguous.
        """
        self._read_plain(messages[:, : self._plain_bytes])
        for gradient, at in zip(self._encoded, self._offsets, strict=True):
            decode_mean(messages, at, self._codec, gradient.values)

    def _read_plain(self, messages: Tensor) -> None:
        if not self._plain:
            return
        dtype = self._plain[0].dtype  # of all gradients of a bucket
        exact = torch.promote_types(dtype, torch.float32)
        total = torch.zeros(sum(g.numel() for g in self._plain), dtype=exact)
        for message in messages:  # in the order of ranks
            total += message.view(dtype)
        total /= messages.shape[0]
        sizes = [gradient.numel() for gradient in self._plain]
        for gradient, mean in zip(self._plain, torch.split(total, sizes), strict=True):
            gradient.detach().copy_(mean.view(gradient.shape))
