"""Where the distinct elements of a saved tensor lie, and how they come back."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

__all__ = ["Layout"]


@dataclass(frozen=True)
class Layout:
    """Distinct elements in the order of memory: dimensions by falling stride, without those that
    are expanded (stride 0) or of size 1.

    Attributes:
        shape: of the tensor.
        order: the dimensions that are left, outermost in memory first.
        sizes: of these dimensions.
        strides: of these dimensions, in elements.
        offset: of the first element in its storage, in elements.
    """

    shape: tuple[int, ...]
    order: tuple[int, ...]
    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int

    @staticmethod
    def of(tensor: Tensor) -> Layout:
        """The layout of a strided tensor."""
        shape, steps = tuple(tensor.shape), tensor.stride()
        kept = [d for d, size in enumerate(shape) if size != 1 and steps[d] != 0]
        order = tuple(sorted(kept, key=lambda d: -steps[d]))
        return Layout(
            shape,
            order,
            tuple(shape[d] for d in order),
            tuple(steps[d] for d in order),
            int(tensor.storage_offset()),
        )

    @cached_property
    def numel(self) -> int:
        """Distinct elements, if none overlap."""
        count = 1
        for size in self.sizes:
            count *= size
        return count

    @cached_property
    def overlaps(self) -> bool:
        """Whether two indices may share an element, as in sliding windows."""
        inner = zip(self.strides[1:], self.sizes[1:], strict=True)
        return any(
            outer < stride * size
            for outer, (stride, size) in zip(self.strides, inner, strict=False)
        )

    @cached_property
    def span(self) -> int:
        """Elements of storage from the first to the last, both counted."""
        if self.numel == 0:
            return 0
        return 1 + sum((n - 1) * s for n, s in zip(self.sizes, self.strides, strict=True))

    @cached_property
    def place(self) -> tuple[object, ...]:
        """The same for all tensors of one storage that have the same elements in the same order of
        memory, whatever their shapes."""
        if self.span == self.numel:
            return (self.offset, self.numel)
        return (self.offset, self.sizes, self.strides)

    def distinct(self, tensor: Tensor) -> Tensor:
        """A view of the distinct elements whose order of indices is that of memory."""
        return tensor.detach().as_strided(self.sizes, self.strides, self.offset)

    def restore(self, values: Tensor) -> Tensor:
        """The tensor's shape over ``values``, its distinct elements, contiguous; the order of its
        dimensions in memory is kept, and so is what was expanded."""
        steps, step = [0] * len(self.shape), 1
        for dimension, size in zip(reversed(self.order), reversed(self.sizes), strict=True):
            steps[dimension] = step
            step *= size
        for dimension, size in enumerate(self.shape):
            if size == 1:
                steps[dimension] = 1
        return torch.as_strided(values, self.shape, tuple(steps))
