"""Tags: what a parameter does in its model, finer than its role.

Types of modules first, names second, as for roles. A tag changes nothing by itself: it names a
group, for options of its own.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from ..state.roles import Kind
from .heads import is_linear, sizes_of
from .kinds import adapter_of, named_table
from .tag_words import (
    ATTENTION,
    ATTENTION_ANYWHERE,
    FEED_FORWARD,
    FEED_FORWARD_IN_BLOCKS,
    Tag,
    Words,
    context_of,
    is_block,
    is_feed_forward_name,
    is_norm,
    is_rope,
    is_scaling,
    unwrapped,
    word_of,
)
from .uses import Path, Use, in_stack, type_name

__all__ = ["agreed", "role_of", "tag_of"]

#: Roles that say all, and their tags.
_OF_ROLES: Mapping[Kind, Tag] = {
    "lora_a": "lora_a", "lora_b": "lora_b", "embedding": "embed", "position": "position",
    "head": "head", "norm": "norm", "bias": "bias", "convolution": "conv",
}  # fmt: skip
_ROLES: Mapping[Tag, Kind] = {tag: role for role, tag in _OF_ROLES.items()}
#: Roles of what has a second side.
_TWO_SIDED: tuple[Kind, ...] = ("matrix", "convolution", "lora_a", "lora_b")
_ROUTER = re.compile(r"Router$|MoEGate$")
_QUERIES = re.compile("|".join(words.pattern for words in ATTENTION_ANYWHERE.values()))


def tag_of(use: Use, role: Kind, heads: Collection[int]) -> Tag:
    """The tag of a parameter where it is used.

    Args:
        role: what it has there.
        heads: ids of the modules that are output heads.
    """
    module = use.module
    if adapter_of(use) is not None and role in ("embedding", "vector"):
        # the A of an embedding is a table to a budget; magnitudes, or singular values
        return "lora_a" if role == "embedding" else "scaling"
    if is_rope(module, "" if is_linear(module) else use.own) and role not in ("norm", "bias"):
        return "rope"
    if role in _OF_ROLES:
        return _OF_ROLES[role]
    if isinstance(module, _ConvNd):
        return "conv"  # depthwise
    if id(module) in heads:
        return "head"
    if role == "matrix" or (is_linear(module) and use.own.startswith("weight")):
        return _of_layer(use)
    return _of_bare(use)


def agreed(tags: Iterable[Tag], role: Kind) -> Tag:
    """The tag of a parameter that is used in several places."""
    found = set(tags)
    return found.pop() if len(found) == 1 else ("mlp" if role == "matrix" else "other")


def role_of(tag: Tag, param: Tensor, found: Kind) -> Kind:
    """The role that a tag has which the caller gives.

    Args:
        found: the role by the model's modules, which stays where the tag says nothing of it: a
            vector becomes no matrix, a stack of matrices no single one.
    """
    if tag in ("rope", "scaling"):
        return "vector"
    if tag == "other":
        return found
    role = _ROLES.get(tag, "matrix")
    sides = 3 if role == "convolution" else 2
    if role in _TWO_SIDED and (
        found in ("vector", "norm", "bias")
        or param.ndim < sides
        or (role == "matrix" and param.ndim > 2)
    ):
        return found
    return role


def _of_layer(use: Use) -> Tag:
    """The tag of a weight that a module multiplies by."""
    sizes = sizes_of(use.module)
    if use.param.ndim == 2 and sizes and use.param.numel() != sizes[0] * sizes[1]:
        return "scaling"  # the magnitudes of weight_norm
    if isinstance(use.module, nn.MultiheadAttention):
        return _named(ATTENTION, use.own.removesuffix("_weight")) or "mlp"
    if isinstance(use.module, nn.Bilinear | nn.RNNBase | nn.RNNCellBase) or _is_router(use):
        return "mlp"
    path = unwrapped(use.path)
    word, context, beside = word_of(path), context_of(path[:-1]), _beside(path)
    if context is None and any(_QUERIES.fullmatch(name.lower()) for name in beside):
        context = "attention"  # a block that holds the layers of attention itself
    if context == "attention" and (tag := _named(ATTENTION, word)):
        return tag
    if tag := _named(ATTENTION_ANYWHERE, word):
        return tag
    inside = context == "feed-forward" or (context is None and is_feed_forward_name(word))
    return _of_feed_forward(path, word, inside, sizes_of(use.module)) or "mlp"


def _of_feed_forward(
    path: Path, word: str, inside: bool, sizes: tuple[int, int] | None
) -> Tag | None:
    """By its name or, within a feed-forward part of a block, by its widths: outputs and inputs."""
    stacked = in_stack(path)
    if not (inside or stacked or any(is_block(place.module) for place in path[-2:-1])):
        return None
    if word == "w1" and any(name in _beside(path) for name in ("w3", "v1")):
        return "ffn_gate"  # w2(f(w1 x) * w3 x), as LLaMA's authors named them
    if tag := _named(FEED_FORWARD_IN_BLOCKS, word) or (inside and _named(FEED_FORWARD, word)):
        return tag
    if inside and stacked and sizes and sizes[0] != sizes[1] and min(sizes) > 1:
        return "ffn_up" if sizes[0] > sizes[1] else "ffn_down"
    return None


def _of_bare(use: Use) -> Tag:
    """The tag of a parameter of a module whose type says little."""
    if is_scaling(use.module, use.own):
        return "scaling"
    if is_norm(use.module):
        return "norm"
    if (table := named_table(use)) is not None:  # one row of it
        return "position" if table == "position" else "embed"
    if use.param.ndim < 2:
        return "other"
    if _is_router(use):
        return "mlp"
    word = use.own.lower().removesuffix("_weight").removesuffix(".weight")
    context = context_of(use.path)
    if context == "attention":
        return _named(ATTENTION, word) or "other"
    if context == "feed-forward":  # such as stacks of experts
        return _named(FEED_FORWARD_IN_BLOCKS, word) or _named(FEED_FORWARD, word) or "other"
    return _named(ATTENTION_ANYWHERE, word) or "other"


def _is_router(use: Use) -> bool:
    """Whether it chooses among experts, which a layer called ``gate`` may do as well."""
    path = unwrapped(use.path)
    named = path[-1].name in ("gate", "router") and "experts" in _beside(path)
    return named or bool(_ROUTER.search(type_name(use.module)))


def _beside(path: Path) -> Collection[str]:
    """The names of the modules that the one above has."""
    return path[-2].module._modules if len(path) > 1 else ()


def _named(words: Words, word: str) -> Tag | None:
    return next((tag for tag, pattern in words.items() if pattern.fullmatch(word)), None)
