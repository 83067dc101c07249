"""A linear head and cross-entropy in one: no logits of all rows, one autograd node a block.

With ``z = W h + b`` (and what a model does to its logits elementwise), the gradient of a token's
``logsumexp(z) - z[target]`` by ``z`` is ``p - onehot(target)``, ``p = softmax(z)``. Forward keeps
hidden states and ``logsumexp(z)``; backward makes each tile's logits anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..activations.packed import Kept
from .blocks import Blocks
from .first_order import first_order
from .handover import Handover, Link
from .tiles import Scored, Steps, add_gradients, product_dtype, score, wide

__all__ = ["summed_cross_entropy"]


def summed_cross_entropy(
    hidden: Tensor, targets: Tensor, blocks: Blocks, bias: Tensor | None, steps: Steps = ()
) -> Tensor:
    """The sum of all tokens' cross-entropy, a scalar of float32.

    Where the embedding of the same weight was called in this forward, its nodes make the blocks'
    gradients, and the loss's node the hidden states' by itself: one more product. Else each block
    has a node here that makes both.

    Args:
        hidden: ``(tokens, width)``.
        targets: ``(tokens,)`` of int64.
        blocks: of the head's weight.
        bias: ``(vocabulary,)`` or None.
        steps: from the head's product to the logits.
    """
    link = blocks.take_link()
    pieces = blocks.split(bias)
    dtype = product_dtype(blocks.whole)
    if link is not None or not blocks.trains:
        link = link or Link()
        call = _Call(blocks, steps, dtype, link.handover, len(link.tickets), of_hidden=True)
        return _applied(hidden, targets, call, *link.tickets, *pieces)
    handover = Handover()
    share: Any = _Share.apply
    node: Any = _Block.apply
    ticket = share(hidden, wide(dtype))
    tickets = [
        node(ticket, param, pieces[index], blocks.starts[index], handover)
        for index, param in enumerate(blocks.params)
    ]
    call = _Call(blocks, steps, dtype, handover, len(tickets), of_hidden=False)
    return _applied(hidden, targets, call, *tickets, *pieces)


def _applied(*inputs: Any) -> Tensor:
    """The loss, with what it saves kept as it is, whatever hooks pack other tensors: normalizers
    belong to the very hidden states that they were taken of."""
    apply: Any = _Loss.apply
    with torch.autograd.graph.saved_tensors_hooks(Kept, Kept.unpack):
        out: Tensor = apply(*inputs)
    return out


@dataclass(frozen=True)
class _Call:
    """What a loss is made of beside tensors.

    Attributes:
        blocks: of the head's weight.
        steps: from products to logits.
        dtype: of products.
        handover: to the blocks' nodes.
        tickets: how many inputs are blocks' tickets; bias pieces follow.
        of_hidden: whether the loss's node makes the gradients of hidden states and bias.
    """

    blocks: Blocks
    steps: Steps
    dtype: torch.dtype
    handover: Handover
    tickets: int
    of_hidden: bool


class _Loss(torch.autograd.Function):
    """The sum; in backward first, so that what it saved is unpacked here for all blocks."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, targets: Tensor, call: _Call, *inputs: Any) -> Tensor:
        params, pieces = call.blocks.params, inputs[call.tickets :]
        normalizer, picked = score(hidden.to(call.dtype), targets, params, pieces, call.steps)
        needed = params if call.of_hidden else ()  # autograd then tells if one has changed
        ctx.save_for_backward(hidden, targets, normalizer, *needed, *pieces)
        ctx.call = call
        return (normalizer - picked).sum()

    @staticmethod
    @first_order
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, ...]:
        call: _Call = ctx.call
        hidden, targets, normalizer, *others = ctx.saved_tensors
        scored = Scored(hidden.to(call.dtype), targets, normalizer, call.steps)
        needed = ctx.needs_input_grad[3:]
        takers = sum(needed[: call.tickets])
        if takers:
            call.handover.give(scored, takers)
        of_hidden: Tensor | None = None
        of_pieces: list[Tensor | None] = [None] * (len(needed) - call.tickets)
        if call.of_hidden:
            count = len(call.blocks.params)
            params, pieces = others[:count], others[count:]
            if ctx.needs_input_grad[0]:
                of_hidden = torch.zeros_like(hidden, dtype=wide(call.dtype))
            if any(needed[call.tickets :]):
                of_pieces = [torch.zeros_like(piece) for piece in pieces]
            _add_of_loss(scored, call.blocks, params, pieces, scale, of_hidden, of_pieces)
            of_hidden = None if of_hidden is None else of_hidden.to(hidden.dtype)
        return (of_hidden, None, None, *[scale] * call.tickets, *of_pieces)


def _add_of_loss(
    scored: Scored,
    blocks: Blocks,
    params: Sequence[Tensor],
    pieces: Sequence[Tensor | None],
    scale: Tensor,
    of_hidden: Tensor | None,
    of_pieces: Sequence[Tensor | None],
) -> None:
    """All blocks' parts of the gradients of hidden states and bias."""
    if of_hidden is None and all(piece is None for piece in of_pieces):
        return
    for index, param in enumerate(params):
        add_gradients(
            scored,
            param,
            pieces[index],
            blocks.starts[index],
            scale,
            of_hidden=of_hidden,
            of_bias=of_pieces[index],
        )


class _Share(torch.autograd.Function):
    """Stands for the hidden states in the blocks' nodes: a tensor without memory, whose gradient
    is summed over blocks in float32."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, dtype: torch.dtype) -> Tensor:
        ctx.dtype = hidden.dtype
        return hidden.new_zeros((), dtype=dtype).expand(hidden.shape)

    @staticmethod
    @first_order
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return grad.to(ctx.dtype), None


class _Block(torch.autograd.Function):
    """A block of an untied head: all its gradients from one making of its logits."""

    @staticmethod
    def forward(
        ctx: Any, ticket: Tensor, param: Tensor, bias: Tensor | None, start: int, handover: Handover
    ) -> Tensor:
        ctx.save_for_backward(param, bias)
        ctx.start, ctx.handover, ctx.dtype = start, handover, ticket.dtype
        return Link.ticket()

    @staticmethod
    @first_order
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, ...]:
        param, bias = ctx.saved_tensors
        scored = ctx.handover.take()
        hidden, weight, piece, *_ = ctx.needs_input_grad
        like = torch.zeros_like
        of_hidden = like(scored.hidden, dtype=ctx.dtype) if hidden else None
        of_weight = like(param) if weight else None
        of_bias = like(bias) if piece else None
        add_gradients(
            scored, param, bias, ctx.start, scale,
            of_hidden=of_hidden, of_weight=of_weight, of_bias=of_bias,
        )  # fmt: skip
        return of_hidden, of_weight, of_bias, None, None
