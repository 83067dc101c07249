"""One gradient as bytes, and the mean of several from theirs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .. import _core
from ..threads import thread_count

__all__ = ["CODECS", "Counter", "bytes_of", "decode_mean", "encode", "real"]

#: Names of the codecs, from fine to coarse.
CODECS = ("q8", "u4", "top8")


@dataclass(frozen=True)
class Counter:
    """Where the random bits of a gradient's rounding come from."""

    seed: int
    step: int
    index: int
    rank: int


def bytes_of(numel: int, codec: str) -> int:
    """Exact bytes of a gradient on the wire.

    Args:
        numel: its elements, those of a complex one twice. The last block of 128 is padded.
        codec: ``"q8"`` (130 bytes a block), ``"u4"`` (66) or ``"top8"`` (13).

    Raises:
        TypeError: if ``numel`` is no int.
        ValueError: for another codec, or a number of elements that no gradient has.
    """
    if codec not in CODECS:
        raise ValueError(f"codec is {codec!r}; expected one of {', '.join(CODECS)}")
    if not isinstance(numel, int) or isinstance(numel, bool):
        raise TypeError(f"numel is {numel!r}; expected an int")
    if not 0 <= numel < 2**60:
        raise ValueError(f"numel is {numel}; expected an int from 0 to 2**60 - 1")
    return _core.wire_bytes(numel, codec)


def real(gradient: Tensor) -> Tensor:
    """A complex gradient as pairs of real numbers; others as they are."""
    return torch.view_as_real(gradient) if gradient.is_complex() else gradient


def encode(
    gradient: Tensor,
    residual: Tensor | None,
    decay: float,
    message: Tensor,
    offset: int,
    codec: str,
    counter: Counter,
) -> None:
    """Write a gradient and what was left of earlier ones into a message.

    Args:
        gradient: real; float64 is rounded to float32 first.
        residual: one number an element in float32 or bfloat16, which becomes what is left now.
            Without one, rounding is stochastic and unbiased, but for ``"top8"``.
        decay: the share of what is left that is kept.
        message: uint8.
        offset: of the gradient's first byte in it.
        codec: one of ``CODECS``.
        counter: of random bits.
    """
    narrow = gradient.float() if gradient.dtype == torch.float64 else gradient
    _core.wire_encode(
        narrow.detach(),
        residual,
        decay,
        message,
        offset,
        codec,
        residual is None,
        counter.seed,
        counter.step,
        counter.index,
        counter.rank,
        thread_count(),
    )


def decode_mean(messages: Tensor, offset: int, codec: str, out: Tensor) -> None:
    """Read the mean of all ranks' gradients, added up in the order of ranks.

    Args:
        messages: uint8, (ranks, bytes), contiguous.
        offset: of the gradient's first byte in each.
        codec: one of ``CODECS``.
        out: real; filled.
    """
    wide = out.dtype == torch.float64
    to = torch.empty(out.shape, dtype=torch.float32) if wide else out.detach()
    _core.wire_decode(messages, messages.shape[0], offset, codec, to, thread_count())
    if wide:
        out.copy_(to)
