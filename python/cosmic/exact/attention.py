"""Scaled dot-product attention."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .activations import softmax_rows, softmax_rows_backward
from .nodes import Gradients, applied, first_order
from .products import check_accumulate, check_precision, product
from .randomness import check_probability, draw_key, dropped
from .tensors import check_dtype, check_tensors, common_shape

__all__ = ["attention"]


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    *,
    causal: bool = False,
    scale: float | None = None,
    dropout: float = 0.0,
    accumulate: str = "fp64",
) -> Tensor:
    """``softmax(scale q k^T + mask) v`` of each head.

    With fewer heads of keys and values than of queries, each of them serves as many queries'
    heads in a row (grouped queries), and its gradient is one sum over all of them. All weights are
    in memory, ``queries x keys`` a head.

    Args:
        query: ``q``, ``(batch, heads, queries, width)``, float32 or float64.
        key: ``k``, ``(batch, key heads, keys, width)``; heads are a multiple of key heads.
        value: ``v``, ``(batch, key heads, keys, value width)``.
        mask: broadcasts to ``(batch, heads, queries, keys)``: bool, True where a query sees a key;
            or numbers that are added, without a gradient.
        causal: query ``i`` sees keys up to ``i + keys - queries``. Not beside a mask.
        scale: a factor; None: ``1 / sqrt(width)``.
        dropout: probability that a weight is dropped, as in ``exact.dropout``.
        accumulate: as in ``linear``.

    Returns:
        ``(batch, heads, queries, value width)``. A query that sees no key gives zeros.

    Raises:
        ValueError: for shapes that do not fit, a mask beside ``causal`` or one that wants a
            gradient, and another word.
        UnsupportedTensorError: for another device, layout or dtype.

    Source: ``torch.nn.functional.scaled_dot_product_attention``, whose ``is_causal`` counts from
    the first key instead of the last; arXiv 1706.03762; grouped queries: arXiv 2305.13245.
    """
    check_tensors("attention", query=query, key=key, value=value)
    check_accumulate("attention", accumulate)
    check_precision("attention", query, accumulate)
    check_probability("attention", dropout)
    _check_shapes(query, key, value)
    if mask is not None:
        _check_mask(mask, query, key, causal)
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else float(scale)
    seed = draw_key() if dropout else 0
    call = (causal, scale, float(dropout), seed, accumulate)
    return applied(_Attention, query, key, value, mask, *call)


def _check_shapes(query: Tensor, key: Tensor, value: Tensor) -> None:
    shapes = [tuple(tensor.shape) for tensor in (query, key, value)]
    fit = all(len(shape) == 4 for shape in shapes)
    if fit:
        (batch, heads, _, width), (b, groups, keys, w), third = shapes
        fit = (b, w, third[:3]) == (batch, width, (batch, groups, keys)) and width > 0
        fit = fit and groups > 0 and heads % groups == 0
    if not fit:
        raise ValueError(
            f"exact.attention(): query, key and value have shapes {shapes[0]}, {shapes[1]} and "
            f"{shapes[2]}; expected (batch, heads, queries, width), (batch, key heads, keys, "
            "width) and (batch, key heads, keys, value width), heads a multiple of key heads"
        )


def _check_mask(mask: Tensor, query: Tensor, key: Tensor, causal: bool) -> None:
    if causal:
        raise ValueError(
            "exact.attention(): a mask is given and causal=True; expected one of them: put the "
            "causal pattern into the mask"
        )
    check_dtype("attention", "mask", mask, torch.bool, query.dtype)
    if mask.requires_grad:
        raise ValueError(
            "exact.attention(): the mask requires a gradient, which is not computed; expected a "
            "constant: detach() it"
        )
    full = (*query.shape[:3], key.shape[2])
    try:
        fits = common_shape(mask.shape, full) == full
    except RuntimeError:
        fits = False
    if not fits:
        raise ValueError(
            f"exact.attention(): mask has shape {tuple(mask.shape)}; expected one that broadcasts "
            f"to {full}"
        )


def _folded(x: Tensor, groups: int) -> Tensor:
    """``(batch, heads, rows, n)`` as ``(batch groups, heads / groups rows, n)``: queries' heads
    that share keys are rows of one matrix."""
    batch, heads, rows, n = x.shape
    return x.reshape(batch * groups, heads // groups * rows, n)


def _scores(query: Tensor, key: Tensor, mask: Tensor | None, scale: float, acc: str) -> Tensor:
    """The products of queries and keys, scaled where softmax does not do that, and masked."""
    groups = key.shape[1]
    products = product(_folded(query, groups), _folded(key, groups).mT, acc)
    scores = products.view(*query.shape[:3], key.shape[2])
    if scale <= 0 or (mask is not None and mask.dtype != torch.bool):
        scores.mul_(scale)
    if mask is not None and mask.dtype == torch.bool:
        scores.masked_fill_(~mask, -torch.inf)
    elif mask is not None:
        scores.add_(mask)
    return scores


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        causal: bool,
        scale: float,
        dropout: float,
        seed: int,
        accumulate: str,
    ) -> Tensor:
        weights = _scores(query, key, mask, scale, accumulate)
        scaled = scale <= 0 or (mask is not None and mask.dtype != torch.bool)
        softmax_rows(weights, weights, 1.0 if scaled else scale, causal=causal)
        ctx.save_for_backward(query, key, value, weights)
        ctx.scale, ctx.dropout, ctx.seed, ctx.accumulate = scale, dropout, seed, accumulate
        used = dropped(weights, dropout, seed) if dropout else weights
        groups = key.shape[1]
        out = product(_folded(used, groups), _folded(value, groups), accumulate)
        return out.view(*query.shape[:3], value.shape[3])

    @staticmethod
    @first_order
    def backward(ctx: Any, grad: Tensor) -> Gradients:
        query, key, value, weights = ctx.saved_tensors
        groups, acc = key.shape[1], ctx.accumulate
        of_query = of_key = of_value = None
        folded = _folded(grad, groups)
        if ctx.needs_input_grad[2]:
            used = dropped(weights, ctx.dropout, ctx.seed) if ctx.dropout else weights
            of_value = product(_folded(used, groups).mT, folded, acc).view(value.shape)
            del used
        if any(ctx.needs_input_grad[:2]):
            scores = product(folded, _folded(value, groups).mT, acc).view(weights.shape)
            if ctx.dropout:
                scores = dropped(scores, ctx.dropout, ctx.seed)
            softmax_rows_backward(weights, scores, scores, ctx.scale if ctx.scale > 0 else 1.0)
            if ctx.scale <= 0:
                scores.mul_(ctx.scale)
            scores = _folded(scores, groups)
            if ctx.needs_input_grad[0]:
                of_query = product(scores, _folded(key, groups), acc).view(query.shape)
            if ctx.needs_input_grad[1]:
                of_key = product(scores.mT, _folded(query, groups), acc).view(key.shape)
        return of_query, of_key, of_value, *(None,) * 6
