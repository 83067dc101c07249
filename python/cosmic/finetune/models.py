"""The language model: from the hub, from a local folder, or random weights of a known shape."""

import logging
from pathlib import Path
from typing import Any

import torch
import transformers

from cosmic.finetune.errors import UsageError, first_line
from cosmic.finetune.sources import (
    HUB_IDS,
    SHAPES,
    WITHOUT_WEIGHTS,
    Source,
    is_from_scratch,
    known_shape,
    model_source,
)

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def silence_transformers() -> None:
    """No progress bars and no advice from the library: they would tear our own bar."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)


def load_config(model: str, from_scratch: bool) -> Any:
    """The model's configuration.

    Raises:
        UsageError: there is no such model, or it cannot be had.
    """
    shape = known_shape(model)
    if shape is not None and model_source(model, from_scratch) is Source.BUILT_IN:
        kind, arguments = shape
        return getattr(transformers, kind)(**arguments)
    return _from_pretrained(transformers.AutoConfig, model)


def build_model(
    model: str, from_scratch: bool, seed: int, dtype: str, *, without_weights: bool = False
) -> Any:
    """The model on the CPU, in training mode. The same seed gives the same random weights.

    Weights are made in `dtype` from the first: a copy in fp32 would be the peak of all memory.

    Args:
        without_weights: random weights are not made; the parameters are on torch's meta device.

    Raises:
        UsageError: as `load_config`; or it is no causal language model.
    """
    config = load_config(model, from_scratch)
    if is_from_scratch(model, from_scratch):
        torch.manual_seed(seed)
        try:
            with torch.device("meta" if without_weights else "cpu"):
                built = transformers.AutoModelForCausalLM.from_config(config, dtype=DTYPES[dtype])
        except ValueError as error:
            raise UsageError(f"model {model!r}: {first_line(error)}") from error
    else:
        built = _from_pretrained(transformers.AutoModelForCausalLM, model, dtype=DTYPES[dtype])
    return built.train()


def load_tokenizer(model: str) -> Any:
    """The tokenizer that belongs to the model's weights.

    Raises:
        UsageError: it cannot be had.
    """
    return _from_pretrained(transformers.AutoTokenizer, model)


def _from_pretrained(loader: Any, model: str, **options: Any) -> Any:
    local = model_source(model, from_scratch=False) is Source.LOCAL
    path = Path(model).expanduser()
    if local and not (path / "config.json").is_file():
        raise UsageError(f"model folder {model} does not exist or has no config.json")
    try:
        return loader.from_pretrained(str(path) if local else HUB_IDS.get(model, model), **options)
    except (OSError, ValueError) as error:
        if local:
            raise UsageError(f"model folder {model}: {first_line(error)}") from error
        raise UsageError(hub_advice(model, error)) from error


def hub_advice(model: str, error: Exception) -> str:
    """One sentence: why there is no such model, and what to do instead."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        why = f"model {model!r} is not in the local cache and the Hugging Face Hub does not answer"
    else:
        why = f"model {model!r} cannot be had from the Hugging Face Hub ({first_line(error)})"
    if known_shape(model) is not None:
        return f"{why}; start the same architecture from random weights with --from-scratch"
    known = ", ".join(name for name in SHAPES if name not in WITHOUT_WEIGHTS)
    return f"{why}; try --from-scratch with a local folder or {known}, or --model tiny-gpt2"
