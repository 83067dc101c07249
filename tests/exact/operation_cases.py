"""Every operation of ``cosmic.exact`` beside torch's, with small inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from cosmic import exact
from helpers import normal

IDS = torch.tensor([[3, 1, 4], [1, 5, 1]])
TARGETS = torch.tensor([2, -100, 0, 4])
CLASSES = torch.tensor([2, 3, 0, 4])


class Case(NamedTuple):
    """An operation, torch's plain twin, and the shapes of what both are given."""

    exact: Callable[..., Any]
    plain: Callable[..., Any]
    shapes: tuple[tuple[int, ...], ...]

    def inputs(self, dtype: torch.dtype, scale: float = 1.0) -> list[Tensor]:
        """Numbers that require a gradient."""
        return [
            normal(seed, *shape, dtype=dtype, scale=scale).requires_grad_()
            for seed, shape in enumerate(self.shapes)
        ]


def rotated(rotate: Callable[..., Any]) -> Callable[[Tensor, Tensor], Any]:
    def run(query: Tensor, key: Tensor) -> Any:
        frequencies = exact.rotary_frequencies(4)
        cos, sin = exact.rotary(torch.arange(3)[None], frequencies, dtype=query.dtype)
        return rotate(query, key, cos, sin)

    return run


def plainly_rotated(query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    def turn(x: Tensor) -> Tensor:
        pairs = torch.view_as_complex(torch.stack(x.chunk(2, -1), -1))
        turned = pairs * torch.complex(*(t[:, None, :, :2].contiguous() for t in (cos, sin)))
        return torch.cat((turned.real, turned.imag), -1)

    return turn(query), turn(key)


def attended(**options: Any) -> Callable[..., Tensor]:
    return lambda q, k, v: exact.attention(q, k, v, **options)


def plainly_attended(**options: Any) -> Callable[..., Tensor]:
    return lambda q, k, v: F.scaled_dot_product_attention(q, k, v, enable_gqa=True, **options)


MASK = torch.tensor([[True, False, True], [False, True, True]])
BIAS = torch.tensor([[0.0, -1.5, 2.0], [0.5, float("-inf"), 0.0]])
HEADS = ((2, 4, 3, 5), (2, 2, 3, 5), (2, 2, 3, 6))
FEW = ((2, 4, 2, 5), (2, 2, 3, 5), (2, 2, 3, 6))

CASES: dict[str, Case] = {
    "linear": Case(exact.linear, F.linear, ((2, 3, 5), (4, 5), (4,))),
    "linear without bias": Case(exact.linear, F.linear, ((5,), (4, 5))),
    "conv1d": Case(exact.conv1d, lambda x, w, b: x @ w + b, ((2, 3, 5), (5, 4), (4,))),
    "matmul": Case(exact.matmul, torch.matmul, ((3, 4), (4, 5))),
    "matmul of a batch by one": Case(exact.matmul, torch.matmul, ((2, 3, 4), (4, 5))),
    "matmul of heads": Case(exact.matmul, torch.matmul, ((2, 1, 3, 4), (3, 4, 2))),
    "matmul of one by a batch": Case(exact.matmul, torch.matmul, ((3, 4), (2, 3, 4, 2))),
    "layer_norm": Case(
        lambda x, w, b: exact.layer_norm(x, (5,), w, b),
        lambda x, w, b: F.layer_norm(x, (5,), w, b),
        ((2, 3, 5), (5,), (5,)),
    ),
    "layer_norm of two dimensions, bare": Case(
        lambda x: exact.layer_norm(x, (3, 5)), lambda x: F.layer_norm(x, (3, 5)), ((2, 3, 5),)
    ),
    "rms_norm": Case(
        lambda x, w: exact.rms_norm(x, (5,), w),
        lambda x, w: F.rms_norm(x, (5,), w),
        ((2, 3, 5), (5,)),
    ),
    "embedding": Case(lambda w: exact.embedding(IDS, w), lambda w: F.embedding(IDS, w), ((6, 3),)),
    "embedding with padding": Case(
        lambda w: exact.embedding(IDS, w, -5), lambda w: F.embedding(IDS, w, -5), ((6, 3),)
    ),
    "softmax": Case(exact.softmax, lambda x: F.softmax(x, -1), ((2, 3, 5),)),
    "softmax of the first": Case(
        lambda x: exact.softmax(x, 0), lambda x: F.softmax(x, 0), ((4, 3),)
    ),
    "gelu": Case(exact.gelu, F.gelu, ((3, 7),)),
    "gelu by tanh": Case(
        lambda x: exact.gelu(x, "tanh"), lambda x: F.gelu(x, approximate="tanh"), ((3, 7),)
    ),
    "silu": Case(exact.silu, F.silu, ((3, 7),)),
    "tanh": Case(exact.tanh, torch.tanh, ((3, 7),)),
    "sigmoid": Case(exact.sigmoid, torch.sigmoid, ((3, 7),)),
    "cross_entropy": Case(
        lambda x: exact.cross_entropy(x, TARGETS),
        lambda x: F.cross_entropy(x, TARGETS),
        ((4, 5),),
    ),
    "cross_entropy, smoothed and summed": Case(
        lambda x: exact.cross_entropy(x, TARGETS, reduction="sum", label_smoothing=0.3),
        lambda x: F.cross_entropy(x, TARGETS, reduction="sum", label_smoothing=0.3),
        ((4, 5),),
    ),
    "cross_entropy of each row": Case(
        lambda x: exact.cross_entropy(x, CLASSES, ignore_index=4, reduction="none"),
        lambda x: F.cross_entropy(x, CLASSES, ignore_index=4, reduction="none"),
        ((4, 5),),
    ),
    "cross_entropy of one row": Case(
        lambda x: exact.cross_entropy(x, torch.tensor(2)),
        lambda x: F.cross_entropy(x, torch.tensor(2)),
        ((5,),),
    ),
    "mse_loss": Case(exact.mse_loss, F.mse_loss, ((3, 4), (3, 4))),
    "attention": Case(attended(), plainly_attended(), HEADS),
    "attention, causal and scaled": Case(
        attended(causal=True, scale=0.7), plainly_attended(is_causal=True, scale=0.7), HEADS
    ),
    "attention with a mask": Case(attended(mask=MASK), plainly_attended(attn_mask=MASK), FEW),
    "attention with a bias": Case(
        lambda q, k, v: exact.attention(q, k, v, BIAS.to(q)),
        lambda q, k, v: plainly_attended(attn_mask=BIAS.to(q))(q, k, v),
        FEW,
    ),
    "attention from the last key, scaled below 0": Case(
        attended(causal=True, scale=-0.5),
        plainly_attended(attn_mask=torch.ones(2, 3, dtype=torch.bool).tril(1), scale=-0.5),
        FEW,
    ),
    "apply_rotary": Case(
        rotated(exact.apply_rotary), rotated(plainly_rotated), ((2, 2, 3, 4), (2, 1, 3, 4))
    ),
    "sum": Case(exact.sum, torch.sum, ((3, 4),)),
    "mean": Case(exact.mean, torch.mean, ((3, 4),)),
    "broadcast_to": Case(
        lambda x: exact.broadcast_to(x, (2, 3, 4)),
        lambda x: torch.broadcast_to(x, (2, 3, 4)),
        ((3, 1),),
    ),
}
