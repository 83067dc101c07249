"""The language model: from the hub, from a local folder, or random weights of a known shape."""

from typing import Any

import torch
import transformers

from cosmic.errors import UsageError, first_line
from cosmic.models.configs import load_config
from cosmic.models.sources import is_from_scratch
from cosmic.models.weights import load_weights, map_weights

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def build_model(
    model: str,
    from_scratch: bool,
    seed: int,
    dtype: str,
    *,
    without_weights: bool = False,
    local_files_only: bool = False,
) -> Any:
    """The model on the CPU, in training mode. The same seed gives the same random weights.

    Weights are made in `dtype` from the first, and trained ones mapped: a copy in fp32 would be the
    peak of all memory.

    Args:
        model: hub id, known name or local folder.
        from_scratch: random weights instead of trained ones.
        seed: of random weights.
        dtype: a key of `DTYPES`.
        without_weights: random weights are not made, and of trained ones it is only seen that the
            files have them; the parameters are on torch's meta device.
        local_files_only: from the hub's cache alone.

    Raises:
        UsageError: as `load_config`; or it is no causal language model, or its files have other
            weights than the architecture.
    """
    if is_from_scratch(model, from_scratch):
        config = load_config(model, from_scratch, local_files_only=local_files_only)
    elif without_weights:
        config = map_weights(model, local_files_only=local_files_only).config
    else:
        return load_weights(model, DTYPES[dtype], local_files_only=local_files_only).train()
    torch.manual_seed(seed)
    try:
        with torch.device("meta" if without_weights else "cpu"):
            built = transformers.AutoModelForCausalLM.from_config(config, dtype=DTYPES[dtype])
    except ValueError as error:
        raise UsageError(f"model {model!r}: {first_line(error)}") from error
    return built.train()
