"""Fused projections: weights that are several matrices, one beside another.

Only what is known to lie one after another is split. Some models interleave the heads of query, key
and value (GPT-NeoX, BLOOM, Falcon: ``query_key_value``; CodeGen: ``qkv_proj``), where thirds of the
weight would be no matrices of anything, and the rows of each are no one run: those are left whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from torch import nn

from .heads import is_linear
from .uses import Use, type_name

__all__ = ["Parts", "parts_of"]

#: A dimension, and the matrices along it: what each is called, and how long it is.
Parts: TypeAlias = tuple[int, tuple[tuple[str, int], ...]]

_QUERY_KEY_VALUE = ("q", "k", "v")
#: Of torch's recurrent layers, in the order of their documentation.
_GATES: Mapping[type[nn.Module], tuple[str, ...]] = {
    nn.LSTM: ("i", "f", "g", "o"), nn.LSTMCell: ("i", "f", "g", "o"),
    nn.GRU: ("r", "z", "n"), nn.GRUCell: ("r", "z", "n"),
}  # fmt: skip
_QKV = ("qkv", "Wqkv", "to_qkv", "c_attn", "qkv_proj")
_PAIR = ("gate_up_proj",)
#: Models that interleave heads, wherever their modules are from: repositories carry copies of them.
_INTERLEAVED = ("GPTNeoX", "Bloom", "Falcon", "RW", "CodeGen", "GPTBigCode", "Persimmon")
#: What the packages are called that have transformers' models, and those that hubs bring.
_TRANSFORMERS = ("transformers.", "transformers_modules.")
#: Of transformers' models those whose fused weights lie one after another; any other may not.
_IN_ORDER = ("GPT2", "DecisionTransformerGPT2", "ImageGPT", "Phi3", "ModernBert", "Mpt", "Sam")


def parts_of(use: Use) -> Parts | None:
    """The equal or unequal matrices that a weight consists of; None where it is one, or nobody
    knows."""
    module, shape = use.module, tuple(use.param.shape)
    if len(shape) != 2:
        return None
    if isinstance(module, nn.MultiheadAttention):
        return _equal(0, shape, _QUERY_KEY_VALUE) if use.own == "in_proj_weight" else None
    if isinstance(module, nn.RNNBase | nn.RNNCellBase):
        return _of_recurrent(module, use.own, shape)
    return _of_projection(use, shape) if is_linear(module) and len(use.path) > 1 else None


def _equal(dimension: int, shape: tuple[int, ...], names: Sequence[str]) -> Parts | None:
    size, rest = divmod(shape[dimension], len(names))
    return None if rest or not size else (dimension, tuple((name, size) for name in names))


def _of_recurrent(module: nn.Module, own: str, shape: tuple[int, ...]) -> Parts | None:
    gates = next((names for kind, names in _GATES.items() if isinstance(module, kind)), ())
    stacked = own.startswith(("weight_ih", "weight_hh"))  # not an LSTM's projection, weight_hr
    return _equal(0, shape, gates) if gates and stacked else None


def _of_projection(use: Use, shape: tuple[int, ...]) -> Parts | None:
    (_, above), (name, module) = use.path[-2:]
    turned = type_name(module) == "Conv1D"
    dimension, out, into = (1, shape[1], shape[0]) if turned else (0, shape[0], shape[1])
    of_transformers = type(above).__module__.startswith(_TRANSFORMERS)
    if type_name(above).startswith(_INTERLEAVED) or (
        of_transformers and not type_name(above).startswith(_IN_ORDER)
    ):
        return None
    if name in _PAIR:
        return _equal(dimension, shape, ("gate", "up"))
    if name not in _QKV:
        return None
    if out == 3 * into:
        return _equal(dimension, shape, _QUERY_KEY_VALUE)
    if turned and out == 2 * into:  # GPT-2's attention to an encoder
        return _equal(dimension, shape, ("k", "v"))
    sizes = _by_config(above)
    if sum(sizes) != out or not all(sizes):
        return None
    return dimension, tuple(zip(_QUERY_KEY_VALUE, sizes, strict=True))


def _by_config(attention: nn.Module) -> tuple[int, ...]:
    """Query, key and value of grouped heads, as the model's configuration has them."""
    config = getattr(attention, "config", None)
    heads = getattr(config, "num_attention_heads", None)
    groups = getattr(config, "num_key_value_heads", None)
    width = getattr(attention, "head_dim", None) or getattr(config, "head_dim", None)
    if not (isinstance(heads, int) and isinstance(groups, int) and isinstance(width, int)):
        return ()
    return heads * width, groups * width, groups * width
