"""Fused projections: weights that are several matrices, one beside another.

Only what is known to lie one after another is split. Some models interleave the heads of query, key
and value (GPT-NeoX, BLOOM, Falcon: ``query_key_value``; CodeGen: ``qkv_proj``), where thirds of the
weight would be no matrices of anything: those are left whole.
"""

from __future__ import annotations

from typing import TypeAlias

from torch import nn

from .heads import is_linear
from .uses import Use, type_name

__all__ = ["Parts", "parts_of"]

#: A dimension, and how long each matrix is along it.
Parts: TypeAlias = tuple[int, tuple[int, ...]]

_QKV = ("qkv", "Wqkv", "to_qkv", "c_attn", "qkv_proj")
_PAIR = ("gate_up_proj",)
#: Of transformers' models those whose fused weights lie one after another; any other may not.
_IN_ORDER = ("GPT2", "DecisionTransformerGPT2", "ImageGPT", "Phi3", "ModernBert", "Mpt", "Sam")


def parts_of(use: Use) -> Parts | None:
    """The equal or unequal matrices that a weight consists of; None where it is one, or nobody
    knows."""
    module, shape = use.module, tuple(use.param.shape)
    if len(shape) != 2:
        return None
    if isinstance(module, nn.MultiheadAttention):
        return _equal(0, shape, 3) if use.own == "in_proj_weight" else None
    if isinstance(module, nn.RNNBase | nn.RNNCellBase):
        return _of_recurrent(module, use.own, shape)
    return _of_projection(use, shape) if is_linear(module) and len(use.path) > 1 else None


def _equal(dimension: int, shape: tuple[int, ...], count: int) -> Parts | None:
    size, rest = divmod(shape[dimension], count)
    return None if rest or not size else (dimension, (size,) * count)


def _of_recurrent(module: nn.Module, own: str, shape: tuple[int, ...]) -> Parts | None:
    gates = {nn.LSTM: 4, nn.LSTMCell: 4, nn.GRU: 3, nn.GRUCell: 3}
    count = next((n for kind, n in gates.items() if isinstance(module, kind)), 1)
    stacked = own.startswith(("weight_ih", "weight_hh"))  # not an LSTM's projection, weight_hr
    return _equal(0, shape, count) if count > 1 and stacked else None


def _of_projection(use: Use, shape: tuple[int, ...]) -> Parts | None:
    (_, above), (name, module) = use.path[-2:]
    turned = type_name(module) == "Conv1D"
    dimension, out, into = (1, shape[1], shape[0]) if turned else (0, shape[0], shape[1])
    if type(above).__module__.startswith("transformers.") and not (
        type_name(above).startswith(_IN_ORDER)
    ):
        return None
    if name in _PAIR:
        return _equal(dimension, shape, 2)
    if name not in _QKV:
        return None
    if out == 3 * into:
        return _equal(dimension, shape, 3)
    if turned and out == 2 * into:  # GPT-2's attention to an encoder: key and value
        return _equal(dimension, shape, 2)
    sizes = _by_config(above)
    return (dimension, sizes) if sum(sizes) == out and all(sizes) else None


def _by_config(attention: nn.Module) -> tuple[int, ...]:
    """Query, key and value of grouped heads, as the model's configuration has them."""
    config = getattr(attention, "config", None)
    heads = getattr(config, "num_attention_heads", None)
    groups = getattr(config, "num_key_value_heads", None)
    width = getattr(attention, "head_dim", None) or getattr(config, "head_dim", None)
    if not (isinstance(heads, int) and isinstance(groups, int) and isinstance(width, int)):
        return ()
    return heads * width, groups * width, groups * width
