"""A small Llama on the sources of Python's standard library."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from suite.problem import Problem, Task
from suite.tasks.language import BLOCK, VOCABULARY, LanguageProblem, next_token_loss, order_of

STEPS, BATCH = 400, 16


def _llama(seed: int) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=VOCABULARY,
        max_position_embeddings=BLOCK,
        hidden_size=64,
        intermediate_size=172,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        bos_token_id=0,
        eos_token_id=0,
        tie_word_embeddings=False,
        use_cache=False,
    )
    torch.manual_seed(seed)
    return LlamaForCausalLM(config)


def _loss(model: Any, ids: Tensor) -> Tensor:
    hidden = model.model(input_ids=ids).last_hidden_state
    return next_token_loss(hidden, model.lm_head.weight, ids)


def _make(seed: int) -> Problem:
    return LanguageProblem(_llama(seed), _loss, order_of(seed, STEPS, BATCH))


LLAMA = Task(
    name="llama",
    title="a small Llama on Python sources, 16 sequences a step",
    half="judge",
    make=_make,
    steps=STEPS,
    batch=BATCH,
    rate=3e-3,
)
