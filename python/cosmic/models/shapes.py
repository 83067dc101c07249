"""Architectures that need no hub: names, sizes, and where their trained weights are.

Sizes are those of the published configurations; `tests/models` has their counts of parameters.
"""

from collections.abc import Mapping
from typing import Any

# GPT-2 by what differs from the defaults of transformers.
_FROM_SCRATCH: Mapping[str, Any] = {
    "vocab_size": 4096,
    "n_positions": 256,
    "bos_token_id": 0,
    "eos_token_id": 0,
    # A run this short sees no token twice: dropout would only slow it.
    "embd_pdrop": 0.0,
    "resid_pdrop": 0.0,
    "attn_pdrop": 0.0,
}
GPT2_SHAPES: dict[str, Mapping[str, Any]] = {
    "tiny-gpt2": {**_FROM_SCRATCH, "n_embd": 128, "n_layer": 3, "n_head": 4},
    "small-gpt2": {**_FROM_SCRATCH, "n_embd": 192, "n_layer": 6, "n_head": 6},
    "distilgpt2": {"n_layer": 6},
    "gpt2": {},
    "gpt2-medium": {"n_embd": 1024, "n_layer": 24, "n_head": 16},
    "gpt2-large": {"n_embd": 1280, "n_layer": 36, "n_head": 20},
}


def _llama(
    hidden: int, inner: int, layers: int, heads: int, key_value_heads: int, positions: int
) -> Mapping[str, Any]:
    return {
        "vocab_size": 32000,
        "max_position_embeddings": positions,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": key_value_heads,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
    }


LLAMA_SHAPES: dict[str, Mapping[str, Any]] = {
    "tinyllama-1.1b": _llama(2048, 5632, 22, 32, 4, 2048),
    "llama-7b": _llama(4096, 11008, 32, 32, 32, 4096),  # Llama 2; the first had 2048 positions
}


def _pythia(hidden: int, layers: int, heads: int) -> Mapping[str, Any]:
    return {
        "vocab_size": 50304,
        "max_position_embeddings": 2048,
        "hidden_size": hidden,
        "intermediate_size": 4 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "rotary_pct": 0.25,
        "use_parallel_residual": True,
        "tie_word_embeddings": False,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }


PYTHIA_SHAPES: dict[str, Mapping[str, Any]] = {
    "pythia-70m": _pythia(512, 6, 8),
    "pythia-160m": _pythia(768, 12, 12),
    "pythia-410m": _pythia(1024, 24, 16),
    "pythia-1b": _pythia(2048, 16, 8),
    "pythia-1.4b": _pythia(2048, 24, 16),
    "pythia-2.8b": _pythia(2560, 32, 32),
}
SHAPES = {  # name: class of the configuration in transformers, and its arguments
    **{name: ("GPT2Config", shape) for name, shape in GPT2_SHAPES.items()},
    **{name: ("LlamaConfig", shape) for name, shape in LLAMA_SHAPES.items()},
    **{name: ("GPTNeoXConfig", shape) for name, shape in PYTHIA_SHAPES.items()},
}
HUB_IDS = {  # where the hub does not know the name
    "tinyllama-1.1b": "TinyLlama/TinyLlama_v1.1",
    "llama-7b": "meta-llama/Llama-2-7b-hf",
    **{name: f"EleutherAI/{name}" for name in PYTHIA_SHAPES},
}
ALIASES = {
    "distilbert/distilgpt2": "distilgpt2",
    **{f"openai-community/{name}": name for name in ("gpt2", "gpt2-medium", "gpt2-large")},
    **{hub_id: name for name, hub_id in HUB_IDS.items()},
}
# nobody has trained them: always from scratch
WITHOUT_WEIGHTS = frozenset({"tiny-gpt2", "small-gpt2"})


def known_shape(model: str) -> tuple[str, Mapping[str, Any]] | None:
    """Name and arguments of a configuration class, if the architecture needs no hub."""
    return SHAPES.get(ALIASES.get(model, model))
