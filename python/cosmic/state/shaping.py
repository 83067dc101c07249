"""Giving a fresh optimizer's state the shape of a checkpoint, before the checkpoint fills it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .entries import STATE_FORMAT, State, holds, is_marker
from .names import unwrapped_name

__all__ = ["shaped_states"]


def shaped_states(
    model: nn.Module, metadata: Mapping[str, Any], prefix: str, wanted: Collection[Tensor]
) -> dict[Tensor, State]:
    """What a checkpoint has of COSMIC's state for each of the ``wanted`` parameters of a model:
    tensors without memory, of the checkpoint's shapes.

    Raises:
        ValueError: if the checkpoint has none.
        TypeError: if it is described by something else than a mapping.
    """
    if not isinstance(metadata, Mapping) or not isinstance(model, nn.Module):
        raise TypeError(
            f"shape_state takes a model and a mapping of entries to what they are, such as "
            f"read_metadata().state_dict_metadata; got {type(model).__name__} and "
            f"{type(metadata).__name__}"
        )
    start = f"{prefix}state."
    states: dict[str, State] = {}
    for key, about in metadata.items():
        name, _, entry = key.removeprefix(start).rpartition(".")
        if key.startswith(start) and name:
            marked = is_marker(entry)
            states.setdefault(name, {})[entry] = STATE_FORMAT if marked else _placeholder(about)
    named: list[tuple[str, Tensor]] = [(n, p) for n, p in model.named_parameters() if p in wanted]
    params: dict[str, Tensor] = {unwrapped_name(n): p for n, p in named} | dict(named)
    found = {params[name]: s for name, s in states.items() if name in params and holds(s)}
    if not found:
        raise ValueError(
            f"the checkpoint has no state of Cosmic's for the model's parameters under {start!r}; "
            "prefix is what the optimizer's entry was called when it was saved, such as 'optim.'"
        )
    return found


def _placeholder(about: Any) -> Tensor | int:
    """A tensor without memory, or a number to be replaced."""
    size = getattr(about, "size", None)
    properties = getattr(about, "properties", None)
    if isinstance(about, Tensor):
        return torch.empty(tuple(about.shape), dtype=about.dtype, device="meta")
    if size is None or properties is None:
        return 0
    return torch.empty(tuple(size), dtype=properties.dtype, device="meta")
