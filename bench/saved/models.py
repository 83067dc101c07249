"""Small language models of `transformers`, and ways to hold what autograd saves."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from cosmic import compress_activations

#: Codecs, and what they stand beside: all kept, and recomputation by ``torch.utils.checkpoint``.
WAYS = ("kept", "q8", "u4+q8", "u4", "u2", "recomputed")
MODELS = ("gpt2", "llama")


@dataclass(frozen=True)
class Size:
    """Of a model and of its batches."""

    layers: int
    width: int
    tokens: int
    batch: int
    vocabulary: int


def build(name: str, size: Size) -> Any:
    """A model without dropout, from ``torch``'s generator."""
    common: dict[str, Any] = {
        "vocab_size": size.vocabulary,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    if name == "gpt2":
        config = GPT2Config(
            n_layer=size.layers,
            n_embd=size.width,
            n_head=size.width // 32,
            n_positions=size.tokens,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            **common,
        )
        return GPT2LMHeadModel(config).train()
    return LlamaForCausalLM(
        LlamaConfig(
            hidden_size=size.width,
            intermediate_size=11 * size.width // 4,
            num_hidden_layers=size.layers,
            num_attention_heads=size.width // 32,
            num_key_value_heads=size.width // 32,
            max_position_embeddings=size.tokens,
            **common,
        )
    ).train()


def holding(way: str, model: Any, seed: int = 0) -> Callable[[], AbstractContextManager[Any]]:
    """Gives the context of a forward pass; recomputation is switched on or off in the model."""
    if way == "recomputed":
        model.activation_checkpointing_enable()
        return nullcontext
    model.activation_checkpointing_disable()
    if way == "kept":
        return nullcontext
    compressed = compress_activations(way, seed=seed)
    return lambda: compressed


def loss_of(model: Any, ids: Tensor) -> Tensor:
    """Mean cross-entropy of the next token."""
    loss = model(input_ids=ids, labels=ids, use_cache=False).loss
    assert isinstance(loss, Tensor)
    return loss


def random_ids(size: Size) -> Tensor:
    """One batch of noise."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(size.vocabulary, (size.batch, size.tokens), generator=generator)
