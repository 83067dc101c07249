"""Where a model and a dataset come from, told from their names alone.

Without a Hugging Face library: those read at import whether there is a hub (`hub.py`).
"""

from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

STDLIB = "python-stdlib"
FILE_SUFFIXES = frozenset((".txt", ".md", ".text", ".log", ".py", ".jsonl", ".json", ".csv"))

# GPT-2 architectures that need no hub: what differs from the defaults of transformers.
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
}
LLAMA_SHAPES: dict[str, Mapping[str, Any]] = {
    "tinyllama-1.1b": {
        "vocab_size": 32000,
        "max_position_embeddings": 2048,
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": 22,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
    },
}
SHAPES = {  # name: class of the configuration in transformers, and its arguments
    **{name: ("GPT2Config", shape) for name, shape in GPT2_SHAPES.items()},
    **{name: ("LlamaConfig", shape) for name, shape in LLAMA_SHAPES.items()},
}
ALIASES = {
    "distilbert/distilgpt2": "distilgpt2",
    "openai-community/gpt2": "gpt2",
    "openai-community/gpt2-medium": "gpt2-medium",
    "TinyLlama/TinyLlama_v1.1": "tinyllama-1.1b",
}
HUB_IDS = {"tinyllama-1.1b": "TinyLlama/TinyLlama_v1.1"}  # where the hub does not know the name
# nobody has trained them: always from scratch
WITHOUT_WEIGHTS = frozenset({"tiny-gpt2", "small-gpt2"})


class Source(Enum):
    """Where something is to be had."""

    BUILT_IN = "built in"
    LOCAL = "local"
    HUB = "hub"


def is_from_scratch(model: str, from_scratch: bool) -> bool:
    """Whether the model starts from random weights, asked for or not."""
    return from_scratch or model in WITHOUT_WEIGHTS


def known_shape(model: str) -> tuple[str, Mapping[str, Any]] | None:
    """Name and arguments of a configuration class, if the architecture needs no hub."""
    return SHAPES.get(ALIASES.get(model, model))


def model_source(model: str, from_scratch: bool) -> Source:
    """Where the model's configuration comes from, and its weights if not from scratch."""
    if Path(model).expanduser().is_dir() or _is_path(model):
        return Source.LOCAL
    if is_from_scratch(model, from_scratch) and known_shape(model) is not None:
        return Source.BUILT_IN
    return Source.HUB


def dataset_source(dataset: str) -> Source:
    """Where the documents come from. A missing file is still local: that is its error."""
    if dataset == STDLIB:
        return Source.BUILT_IN
    path = Path(dataset).expanduser()
    if path.exists() or path.suffix.lower() in FILE_SUFFIXES or _is_path(dataset):
        return Source.LOCAL
    return Source.HUB


def _is_path(text: str) -> bool:
    return text.startswith((".", "/", "~"))
