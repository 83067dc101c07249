"""A weight of one row a token, cut along the vocabulary into parameters that share its memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .handover import Link

__all__ = ["DEFAULT_ROWS", "Blocks", "block_rows"]

#: Of a block at most, where nobody says.
DEFAULT_ROWS = 8192


def block_rows(vocabulary: int, rows: int) -> int:
    """Rows of each block but the last, so that there are as few blocks of at most ``rows`` as can
    be, and these are even."""
    count = -(-vocabulary // rows)
    return -(-vocabulary // count)


class Blocks:
    """The blocks of one weight.

    Args:
        whole: ``(vocabulary, width)``, which keeps its memory; what is stepped are views of it.
        rows: of one block at most. Blocks are even: the last one is smaller by their number at
            most.

    Attributes:
        whole: the weight.
        starts: the first row of each block.
        params: the blocks, each a parameter with a version counter of its own, so that stepping one
            does not spoil what autograd has saved of another.
        link: where embedding and head are tied, from the embedding's call to the head's in one
            forward.
    """

    def __init__(self, whole: Tensor, rows: int) -> None:
        size = block_rows(whole.shape[0], rows)
        self.whole = whole
        self.starts = list(range(0, whole.shape[0], size))
        self.params = [self._block(start, size) for start in self.starts]
        self.link: Link | None = None
        if whole.grad is not None:
            for param, grad in zip(self.params, _pieces(whole.grad, self.sizes), strict=True):
                param.grad = grad
            whole.grad = None

    def _block(self, start: int, size: int) -> nn.Parameter:
        return nn.Parameter(self.whole.data[start : start + size], self.whole.requires_grad)

    @property
    def sizes(self) -> list[int]:
        """Rows of each block."""
        return [param.shape[0] for param in self.params]

    @property
    def trains(self) -> bool:
        """Whether a graph is being made in which a block takes a gradient."""
        return torch.is_grad_enabled() and any(param.requires_grad for param in self.params)

    def split(self, bias: Tensor | None) -> list[Tensor | None]:
        """What belongs to each block of a vector of one element a row."""
        return [None] * len(self.params) if bias is None else [*_pieces(bias, self.sizes)]

    def take_link(self) -> Link | None:
        """The link, which serves one call of the head: a second one has a loss of its own."""
        link, self.link = self.link, None
        return link

    def assembled(self) -> Tensor:
        """The whole weight, without a copy; its gradient goes to the blocks."""
        out: Tensor = _Assembled.apply(self, *self.params)  # type: ignore[no-untyped-call]
        return out

    def give_back(self) -> None:
        """Leave the whole weight as if it had been trained itself: with the blocks' gradients,
        zeros where only some have one, frozen if all blocks are, and marked as changed for older
        graphs."""
        self.whole.requires_grad_(any(param.requires_grad for param in self.params))
        grads = [param.grad for param in self.params]
        if any(grad is not None for grad in grads):
            pairs = zip(self.params, grads, strict=True)
            self.whole.grad = torch.cat([torch.zeros_like(p) if g is None else g for p, g in pairs])
            for param in self.params:
                param.grad = None
        torch.autograd.graph.increment_version(self.whole)


def _pieces(tensor: Tensor, sizes: list[int]) -> tuple[Tensor, ...]:
    return torch.split(tensor, sizes)


class _Assembled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, blocks: Blocks, *params: Tensor) -> Tensor:
        ctx.sizes = blocks.sizes
        return blocks.whole.detach()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return (None, *_pieces(grad, ctx.sizes))
