"""Causal language models in small, with what each architecture does to its embedding and logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers as tf
from torch import Tensor, nn

__all__ = ["MODELS", "VOCABULARY", "batch", "close", "gradients", "made", "oracle", "twins"]

VOCABULARY, WIDTH, HEADS = 203, 32, 2
_SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": WIDTH, "intermediate_size": 48,
    "num_hidden_layers": 1, "num_attention_heads": HEADS, "num_key_value_heads": HEADS,
    "head_dim": 16, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
    "max_position_embeddings": 64,
}  # fmt: skip
_GPT: dict[str, Any] = {
    "vocab_size": VOCABULARY, "n_embd": WIDTH, "n_layer": 1, "n_head": HEADS, "n_positions": 64,
    "bos_token_id": 1, "eos_token_id": 2, "rotary_dim": 8,
    "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0,
}  # fmt: skip
_OPT: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": WIDTH, "word_embed_proj_dim": 24, "ffn_dim": 48,
    "num_hidden_layers": 1, "num_attention_heads": HEADS, "max_position_embeddings": 64,
    "dropout": 0.0, "attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
_BLOOM: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": WIDTH, "n_layer": 1, "n_head": HEADS,
}  # fmt: skip
_GRANITE: dict[str, Any] = {"logits_scaling": 3.0, "embedding_multiplier": 2.0}

#: By name: tied or not, a bias, a narrower embedding, factors and a soft cap.
MODELS: dict[str, Callable[[], Any]] = {
    "gpt2": lambda: tf.GPT2LMHeadModel(tf.GPT2Config(**_GPT)),
    "gpt2-untied": lambda: tf.GPT2LMHeadModel(tf.GPT2Config(**_GPT, tie_word_embeddings=False)),
    "gpt-neox": lambda: tf.GPTNeoXForCausalLM(tf.GPTNeoXConfig(**_SIZES)),
    "llama": lambda: tf.LlamaForCausalLM(tf.LlamaConfig(**_SIZES)),
    "mistral": lambda: tf.MistralForCausalLM(tf.MistralConfig(**_SIZES)),
    "qwen2": lambda: tf.Qwen2ForCausalLM(tf.Qwen2Config(**_SIZES, tie_word_embeddings=True)),
    "gpt-j": lambda: tf.GPTJForCausalLM(tf.GPTJConfig(**_GPT)),
    "opt": lambda: tf.OPTForCausalLM(tf.OPTConfig(**_OPT)),
    "phi": lambda: tf.PhiForCausalLM(tf.PhiConfig(**_SIZES)),
    "bloom": lambda: tf.BloomForCausalLM(tf.BloomConfig(**_BLOOM)),
    "gemma": lambda: tf.GemmaForCausalLM(tf.GemmaConfig(**_SIZES)),
    "gemma2": lambda: tf.Gemma2ForCausalLM(tf.Gemma2Config(**_SIZES, final_logit_softcapping=1.0)),
    "gemma3": lambda: tf.Gemma3ForCausalLM(tf.Gemma3TextConfig(**_SIZES)),
    "cohere": lambda: tf.CohereForCausalLM(tf.CohereConfig(**_SIZES, logit_scale=0.5)),
    "granite": lambda: tf.GraniteForCausalLM(tf.GraniteConfig(**_SIZES, **_GRANITE)),
}  # fmt: skip


def made(name: str, dtype: torch.dtype = torch.float32) -> Any:
    """A model with weights large enough for its logits to matter."""
    torch.manual_seed(0)
    model = MODELS[name]()
    with torch.no_grad():
        for param in model.parameters():
            if param.dim() > 1:
                param.mul_(4.0)
    return model.to(dtype)


def twins(name: str, dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    return made(name, dtype), made(name, dtype)


def batch(seed: int = 1, tokens: int = 17) -> dict[str, Tensor]:
    """Three sequences, one of which has labels that are no targets; tokens recur."""
    ids = torch.randint(3, VOCABULARY, (3, tokens), generator=torch.Generator().manual_seed(seed))
    ids[1] = ids[0]
    labels = ids.clone()
    labels[0, :5] = -100
    return {"input_ids": ids, "labels": labels}


def gradients(model: nn.Module) -> dict[str, Tensor | None]:
    return {name: param.grad for name, param in model.named_parameters()}


def close(one: nn.Module, other: nn.Module, tolerance: float = 2e-6) -> None:
    """All gradients are alike, by the largest element of each; what is zero but for rounding, as
    the gradient of a bias of keys is, by a hundredth of the model's largest one."""
    largest = max(float(grad.abs().max()) for grad in gradients(one).values() if grad is not None)
    for (name, expected), (same, found) in zip(
        gradients(one).items(), gradients(other).items(), strict=True
    ):
        assert name == same
        if expected is None or found is None:
            assert expected is found, name
            continue
        error = (expected - found).abs().max() / expected.abs().max().clamp(
            min=max(1e-2 * largest, 1e-12)
        )
        assert error < tolerance, f"{name}: {error}"


def oracle(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    """The loss, taken in the model's own dtype."""
    logits = model(input_ids=inputs["input_ids"]).logits[:, :-1]
    targets = inputs["labels"][:, 1:]
    return nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
