"""Rotary position embeddings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import _core
from .._core import UnsupportedTensorError
from ..threads import thread_count
from .tensors import DTYPES, check_dtype, check_tensors

__all__ = ["apply_rotary", "rotary", "rotary_frequencies"]


def rotary_frequencies(
    dim: int, base: float = 10000.0, scaling: dict[str, Any] | None = None
) -> Tensor:
    """``base^(-2 i / dim)`` for ``i`` from 0 to ``dim / 2 - 1``, and what models make of them.

    Args:
        dim: numbers of a head that are rotated; even.
        base: of the powers.
        scaling: None; or as transformers' ``rope_parameters`` has it: with ``rope_type``
            ``"default"``; ``"linear"``, which divides by ``factor``; or ``"llama3"``, which divides
            what turns slower than once in ``original_max_position_embeddings /
            low_freq_factor`` positions, leaves what turns faster than once in
            ``original_max_position_embeddings / high_freq_factor``, and goes over between them.

    Returns:
        float64, ``(dim / 2,)``.

    Raises:
        ValueError: for an odd ``dim``, another type, and a scaling without its numbers.

    Source: arXiv 2104.09864; Llama 3.1's scaling as in ``transformers.modeling_rope_utils``.
    """
    if dim <= 0 or dim % 2:
        raise ValueError(f"exact.rotary_frequencies(): dim is {dim}; expected an even number")
    if not (base > 0 and math.isfinite(base)):
        raise ValueError(f"exact.rotary_frequencies(): base is {base}; expected a number above 0")
    out = torch.empty(dim // 2, dtype=torch.float64, device="cpu")
    _core.exact_inverse_frequencies(float(base), out)
    kind = (scaling or {}).get("rope_type", "default")
    if kind == "default":
        return out
    if kind not in _SCALED:
        known = ", ".join(map(repr, ("default", *_SCALED)))
        raise ValueError(
            f"exact.rotary_frequencies(): rope_type is {kind!r}; expected one of {known}"
        )
    numbers, scaled = _SCALED[kind]
    missing = [name for name in numbers if (scaling or {}).get(name) is None]
    if missing:
        raise ValueError(f"exact.rotary_frequencies(): scaling {kind!r} lacks {', '.join(missing)}")
    options = [float((scaling or {})[name]) for name in numbers]
    return torch.tensor([scaled(f, *options) for f in out.tolist()], dtype=out.dtype, device="cpu")


def _linear(frequency: float, factor: float) -> float:
    return frequency / factor


def _llama3(
    frequency: float, factor: float, low_factor: float, high_factor: float, length: float
) -> float:
    turn = 2 * math.pi / frequency  # positions of one turn
    if turn > length / low_factor:
        return frequency / factor
    if turn < length / high_factor:
        return frequency
    share = (length / turn - low_factor) / (high_factor - low_factor)
    return (1 - share) * frequency / factor + share * frequency


_SCALED: dict[str, tuple[tuple[str, ...], Any]] = {
    "linear": (("factor",), _linear),
    "llama3": (
        ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
        _llama3,
    ),
}


def rotary(
    positions: Tensor,
    frequencies: Tensor | Sequence[float],
    *,
    scaling: float = 1.0,
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor]:
    """Cosine and sine of ``position * frequency``, taken in double and rounded once.

    Args:
        positions: int64, of any shape; times any frequency within 2^24 in magnitude.
        frequencies: ``(h,)``, as ``rotary_frequencies`` gives them.
        scaling: a factor of both.
        dtype: of the tables, torch.float32 or torch.float64.

    Returns:
        Two tensors ``(*positions.shape, 2 h)``, the second half of whose rows repeats the first.

    Raises:
        ValueError: for frequencies of another shape or that are not finite, and where positions
            times frequencies leave ``[-2^24, 2^24]``.
        UnsupportedTensorError: for another dtype or device.

    Source: arXiv 2104.09864, in the layout of ``transformers.models.llama``.
    """
    check_dtype("rotary", "positions", positions, torch.int64)
    if dtype not in DTYPES:
        raise UnsupportedTensorError(
            f"exact.rotary(): dtype is {dtype}; expected torch.float32 or torch.float64"
        )
    turns = torch.as_tensor(frequencies, dtype=torch.float64, device="cpu").contiguous()
    if turns.ndim != 1:
        raise ValueError(
            f"exact.rotary(): frequencies have shape {tuple(turns.shape)}; expected one dimension"
        )
    flat = positions.reshape(-1).contiguous()
    cos, sin = torch.empty(2, len(flat), 2 * len(turns), dtype=dtype, device="cpu")
    _core.exact_rotary_tables(flat, turns, float(scaling), cos, sin, thread_count())
    shape = (*positions.shape, 2 * len(turns))
    return cos.view(shape), sin.view(shape)


def apply_rotary(
    query: Tensor, key: Tensor, cos: Tensor, sin: Tensor, unsqueeze_dim: int = 1
) -> tuple[Tensor, Tensor]:
    """Rotate pairs of numbers: ``x cos + (-x2, x1) sin`` for the halves ``x1`` and ``x2`` of ``x``.

    Args:
        query: ``(batch, heads, positions, 2 h)``, float32 or float64.
        key: the same, of as many heads as it has.
        cos: ``(batch, positions, 2 h)``, as ``rotary`` gives it.
        sin: the same.
        unsqueeze_dim: where ``cos`` and ``sin`` get the dimension of the heads.

    Returns:
        Query and key, rotated.

    Raises:
        UnsupportedTensorError: for another device, layout or dtype.

    Source: arXiv 2104.09864, in the layout of ``transformers.models.llama``.
    """
    check_tensors("apply_rotary", query=query, key=key, cos=cos, sin=sin)
    cos, sin = cos.unsqueeze(unsqueeze_dim), sin.unsqueeze(unsqueeze_dim)
    return _rotated(query, cos, sin), _rotated(key, cos, sin)


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat((-second, first), -1) * sin
