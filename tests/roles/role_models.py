"""Models whose tensors' roles are known, and what param_groups finds in them."""

from __future__ import annotations

import re
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from cosmic import param_groups

SMALL: dict[str, Any] = {
    "vocab_size": 800, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 128, "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0,
}  # fmt: skip


def gpt2(tied: bool = True, **more: Any) -> transformers.GPT2LMHeadModel:
    config = transformers.GPT2Config(
        vocab_size=800, n_positions=64, n_embd=64, n_layer=2, n_head=2, bos_token_id=0,
        eos_token_id=0, tie_word_embeddings=tied, **more,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config)


def llama(**more: Any) -> transformers.LlamaForCausalLM:
    config = transformers.LlamaConfig(**SMALL, num_key_value_heads=2, **more)
    return transformers.LlamaForCausalLM(config)


def found(model: nn.Module, **options: Any) -> dict[str, str]:
    """The role of each parameter by its name."""
    groups = param_groups(model, **options)
    return {name: group["role"] for group in groups for name in group["param_names"]}


def roles_of(model: nn.Module, **options: Any) -> dict[str, set[str]]:
    """The names that each role has."""
    out: dict[str, set[str]] = {}
    for name, role in found(model, **options).items():
        out.setdefault(role, set()).add(name)
    return out


def without_numbers(name: str) -> str:
    """A parameter's name for all blocks of a stack."""
    return re.sub(r"\d+", "#", name)


class Bare(nn.Module):
    """Parameters that no module type explains, by the names given."""

    def __init__(self, **shapes: tuple[int, ...]) -> None:
        super().__init__()
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.zeros(shape)))


class TinyGPT(nn.Module):
    """As people write them by hand, with a head that may be tied."""

    def __init__(self, tied: bool = False, width: int = 64) -> None:
        super().__init__()
        self.wte = nn.Embedding(800, width)
        self.wpe = nn.Embedding(width, width)  # as long as wide: no shape tells it from a matrix
        self.blocks = nn.ModuleList([Block(width) for _ in range(2)])
        self.ln_f = nn.LayerNorm(width)
        self.out = nn.Linear(width, 800, bias=False)
        if tied:
            self.out.weight = self.wte.weight

    def forward(self, tokens: Tensor) -> Any:
        x: Tensor = self.wte(tokens) + self.wpe.weight[: tokens.shape[-1]]
        for block in self.blocks:
            x = block(x)
        return self.out(self.ln_f(x))


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.ln = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.fc_in = nn.Linear(width, 4 * width)
        self.fc_out = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.ln(x)).chunk(3, -1)
        x = x + nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return x + torch.as_tensor(self.fc_out(nn.functional.gelu(self.fc_in(x))))
