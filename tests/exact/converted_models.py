"""Small models of transformers, with a batch each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

VOCABULARY, LENGTH = 64, 12
_NO_WORDS: dict[str, Any] = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 10_000.0, "factor": 4.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 16,
}  # fmt: skip


def gpt2(dropout: float = 0.0, **more: Any) -> Any:
    config = GPT2Config(
        vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=2, n_positions=LENGTH,
        resid_pdrop=dropout, embd_pdrop=dropout, attn_pdrop=dropout, **_NO_WORDS, **more,
    )  # fmt: skip
    return _ready(GPT2LMHeadModel(config))


def llama(**more: Any) -> Any:
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, **_NO_WORDS, **more,
    )  # fmt: skip
    return _ready(LlamaForCausalLM(config))


def _bert(kind: Any, dropout: float = 0.0, **more: Any) -> Any:
    config = BertConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=LENGTH, hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout, **more,
    )  # fmt: skip
    return _ready(kind(config))


def bert(dropout: float = 0.0) -> Any:
    return _bert(BertForMaskedLM, dropout)


def bert_classifier(labels: int = 3) -> Any:
    return _bert(BertForSequenceClassification, num_labels=labels)


def _ready(model: Any) -> Any:
    """Weights that matter more than fresh ones do, and no word about a class's name."""
    if "CausalLM" in type(model).__name__ or "LMHead" in type(model).__name__:
        model.loss_type = "ForCausalLM"
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model.train()


def ids(rows: int = 2, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(VOCABULARY, (rows, LENGTH), generator=generator)


def padded() -> Tensor:
    """A mask that hides the first tokens of one row and the last of the other."""
    mask = torch.ones(2, LENGTH, dtype=torch.int64)
    mask[0, :4] = mask[1, -2:] = 0
    return mask


def batch(**more: Any) -> dict[str, Tensor]:
    return {"input_ids": ids(), "labels": ids(), **more}


#: By name: a model and a batch for it.
MODELS: dict[str, tuple[Callable[[], Any], dict[str, Tensor]]] = {
    "GPT-2": (gpt2, batch()),
    "GPT-2, padded": (gpt2, batch(attention_mask=padded())),
    "GPT-2 with erf": (
        lambda: gpt2(activation_function="gelu", scale_attn_by_inverse_layer_idx=True), batch()
    ),
    "Llama": (llama, batch()),
    "Llama, padded": (llama, batch(attention_mask=padded())),
    "Llama 3": (lambda: llama(rope_parameters=LLAMA3, tie_word_embeddings=True), batch()),
    "BERT": (bert, batch(attention_mask=padded())),
    "BERT that classifies": (
        bert_classifier, {"input_ids": ids(), "labels": torch.tensor([2, 0])}
    ),
    "BERT that fits numbers": (
        lambda: bert_classifier(1), {"input_ids": ids(), "labels": torch.tensor([0.5, -1.0])}
    ),
}  # fmt: skip
