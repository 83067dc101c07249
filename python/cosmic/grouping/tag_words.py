"""Tags, and the words that layers of attention and of feed-forward parts are called by.

They count only where they are said of the right thing: ``gate_proj`` is another layer in attention
than in a feed-forward part, ``out_proj`` is one of attention in attention alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from re import Pattern
from typing import Literal, TypeAlias, get_args

from torch import nn

from .uses import Path, type_name

__all__ = [
    "ATTENTION", "ATTENTION_ANYWHERE", "FEED_FORWARD", "FEED_FORWARD_IN_BLOCKS", "TAGS", "Context",
    "Tag", "Words", "context_of", "is_block", "is_feed_forward_name", "is_norm", "is_rope",
    "is_scaling", "unwrapped", "word_of",
]  # fmt: skip

Tag: TypeAlias = Literal[
    "lora_a", "lora_b", "attn_q", "attn_k", "attn_v", "attn_qkv", "attn_o", "attn_gate",
    "ffn_gate", "ffn_up", "ffn_down", "rope", "scaling", "embed", "position", "norm", "bias",
    "head", "conv", "mlp", "other",
]  # fmt: skip
#: In the order of the table in docs/param_groups.md.
TAGS: tuple[Tag, ...] = get_args(Tag)

#: Names by what a layer of that name does.
Words: TypeAlias = Mapping[Tag, Pattern[str]]

#: The part of a model that a layer belongs to.
Context = Literal["attention", "feed-forward"]

_BEFORE = r"(?:to_?|w_?|add_|attn_|proj_|lin_|linear_)?"
_AFTER = r"(?:_?(?:proj|projection|lin|linear|layer|attn))?"


def _one(*words: str) -> Pattern[str]:
    return re.compile("|".join(words))


#: Layers within attention; the first that fits.
ATTENTION: Words = {
    "attn_qkv": _one(
        rf"{_BEFORE}(?:qkv|qk|kv|query_key_value|key_value){_AFTER}",
        r"c_attn|w_pack|in_proj(?:_qkvz?)?|kv_[ab]_proj(?:_with_mqa)?",
    ),
    "attn_q": _one(rf"{_BEFORE}(?:q|query|queries)(?:_[ab])?{_AFTER}"),
    "attn_k": _one(rf"{_BEFORE}(?:k|keys?){_AFTER}"),
    "attn_v": _one(rf"{_BEFORE}(?:v|values?){_AFTER}"),
    "attn_gate": _one(rf"{_BEFORE}(?:g|gates?|gating|output_gate){_AFTER}"),
    "attn_o": _one(rf"{_BEFORE}(?:o|out|output){_AFTER}", r"c_proj|proj|projection|proj_out|dense"),
}
#: Names that mean attention wherever they stand.
ATTENTION_ANYWHERE: Words = {
    "attn_qkv": _one(r"(?:to_?|w)?qkv(?:_proj|_lin)?|query_key_value|c_attn|w_pack"),
    "attn_q": _one(r"(?:to_|w_?)q|q_(?:proj|lin)"),
    "attn_k": _one(r"(?:to_|w_?)k|k_(?:proj|lin)"),
    "attn_v": _one(r"(?:to_|w_?)v|v_(?:proj|lin)"),
}
#: Names that mean feed-forward parts in any block, and those that do so within such a part alone.
FEED_FORWARD_IN_BLOCKS: Words = {
    "ffn_gate": _one(r"(?:ffn_|mlp_)?gate_proj|wi_0"),
    "ffn_up": _one(
        r"(?:ffn_|mlp_)?(?:up|gate_up)_proj|(?:ffn|mlp)_(?:up|in)|c_fc|fc_?1|fc_in|lin(?:ear)?_?1",
        r"wi(?:_1)?|w1|w3|v1|dense_h_to_4h|pwconv1",
    ),
    "ffn_down": _one(
        r"(?:ffn_|mlp_)?down_proj|(?:ffn|mlp)_(?:down|out)|fc_?2|fc_out|lin(?:ear)?_?2",
        r"w2|dense_4h_to_h|pwconv2",
    ),
}
FEED_FORWARD: Words = {
    "ffn_gate": _one(r"(?:linear_|w_)?gate(?:_layer|_lin|_linear)?|fc1_g"),
    "ffn_up": _one(
        r"(?:linear_|w_)?up|gate_up|expand|fc1_x|w12|(?:dense|layer)_?1|proj_in|input_linear"
    ),
    "ffn_down": _one(
        r"(?:linear_|w_)?down|reduce|c_proj|wo|(?:dense|layer)_?2|proj_out|output_linear"
    ),
}

_ATTENTION_TYPE = re.compile(r"Attention|Attn|MHA$|Retention")
_FEED_FORWARD_TYPE = re.compile(
    r"MLP|Mlp|Feed_?[Ff]orward|FFN|FF$|DenseAct|GatedAct|GLU|Glu|Experts?$|Intermediate$"
    r"|(?<!Self)(?<!Cross)Output$"
)
_ATTENTION_NAME = re.compile(r"attn|attention|(?:^|_)mha(?:_|$)", re.IGNORECASE)
_FEED_FORWARD_NAME = re.compile(
    r"(?:^|_)(?:mlp|ffn?|feed_?forward|experts?|dense_?relu_?dense)(?:_|\d|$)", re.IGNORECASE
)
_NORM_TYPE = re.compile(r"Norm(?![a-z])")
_BLOCK_TYPE = re.compile(r"(?:Layer|Block)$")
#: Modules that hold more than the attention that is in the names of their types.
_MORE_TYPE = re.compile(r"(?:Layer|Block|Encoder|Decoder|Transformer|Net|Network|Model|LM)$")
_ROPE_TYPE = re.compile(r"(?:Rotary|RoPE|Rope)(?![a-z])(?!\w*Att)")
_ROPE = re.compile(r"(?:^|_)(?:rope|rotary|inv_freqs?|freqs)(?:_|$)")
_SCALING_TYPE = re.compile(r"(?:Layer)?Scale$|^PReLU$")
_SCALING = re.compile(
    r"(?:^|_)(?:scales?|scaling|gains?|gamma|temperature|lambda|ls|ia3_l)(?:_?\d+)?(?:_|$)"
)
#: What wrappers call the module that they wrap.
_WRAPPED = re.compile(
    r"base_layer|default|modules_to_save|original_module|module|_orig_mod|_fsdp_wrapped_module"
    r"|_checkpoint_wrapped_module"
)


def unwrapped(path: Path) -> Path:
    """A way to a module without the wrappers around it, which ends with what has its name."""
    while len(path) > 1 and _WRAPPED.fullmatch(path[-1].name):
        path = path[:-1]
    return path


def context_of(path: Path) -> Context | None:
    """What the innermost module says that says something, by its type or else by its name."""
    for name, module in reversed(path):
        kind = type_name(module)
        if isinstance(module, nn.MultiheadAttention):
            return "attention"
        if _ATTENTION_TYPE.search(kind) and not _MORE_TYPE.search(kind):
            return "attention"
        if _FEED_FORWARD_TYPE.search(kind):
            return "feed-forward"
        if is_feed_forward_name(name):
            return "feed-forward"
        if _ATTENTION_NAME.search(name):
            return "attention"
    return None


def is_feed_forward_name(name: str) -> bool:
    """Whether what is called so is a feed-forward part, or one of its layers."""
    return bool(_FEED_FORWARD_NAME.search(name)) and "position" not in name


def is_block(module: nn.Module) -> bool:
    """Whether a module is a block of a transformer or the like, by its type."""
    transformer = nn.TransformerEncoderLayer | nn.TransformerDecoderLayer
    return isinstance(module, transformer) or bool(_BLOCK_TYPE.search(type_name(module)))


def word_of(path: Path) -> str:
    """What a layer is called, in lower case: where that is a number, as in a sequence, what holds
    it."""
    names = (place.name for place in reversed(path))
    return next((name.lower() for name in names if not name.isdigit()), "")


def is_norm(module: nn.Module) -> bool:
    """Whether a module's type says that it normalizes, whatever else it does."""
    return bool(_NORM_TYPE.search(type_name(module)))


def is_rope(module: nn.Module, own: str) -> bool:
    """Whether types or names say that a parameter belongs to rotary positions."""
    return bool(_ROPE_TYPE.search(type_name(module)) or _ROPE.search(own.lower()))


def is_scaling(module: nn.Module, own: str) -> bool:
    """Whether types or names say that a parameter is a scale."""
    return bool(_SCALING_TYPE.search(type_name(module)) or _SCALING.search(own.lower()))
