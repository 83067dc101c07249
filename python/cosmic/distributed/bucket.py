"""The gradients of one of DistributedDataParallel's buckets, as views of its memory."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch._C._distributed_c10d import GradBucket

from ..errors import UsageError
from .wire import real

__all__ = ["gradients_of"]


def gradients_of(bucket: GradBucket) -> Iterator[tuple[Tensor, Tensor]]:
    """Each parameter and its gradient, complex ones as pairs of real numbers.

    ``bucket.gradients()`` would not do: of a complex gradient it shows half, and of a parameter
    whose memory is in another order than its indices, such as ``channels_last``, it shows elements
    in the order of memory.

    Raises:
        UsageError: if gradients are sparse.
        RuntimeError: if the bucket holds more than its parameters' gradients.
    """
    memory = bucket.buffer()
    if memory.layout != torch.strided:
        raise UsageError(
            "a sparse gradient cannot be compressed: make the embedding with sparse=False"
        )
    parameters = bucket.parameters()  # of one dtype
    if parameters[0].is_complex() and not memory.is_complex():
        memory = torch.view_as_complex(memory.view(-1, 2))
    if memory.numel() != sum(param.numel() for param in parameters):
        raise RuntimeError("a bucket of this torch is laid out in a way that is not known here")
    at = memory.storage_offset()
    for param in parameters:
        yield param, real(memory.as_strided(param.shape, _strides(param), at))
        at += param.numel()


def _strides(param: Tensor) -> tuple[int, ...]:
    """Of its gradient: its own if it fills its memory, else those of a contiguous tensor."""
    dense = torch.empty_like(param, device="meta")  # which keeps the strides of such a one
    return dense.stride() if dense.stride() == param.stride() else _contiguous(param.shape)


def _contiguous(shape: torch.Size) -> tuple[int, ...]:
    return torch.empty(shape, device="meta").stride()
