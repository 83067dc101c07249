"""Which of torch's operators have the same bits on every machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .tensors import common_shape

__all__ = ["is_exact"]

_COPIES = """
    _reshape_alias _to_copy _unsafe_view alias as_strided cat clone constant_pad_nd contiguous copy
    copy_ detach detach_ diagonal embedding empty empty_like empty_strided expand fill fill_ flip
    full full_like gather index index_select lift_fresh lift_fresh_copy masked_fill masked_fill_
    masked_select new_empty new_empty_strided new_full new_ones new_zeros ones ones_like permute
    repeat reshape resize_ roll scalar_tensor select select_backward slice slice_backward
    slice_scatter split split_with_sizes squeeze stack t take transpose tril triu unbind unfold
    unsqueeze view view_as_complex view_as_real where zero_ zeros zeros_like _local_scalar_dense
    _unsafe_index
"""
_COMPARISONS = """
    all any eq equal ge gt isfinite isinf isnan is_same_size le logical_and logical_not logical_or
    lt maximum minimum ne sign signbit
"""
#: Rounded once, as IEEE 754 says, or not at all.
_ROUNDED = """
    abs add add_ ceil clamp clamp_ clamp_max clamp_min div div_ floor hardtanh hardtanh_backward
    leaky_relu leaky_relu_backward mul mul_ neg neg_ relu relu_ round rsub sqrt sub sub_
    threshold_backward trunc
"""
_ROUNDED_NAMES = frozenset(_ROUNDED.split())
_EXACT = frozenset((_COPIES + _COMPARISONS).split()) | _ROUNDED_NAMES
_SCATTERED = ("index_put", "index_put_", "_index_put_impl_", "_unsafe_index_put")


def is_exact(op: Any, args: Sequence[Any], kwargs: dict[str, Any], tensors: list[Tensor]) -> bool:
    """Whether a call of an operator has the same bits on every machine.

    Args:
        op: an overload, such as ``torch.ops.aten.add.Tensor``.
        args: of the call.
        kwargs: of the call.
        tensors: all of the call, results among them.
    """
    if not any(tensor.is_floating_point() or tensor.is_complex() for tensor in tensors):
        return True
    namespace, _, name = str(op.overloadpacket).partition(".")
    if namespace != "aten":
        return namespace == "cosmic"
    if name in _SCATTERED:
        return _lands_once(args, kwargs)
    if name not in _EXACT:
        return False
    if name in _ROUNDED_NAMES and any(tensor.is_complex() for tensor in tensors):
        return False  # torch's complex products and quotients are several operations
    # torch fuses the multiplication by alpha where the machine can; of numbers it is the third
    alpha = args[2] if len(args) > 2 else kwargs.get("alpha", 1)
    return name not in ("add", "add_", "sub", "sub_", "rsub") or alpha in (1, -1)


def _lands_once(args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
    """Whether no two numbers are written, or added, to the same place."""
    sizes, found = args[0].shape, list[Tensor]()
    dim = 0
    for index in args[1]:
        if index is None:
            dim += 1
            continue
        mask = index.dtype in (torch.bool, torch.uint8)
        for one in index.nonzero(as_tuple=True) if mask else (index.long(),):
            found.append(one % max(sizes[dim], 1))
            dim += 1
    shape = common_shape(*(one.shape for one in found))
    places = torch.stack([one.expand(shape).flatten() for one in found], 1).tolist()
    return len(set(map(tuple, places))) == len(places)
