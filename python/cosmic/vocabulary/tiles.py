"""Logits of some rows of a head at a time: what forward and backward compute of each tile.

A tile has all tokens, and so few rows that neither its logits nor a copy of its rows in float32
takes more than ``TILE_BYTES``. Softmax is in float32, as transformers takes it of any logits; sums
over rows of the head are in float32 or wider.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from ..products import native_products

__all__ = ["TILE_BYTES", "Scored", "Steps", "add_gradients", "product_dtype", "score", "wide"]

TILE_BYTES = 32 * 2**20
_LEAST_ROWS = 256

#: Elementwise steps from the head's product to the logits: a factor, or None for tanh.
Steps: TypeAlias = tuple[float | None, ...]


@dataclass(frozen=True)
class Scored:
    """Tokens whose logits have been summed over the vocabulary.

    Attributes:
        hidden: ``(tokens, width)`` in the dtype of products.
        targets: ``(tokens,)`` of int64, rows of the whole head.
        normalizer: ``(tokens,)`` of float32, log of the sum of the logits' exponentials.
        steps: from products to logits.
    """

    hidden: Tensor
    targets: Tensor
    normalizer: Tensor
    steps: Steps


def product_dtype(weight: Tensor) -> torch.dtype:
    """In which dtype to multiply by a weight: autocast's or its own, but float32 in place of 16
    bits where torch's product of these is a plain loop, which takes 6 to 80 times as long."""
    device = weight.device.type
    wanted = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
    if wanted.itemsize > 2 or device != "cpu":
        return wanted
    return wanted if wanted == torch.bfloat16 and native_products() else torch.float32


def wide(dtype: torch.dtype) -> torch.dtype:
    """In which dtype products of that dtype are summed."""
    return torch.promote_types(dtype, torch.float32)


def score(
    hidden: Tensor,
    targets: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    steps: Steps,
) -> tuple[Tensor, Tensor]:
    """Normalizers and the targets' logits, ``(tokens,)`` of float32 each; no logits are kept.

    Args:
        hidden: ``(tokens, width)`` in the dtype of products.
        targets: ``(tokens,)`` of int64.
        weights: the head's blocks, each ``(rows, width)``.
        biases: of the blocks, each ``(rows,)`` or None.
        steps: from products to logits.
    """
    sums: list[Tensor] = []
    picked = torch.zeros_like(targets, dtype=torch.float32)
    start = 0
    for weight, bias in zip(weights, biases, strict=True):
        for rows in _tiles(hidden, weight.shape[0]):
            logits = _stages(hidden, _cast(weight[rows], hidden), _part(bias, rows), steps)[-1]
            logits = logits.float()
            local, inside = _local(targets, start, rows)
            found = logits.gather(1, local.clamp(0, logits.shape[1] - 1)[:, None])[:, 0]
            picked = torch.where(inside, found, picked)
            sums.append(torch.logsumexp(logits, 1))
        start += weight.shape[0]
    return torch.logsumexp(torch.stack(sums), 0), picked


def add_gradients(
    scored: Scored,
    weight: Tensor,
    bias: Tensor | None,
    start: int,
    scale: Tensor,
    *,
    of_hidden: Tensor | None = None,
    of_weight: Tensor | None = None,
    of_bias: Tensor | None = None,
) -> None:
    """Add one block's gradients of ``scale`` times the summed cross-entropy to what is given.

    Args:
        scored: the tokens.
        weight: the block, ``(rows, width)``.
        bias: ``(rows,)`` or None.
        start: the block's first row in the whole head.
        scale: of no dimensions.
        of_hidden: ``(tokens, width)`` in the dtype that sums are in; None: not asked for.
        of_weight: as the block.
        of_bias: as the bias.
    """
    hidden = scored.hidden
    for rows in _tiles(hidden, weight.shape[0]):
        tile = _cast(weight[rows], hidden)
        stages = _stages(hidden, tile, _part(bias, rows), scored.steps)
        logits = stages[-1]
        probabilities = (logits.float() - scored.normalizer[:, None]).exp_()
        local, inside = _local(scored.targets, start, rows)
        tokens = inside.nonzero()[:, 0]
        probabilities[tokens, local[tokens]] -= 1.0
        grad = probabilities.mul_(scale).to(logits.dtype)
        grad = _through(grad, stages, scored.steps)
        if of_hidden is not None:
            _add_product(of_hidden, grad, tile)
        if of_weight is not None:
            _add_product(of_weight[rows], grad.t(), hidden)
        if of_bias is not None:
            of_bias[rows] += grad.sum(0, dtype=wide(grad.dtype)).to(of_bias.dtype)


def _tiles(hidden: Tensor, rows: int) -> Iterator[slice]:
    tokens, width = hidden.shape
    size = max(_LEAST_ROWS, TILE_BYTES // (4 * max(tokens, width)))
    return (slice(first, min(first + size, rows)) for first in range(0, rows, size))


def _cast(tensor: Tensor, like: Tensor) -> Tensor:
    return tensor.to(like.dtype)


def _part(bias: Tensor | None, rows: slice) -> Tensor | None:
    return None if bias is None else bias[rows]


def _local(targets: Tensor, start: int, rows: slice) -> tuple[Tensor, Tensor]:
    """Targets counted from a tile's first row, and which of them are the tile's."""
    local = targets - (start + rows.start)
    return local, (local >= 0) & (local < rows.stop - rows.start)


def _stages(hidden: Tensor, tile: Tensor, bias: Tensor | None, steps: Steps) -> list[Tensor]:
    """The product and what each step makes of it: the logits are the last."""
    out = [F.linear(hidden, tile, None if bias is None else _cast(bias, hidden))]
    for factor in steps:
        out.append(out[-1].tanh() if factor is None else out[-1] * factor)
    return out


def _through(grad: Tensor, stages: list[Tensor], steps: Steps) -> Tensor:
    """From the logits' gradient to the product's."""
    for factor, out in zip(reversed(steps), reversed(stages), strict=False):
        grad = grad * (1 - out * out) if factor is None else grad * factor
    return grad


def _add_product(into: Tensor, one: Tensor, other: Tensor) -> None:
    if into.dtype == one.dtype:
        into.addmm_(one, other)
    else:
        into.add_((one @ other).to(into.dtype))
