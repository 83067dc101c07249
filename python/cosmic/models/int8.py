"""A frozen base in int8: the weights of hidden linear layers, a scale for each row, by torchao."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from cosmic.models.weights import cast_in_place, give_back_freed, mapped_files, read_as


def quantize_base(model: Any) -> Any:
    """Quantize the weights of hidden linear layers, one layer after the other, so that memory holds
    the quantized model and one layer beside it. Embeddings, head and the rest become bf16.

    A weight `w` becomes `round(w / s)` in int8 with `s = max |w| / 127` of its row. GPT-2's
    transposed layers (`Conv1D`) become `nn.Linear`, which compute the same. All is frozen.

    Args:
        model: of transformers, fresh from its files or made anew: nothing may have been written to
            mapped weights.

    Returns:
        The model.
    """
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    mapped = mapped_files()
    head = model.get_output_embeddings()
    with torch.no_grad():
        for name, module in list(model.named_modules()):
            linear = _as_linear(module)
            if linear is None or module is head:
                continue
            stored = linear.weight.data
            weight = read_as(stored, torch.bfloat16, mapped)
            linear.weight = nn.Parameter(weight, requires_grad=False)
            del weight, stored
            quantize_(linear, Int8WeightOnlyConfig())
            if linear is not module:
                model.set_submodule(name, linear)
            give_back_freed()
    cast_in_place(model, torch.bfloat16)
    return model.requires_grad_(False)


def _as_linear(module: nn.Module) -> nn.Linear | None:
    """The layer, or one that computes the same as GPT-2's, on the same memory."""
    from transformers.pytorch_utils import Conv1D

    if isinstance(module, nn.Linear):
        return module
    if not isinstance(module, Conv1D):
        return None
    inputs, outputs = module.weight.shape
    with torch.device("meta"):
        linear = nn.Linear(inputs, outputs)
    linear.weight = nn.Parameter(module.weight.data.t(), requires_grad=False)
    linear.bias = nn.Parameter(module.bias.data, requires_grad=False)
    return linear
