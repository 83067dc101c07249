"""A model's weights as checkpoints hold them: plain tensors, quantized ones in their parts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

__all__ = ["load_weights", "saved_weights"]


def saved_weights(model: torch.nn.Module) -> dict[str, Any]:
    """The model's ``state_dict``; in the place of a quantized tensor ``name`` are its codes and
    scales, ``name.<part>``. Nothing is copied."""
    return dict(_plain_entries(model.state_dict()))


def load_weights(model: torch.nn.Module, saved: Mapping[str, Any]) -> None:
    """Write weights that ``saved_weights`` of such a model has returned; names, shapes and dtypes
    are to be checked before."""
    own = model.state_dict()
    whole = {name: value for name, value in own.items() if not _is_quantized(value)}
    plain = {name: saved[name] for name in whole}
    model.load_state_dict(plain, strict=len(whole) == len(own))
    quantized = {name: value for name, value in own.items() if name not in whole}
    with torch.no_grad():
        for name, part in _plain_entries(quantized):
            part.copy_(saved[name])


def _plain_entries(entries: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in entries.items():
        if _is_quantized(value):
            names = value.__tensor_flatten__()[0]
            yield from _plain_entries({f"{name}.{part}": getattr(value, part) for part in names})
        else:
            yield name, value


def _is_quantized(value: Any) -> bool:
    return isinstance(value, Tensor) and is_traceable_wrapper_subclass(value)
