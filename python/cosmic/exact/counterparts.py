"""Which of torch's functions have an exact counterpart, with torch's arguments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from . import activations, losses, sums
from .attention import attention
from .embeddings import embedding
from .norms import layer_norm, rms_norm
from .products import conv1d, linear, matmul
from .randomness import dropout
from .tensors import common_shape

__all__ = ["BROADCAST", "INSTEAD", "MATMUL", "spread"]


def spread(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments of an elementwise function, repeated to their common shape where a gradient would
    be summed."""
    names = ("input", "other")
    sides = {**dict(zip(names, args, strict=False)), **{n: kwargs[n] for n in names if n in kwargs}}
    tensors = [side for side in sides.values() if isinstance(side, Tensor)]
    if len(tensors) < 2 or tensors[0].shape == tensors[1].shape:
        return args, kwargs
    shape = common_shape(tensors[0].shape, tensors[1].shape)
    spread = (
        sums.broadcast_to(side, shape) if side.requires_grad and side.shape != shape else side
        for side in (sides["input"], sides["other"])
    )
    return (*spread, *args[2:]), {n: value for n, value in kwargs.items() if n not in names}


def _linear(acc: str, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return linear(input, weight, bias, accumulate=acc)


def _matmul(acc: str, input: Tensor, other: Tensor) -> Tensor:
    return matmul(input, other, accumulate=acc)


def _mm(acc: str, input: Tensor, mat2: Tensor) -> Tensor:
    return matmul(input, mat2, accumulate=acc)


def _addmm(
    acc: str, input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: float = 1, alpha: float = 1
) -> Tensor:
    if input.ndim != 1 or beta != 1 or alpha != 1:
        raise ValueError("exact.convert(): torch.addmm is computed for a vector that is added once")
    return conv1d(mat1, mat2, input, accumulate=acc)


def _embedding(
    _: str,
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    if max_norm is not None or scale_grad_by_freq or sparse:
        raise ValueError(
            "exact.convert(): F.embedding is computed without max_norm, scale_grad_by_freq, sparse"
        )
    return embedding(input, weight, padding_idx)


def _layer_norm(_: str, *args: Any, **kwargs: Any) -> Tensor:
    return layer_norm(*args, **kwargs)


def _rms_norm(_: str, *args: Any, **kwargs: Any) -> Tensor:
    return rms_norm(*args, **kwargs)


def _softmax(
    _: str, input: Tensor, dim: int | None = None, *rest: Any, dtype: Any = None, **__: Any
) -> Tensor:
    rest_dtypes = [value for value in rest if isinstance(value, torch.dtype)]
    dtype = dtype or (rest_dtypes[0] if rest_dtypes else None)
    if dim is None:
        raise ValueError("exact.convert(): F.softmax is computed for a dim that is given")
    return activations.softmax(input if dtype is None else input.to(dtype), dim)


def _gelu(_: str, input: Tensor, approximate: str = "none") -> Tensor:
    return activations.gelu(input, approximate)


def _check_inplace(name: str, inplace: bool) -> None:
    """Whoever asks for it may not look at what is returned."""
    if inplace:
        raise ValueError(f"exact.convert(): F.{name} is computed with inplace=False")


def _silu(_: str, input: Tensor, inplace: bool = False) -> Tensor:
    _check_inplace("silu", inplace)
    return activations.silu(input)


def _tanh(_: str, input: Tensor) -> Tensor:
    return activations.tanh(input)


def _sigmoid(_: str, input: Tensor) -> Tensor:
    return activations.sigmoid(input)


def _dropout(
    _: str, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    _check_inplace("dropout", inplace)
    return dropout(input, p, training)


def _cross_entropy(
    _: str,
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    return losses.cross_entropy(
        input, target, weight,
        ignore_index=ignore_index, reduction=reduction, label_smoothing=label_smoothing,
    )  # fmt: skip


def _mse_loss(
    _: str,
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    if weight is not None:
        raise ValueError("exact.convert(): F.mse_loss is computed without weights")
    return losses.mse_loss(input, target, reduction=reduction)


def _attention(
    acc: str,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    queries, keys = query.shape[-2], key.shape[-2]
    if is_causal and attn_mask is None and queries != keys:  # torch counts from the first key
        seen = torch.ones(queries, keys, dtype=torch.bool, device="cpu")
        attn_mask, is_causal = seen.tril(), False
    return attention(
        query, key, value, attn_mask,
        causal=is_causal, scale=scale, dropout=dropout_p, accumulate=acc,
    )  # fmt: skip


def _whole(exact: Callable[[Tensor], Tensor], plain: Any) -> Callable[..., Any]:
    """A reduction over all elements; one along a dimension stays torch's."""

    def reduce(_: str, input: Tensor, *args: Any, **kwargs: Any) -> Any:
        return plain(input, *args, **kwargs) if args or kwargs else exact(input)

    return reduce


def _expand(
    acc: str, input: Tensor, *sizes: Any, size: Sequence[int] = (), implicit: bool = False
) -> Tensor:
    whole = len(sizes) == 1 and isinstance(sizes[0], Sequence)
    return _broadcast_to(acc, input, sizes[0] if whole else sizes or size)


def _expand_as(acc: str, input: Tensor, other: Tensor) -> Tensor:
    return _broadcast_to(acc, input, other.shape)


def _broadcast_to(_: str, input: Tensor, size: Sequence[int]) -> Tensor:
    new = len(size) - input.ndim
    full = [input.shape[i - new] if n == -1 else n for i, n in enumerate(size)]
    return sums.broadcast_to(input, full) if input.requires_grad else input.expand(full)


#: What ``@`` calls.
MATMUL = (torch.matmul, Tensor.matmul, Tensor.__matmul__)

#: By torch's function: called with how products are summed and the arguments that it was given.
INSTEAD: dict[Any, Callable[..., Any]] = {
    F.linear: _linear,
    F.embedding: _embedding,
    F.layer_norm: _layer_norm,
    torch.layer_norm: _layer_norm,
    F.rms_norm: _rms_norm,
    F.gelu: _gelu,
    F.silu: _silu,
    F.dropout: _dropout,
    F.cross_entropy: _cross_entropy,
    F.mse_loss: _mse_loss,
    F.scaled_dot_product_attention: _attention,
    F.softmax: _softmax,
    torch.softmax: _softmax,
    Tensor.softmax: _softmax,
    torch.addmm: _addmm,
    torch.mean: _whole(sums.mean, torch.mean),
    Tensor.mean: _whole(sums.mean, Tensor.mean),
    torch.sum: _whole(sums.sum, torch.sum),
    Tensor.sum: _whole(sums.sum, Tensor.sum),
    Tensor.expand: _expand,
    Tensor.expand_as: _expand_as,
    Tensor.broadcast_to: _broadcast_to,
    torch.broadcast_to: _broadcast_to,
    **dict.fromkeys((torch.tanh, Tensor.tanh, F.tanh), _tanh),
    **dict.fromkeys((torch.sigmoid, Tensor.sigmoid, F.sigmoid), _sigmoid),
    **dict.fromkeys(MATMUL, _matmul),
    **dict.fromkeys((torch.bmm, torch.mm, Tensor.bmm, Tensor.mm), _mm),
}

#: Elementwise functions of two sides, which torch repeats to one shape.
BROADCAST: frozenset[Any] = frozenset(
    getattr(owner, name)
    for owner, names in (
        (torch, ("add", "sub", "mul", "div", "true_divide")),
        (Tensor, ("add", "sub", "mul", "div", "add_", "sub_", "mul_", "div_")),
        (Tensor, ("__add__", "__radd__", "__iadd__", "__sub__", "__rsub__", "__isub__")),
        (Tensor, ("__mul__", "__rmul__", "__imul__", "__truediv__", "__itruediv__")),
    )
    for name in names
)
