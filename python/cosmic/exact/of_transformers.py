"""Exact counterparts of transformers' modules, and the attention that its models ask for by name.

Only imported where transformers is in use already.
"""

from __future__ import annotations

import functools
import math
from typing import Any

from torch import Tensor, nn
from transformers import activations as theirs
from transformers import pytorch_utils
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, PreTrainedModel
from transformers.models.llama import modeling_llama

from .activations import gelu, silu
from .attention import attention
from .functions import ACCUMULATE
from .norms import rms_norm
from .products import conv1d
from .rotary import rotary, rotary_frequencies

__all__ = ["NAME", "SWAPS", "pretrained_models", "register", "rotary_refusal"]

#: Of the attention, in ``config._attn_implementation``.
NAME = "cosmic_exact"


class ExactConv1D(pytorch_utils.Conv1D):
    accumulate = "fp64"

    def forward(self, x: Tensor) -> Tensor:
        return conv1d(x, self.weight, self.bias, accumulate=self.accumulate)


class ExactGELU(theirs.GELUActivation):
    def forward(self, input: Tensor) -> Tensor:
        return gelu(input)


class ExactNewGELU(theirs.NewGELUActivation):
    def forward(self, input: Tensor) -> Tensor:
        return gelu(input, "tanh")


class ExactGELUTanh(theirs.GELUTanh):
    def forward(self, input: Tensor) -> Tensor:
        return gelu(input, "tanh")


class ExactSiLU(theirs.SiLUActivation):
    def forward(self, input: Tensor) -> Tensor:
        return silu(input)


class ExactLlamaRMSNorm(modeling_llama.LlamaRMSNorm):
    def forward(self, hidden_states: Tensor) -> Tensor:
        weight = self.weight
        return rms_norm(hidden_states, weight.shape, weight, self.variance_epsilon)


class ExactLlamaRotaryEmbedding(modeling_llama.LlamaRotaryEmbedding):
    def forward(self, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        dim = getattr(self.config, "head_dim", None)
        dim = dim or self.config.hidden_size // self.config.num_attention_heads
        words = tuple(sorted(dict(self.config.rope_parameters or {}).items()))
        frequencies = _frequencies(dim, words)
        return rotary(position_ids, frequencies, scaling=self.attention_scaling, dtype=x.dtype)


@functools.lru_cache(maxsize=64)
def _frequencies(dim: int, words: tuple[tuple[str, Any], ...]) -> Tensor:
    scaling = dict(words)
    return rotary_frequencies(dim, scaling["rope_theta"], scaling)


def rotary_refusal(module: nn.Module) -> str | None:
    """Why a rotary module cannot be computed, or None."""
    parameters = getattr(module.config, "rope_parameters", None) or {}
    kind = parameters.get("rope_type", "default")
    if kind not in ("default", "linear", "llama3"):
        return f"rope_type is {kind!r}; 'default', 'linear' and 'llama3' are computed"
    if parameters.get("partial_rotary_factor", 1.0) != 1.0:
        return "a part of each head is rotated; all of it is computed"
    return None


#: Class by class; a module keeps its parameters, hooks and flags and changes its class alone.
SWAPS: dict[type[nn.Module], type[nn.Module]] = {
    pytorch_utils.Conv1D: ExactConv1D,
    theirs.GELUActivation: ExactGELU,
    theirs.NewGELUActivation: ExactNewGELU,
    theirs.GELUTanh: ExactGELUTanh,
    theirs.SiLUActivation: ExactSiLU,
    modeling_llama.LlamaRMSNorm: ExactLlamaRMSNorm,
    modeling_llama.LlamaRotaryEmbedding: ExactLlamaRotaryEmbedding,
}


def exact_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **more: Any,
) -> tuple[Tensor, None]:
    """``exact.attention`` with the arguments of transformers' attention functions.

    A module that was not converted, but shares its configuration with one that was, has torch's.
    """
    accumulate = getattr(module, ACCUMULATE, None)
    if accumulate is None:
        found = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, is_causal, **more
        )
        return found[0], None
    for option in ("output_attentions", "softcap", "position_bias", "s_aux"):
        if more.get(option) not in (None, False):
            raise ValueError(
                f"a converted model's attention is given {option}, which is not computed; leave it "
                "out, or take the model before exact.convert()"
            )
    root = 1 / math.sqrt(query.shape[-1])  # without the C library's pow
    if scaling is not None and abs(scaling - root) <= 1e-12 * root:
        scaling = root
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    out = attention(
        query,
        key,
        value,
        attention_mask,
        causal=bool(causal) and attention_mask is None,
        scale=scaling,
        dropout=dropout,
        accumulate=accumulate,
    )
    return out.transpose(1, 2).contiguous(), None


def exact_mask(
    batch_size: int, q_length: int, kv_length: int, *args: Any, **more: Any
) -> Tensor | None:
    """A mask of booleans; None where the plain causal pattern, or no pattern, says all of it."""
    if q_length != kv_length:  # the causal pattern alone would then count from the last key
        more["allow_is_causal_skip"] = False
    mask: Tensor | None = sdpa_mask(batch_size, q_length, kv_length, *args, **more)
    return mask


def register() -> None:
    """Make the attention known to transformers."""
    ALL_ATTENTION_FUNCTIONS.register(NAME, exact_attention)
    ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, exact_mask)


def pretrained_models(model: nn.Module) -> list[PreTrainedModel]:
    """The models of transformers that a module is or holds."""
    return [module for module in model.modules() if isinstance(module, PreTrainedModel)]


register()  # here, so that a pickle of a converted model finds it
