"""A model of which no tensor has memory: what is estimated is read off it."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from ..state.members import listed
from ..state.shards import as_shard, is_sharded, local_of, whole_of

__all__ = ["held_bytes", "stand_in", "vacant", "vacant_copy"]


def vacant(model: Any) -> nn.Module:
    """The model itself, or one on the meta device of a configuration or of a model's name.

    Raises:
        TypeError: it is none of these, or a configuration of no causal language model.
        ValueError: parameters of lazy modules that have no shape yet.
        cosmic.errors.UsageError: there is no model of that name, or the hub does not answer.
    """
    module = model if isinstance(model, nn.Module) else _of_config(_config(model))
    lazy = [name for name, param in module.named_parameters() if is_lazy(param)]
    if lazy:
        raise ValueError(
            f"the model has parameters of lazy modules that have no shape yet: {listed(lazy)}; run "
            "a batch through it first"
        )
    return module


def _config(model: Any) -> Any:
    if isinstance(model, str):
        from ..models.configs import load_config
        from ..models.loader import hub_is_out_of_reach

        out = hub_is_out_of_reach(model, from_scratch=True)
        return load_config(model, from_scratch=True, local_files_only=out)
    if not hasattr(model, "to_dict") or not hasattr(model, "model_type"):
        raise TypeError(
            f"model is {type(model).__name__}; expected an nn.Module or a configuration of "
            "transformers, or a model's name"
        )
    return model


def _of_config(config: Any) -> nn.Module:
    import transformers

    try:
        with torch.device("meta"):
            module: nn.Module = transformers.AutoModelForCausalLM.from_config(config)
    except ValueError as error:
        if "Unrecognized configuration class" not in str(error):
            raise
        raise TypeError(
            f"a {type(config).__name__} is of no causal language model; give the model itself, "
            "made under torch.device('meta') if it is large"
        ) from None
    return module


def held_bytes(tensor: Tensor) -> int:
    """Bytes that a tensor holds here: of a DTensor those of its shard, of one that is quantized
    those of its codes and scales."""
    if is_sharded(tensor):
        return local_of(tensor).nbytes
    if not is_traceable_wrapper_subclass(tensor):
        return tensor.nbytes
    inner: Any = tensor
    return sum(held_bytes(getattr(tensor, name)) for name in inner.__tensor_flatten__()[0])


def stand_in(tensor: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """A tensor without memory, of the same shape, in `dtype` if both are floating; of a DTensor
    the shard that is here."""
    wanted = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
    grad = tensor.requires_grad
    if is_sharded(tensor):
        here = torch.empty_like(local_of(tensor), dtype=wanted, device="meta")
        return as_shard(tensor, here).requires_grad_(grad)
    if is_traceable_wrapper_subclass(tensor):
        return torch.empty(tensor.shape, dtype=wanted, device="meta", requires_grad=grad)
    return torch.empty_like(tensor, dtype=wanted, device="meta", requires_grad=grad)


def vacant_copy(module: nn.Module, dtype: torch.dtype | None = None) -> nn.Module:
    """A copy in training mode that can be run on the meta device; buffers keep their types."""
    known: dict[int, Any] = {}
    for param in module.parameters():
        whole = whole_of(param.detach())
        known[id(param)] = nn.Parameter(stand_in(whole, dtype), param.requires_grad)
    for buffer in module.buffers():
        known[id(buffer)] = stand_in(buffer)
    copied = copy.deepcopy(module, known)
    config = getattr(copied, "config", None)
    if dtype is not None and config is not None:
        config.dtype = dtype
    return copied.train()
