"""What a parameter is to its model: types of modules first, names where types say nothing.

Where neither does, the answer is ``"other"``, to which no rule for hidden matrices applies: a
matrix that is missed costs little, an embedding that is taken for one costs the run.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from ..state.roles import Kind
from .heads import is_linear
from .uses import Use, type_name

__all__ = ["adapter_of", "kind_of", "most_cautious", "named_table"]

#: Of a parameter that is shared: the first of these that it is anywhere. What a rule for hidden
#: matrices would ruin comes first, what it is for last.
_CAUTIOUS: tuple[Kind, ...] = (
    "embedding", "head", "position", "other", "vector", "norm", "bias", "convolution", "lora_a",
    "lora_b", "matrix",
)  # fmt: skip

_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, _NormBase)
_NORM = re.compile(r"Norm(\dd)?$")
_OF_WEIGHTS = (nn.Bilinear, nn.RNNBase, nn.RNNCellBase)
_PROJECTIONS = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
#: Words in a parameter's name that tables have, a row a token or a code, and those of positions.
_TABLE = re.compile(
    r"(?:^|_)(?:cls|tokens?|emb|embs|embeds?|embeddings?|wte"
    r"|vocab|tables?|prompts?|prefix|queries|codebooks?|codes|latents?|slots|memory|lookup)(?:_|$)"
)
_POSITION = re.compile(r"(?:^|_)(?:pos|positions?|positional|relative|wpe)(?:_|$)")
_ADAPTERS: dict[str, Kind] = {
    "lora_a": "lora_a", "lora_b": "lora_b", "lora_embedding_b": "lora_b",
    "lora_embedding_a": "embedding",  # a column a token
    "lora_magnitude_vector": "vector",  # of DoRA
    "lora_e": "vector",  # of AdaLoRA: singular values
}  # fmt: skip


def kind_of(use: Use, heads: Collection[int], tables: Collection[int]) -> Kind:
    """The kind of a parameter where it is used.

    Args:
        heads: ids of the modules that are output heads.
        tables: ids of the modules that the model calls its input embeddings.
    """
    module, param = use.module, use.param
    if (adapter := _of_adapter(use)) is not None:
        return adapter
    if isinstance(module, _ConvNd):
        return _of_convolution(use, id(module) in heads)
    if _is_table(module) or id(module) in tables:
        return "bias" if use.own == "bias" else named_table(use) or "embedding"
    if isinstance(module, _NORMS) or _NORM.search(type_name(module)):
        return "bias" if _is_bias(use.own) else "norm"
    if param.ndim < 2 or param.numel() <= max(param.shape):  # no second side
        return _of_one_side(use)
    if id(module) in heads:
        return "head"
    if _is_projection(use):
        return "matrix"
    return named_table(use) or ("bias" if _is_bias(use.own) else "other")


def most_cautious(kinds: Iterable[Kind]) -> Kind:
    """Of all that a shared parameter is, what asks for most care."""
    return min(kinds, key=_CAUTIOUS.index)


def adapter_of(use: Use) -> str | None:
    """What a part of a low-rank adapter is called, in lower case: by the names that peft, loralib
    and torchtune give them; None of what is part of none."""
    names = [*(place.name.lower() for place in use.path), use.own.lower()]
    return next((name for name in reversed(names) if name in _ADAPTERS), None)


def _of_adapter(use: Use) -> Kind | None:
    found = adapter_of(use)
    if found is None:
        return None
    if use.param.ndim < 2:
        return "bias" if _is_bias(use.own) else "vector"
    return "embedding" if found == "lora_a" and _is_table(use.module) else _ADAPTERS[found]


def _is_table(module: nn.Module) -> bool:
    """Also of a module that holds tables bare, such as cls_token beside a patch embedding."""
    return isinstance(module, nn.Embedding | nn.EmbeddingBag) or "Embed" in type_name(module)


def named_table(use: Use) -> Kind | None:
    """Whether names say that it is a table: the parameter's, of an embedding its module's, too."""
    names = [use.own.lower()]
    if _is_table(use.module):
        names.append(use.path[-1].name.lower())
        if "Position" in type_name(use.module):
            return "position"
    if any(_POSITION.search(name) for name in names):
        return "position"
    return "embedding" if any(_TABLE.search(name) for name in names) else None


def _is_bias(own: str) -> bool:
    return own.startswith("bias") or own.endswith("bias")


def _of_convolution(use: Use, head: bool) -> Kind:
    """A depthwise kernel is one small filter a channel, which mix nothing: no matrix."""
    module = use.module
    assert isinstance(module, _ConvNd)
    if use.param.ndim < 2 or use.param.numel() <= max(use.param.shape):
        return _of_one_side(use)
    if head:
        return "head"
    return "vector" if module.groups > 1 and module.groups == module.in_channels else "convolution"


def _of_one_side(use: Use) -> Kind:
    table = named_table(use) if use.param.ndim > 1 else None
    return table or ("bias" if _is_bias(use.own) else "vector")


def _is_projection(use: Use) -> bool:
    """Whether a tensor with two sides is the matrix of a module that multiplies by it. Wherever
    such a module holds more than that, nothing is said of the rest."""
    module, own = use.module, use.own
    if isinstance(module, nn.MultiheadAttention):
        return own in _PROJECTIONS
    if isinstance(module, _OF_WEIGHTS):
        return own.startswith("weight")
    return is_linear(module) and own.startswith("weight") and use.param.ndim == 2
