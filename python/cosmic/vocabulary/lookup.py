"""Rows of an embedding, with one autograd node a block: each block's gradient is made, and can be
used and freed, before the next one's."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .blocks import Blocks
from .first_order import first_order
from .handover import Handover, Link
from .tiles import add_gradients

__all__ = ["Lookup", "looked_up"]


class Lookup(NamedTuple):
    """How an embedding's gradient is made: ``nn.Embedding``'s arguments.

    Attributes:
        padding_idx: the row that takes no gradient from lookups; None: none.
        scale_grad_by_freq: divide each row's gradient by how often it was looked up.
    """

    padding_idx: int | None
    scale_grad_by_freq: bool


def looked_up(ids: Tensor, blocks: Blocks, lookup: Lookup, *, tied: bool) -> Tensor:
    """Rows of a weight, ``(*ids.shape, width)``.

    Args:
        ids: int32 or int64.
        blocks: of the weight.
        lookup: how gradients are made.
        tied: leave a link for the head, which shares the weight and is called in this forward.
    """
    if not blocks.trains:
        return F.embedding(ids, blocks.whole.detach())
    link = Link() if tied else None
    tickets = []
    for index, param in enumerate(blocks.params):
        handover = None if link is None else link.handover
        rows, ticket = _Block.apply(  # type: ignore[no-untyped-call]
            param, ids, lookup, blocks.starts[index], handover
        )
        tickets.append(rows)
        if link is not None:
            link.tickets.append(ticket)
    blocks.link = link
    out: Tensor = _Rows.apply(ids, blocks, *tickets)  # type: ignore[no-untyped-call]
    return out


class _Rows(torch.autograd.Function):
    """The lookup; its gradient goes to every block's node, uncopied."""

    @staticmethod
    def forward(ctx: Any, ids: Tensor, blocks: Blocks, *tickets: Tensor) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.count = len(tickets)
        return F.embedding(ids, blocks.whole.detach())

    @staticmethod
    @first_order
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, ...]:
        return (None, None, *[grad] * ctx.count)


class _Block(torch.autograd.Function):
    """Stands for a block in what is made of it: gives a ticket of the lookup's shape without
    memory, and one for the tied head's loss."""

    @staticmethod
    def forward(
        ctx: Any, param: Tensor, ids: Tensor, lookup: Lookup, start: int, handover: Handover | None
    ) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(ids, *([] if handover is None else [param]))
        ctx.lookup, ctx.start, ctx.handover = lookup, start, handover
        ctx.rows = param.shape[0]
        return param.new_zeros(()).expand(*ids.shape, param.shape[1]), Link.ticket()

    @staticmethod
    @first_order
    def backward(
        ctx: Any, of_rows: Tensor | None, of_loss: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        ids, *params = ctx.saved_tensors
        grad = None
        if of_rows is not None:
            grad = _gradient(of_rows, ids, ctx.lookup, ctx.start, ctx.rows)
        if of_loss is not None:
            (param,) = params
            grad = torch.zeros_like(param) if grad is None else grad
            scored = ctx.handover.take()
            add_gradients(scored, param, None, ctx.start, of_loss, of_weight=grad)
        return grad, None, None, None, None


def _gradient(of_rows: Tensor, ids: Tensor, lookup: Lookup, start: int, rows: int) -> Tensor:
    """A block's gradient by torch's own operator, which adds in the order of the ids."""
    local = ids.reshape(-1) - start
    inside = ((local >= 0) & (local < rows)).nonzero()[:, 0]
    padding = -1 if lookup.padding_idx is None else lookup.padding_idx - start
    out: Tensor = torch.ops.aten.embedding_dense_backward(
        of_rows.reshape(local.numel(), -1).index_select(0, inside),
        local.index_select(0, inside),
        rows,
        padding if 0 <= padding < rows else -1,
        lookup.scale_grad_by_freq,
    )
    return out
