"""Bytes that an optimizer's tensors hold, beside AdamW's."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ...capital.budget import ADAMW_BYTES
from ...planning.vacant import held_bytes
from ...state.places import real_numel

__all__ = ["MemoryUsage", "usage_of"]

_COUNTER_BYTES = 4  # AdamW's step, a float32 a tensor


class MemoryUsage(NamedTuple):
    """Bytes of a model in training beside activations; what is written here is what is held.

    Attributes:
        weight_bytes: of the optimizer's parameters, or of all of a model's, buffers too.
        gradient_bytes: of the gradients that a backward makes and that are held at one time: all
            of them, or the largest one while hooks release each.
        state_bytes: of COSMIC's tensors in ``optimizer.state``, as they are now: 0 before the
            first step.
        all_gradient_bytes: of all gradients, whatever is released.
        adamw_bytes: of the state of torch's AdamW with fp32 moments for the same parameters.
    """

    weight_bytes: int
    gradient_bytes: int
    state_bytes: int
    all_gradient_bytes: int
    adamw_bytes: int

    @property
    def total_bytes(self) -> int:
        """Weights, gradients and state."""
        return self.weight_bytes + self.gradient_bytes + self.state_bytes

    @property
    def adamw_total_bytes(self) -> int:
        """The same with AdamW, which keeps all gradients."""
        return self.weight_bytes + self.all_gradient_bytes + self.adamw_bytes

    @property
    def state_ratio(self) -> float:
        """AdamW's state over this one; infinite where there is none."""
        return self.adamw_bytes / self.state_bytes if self.state_bytes else math.inf

    @property
    def total_ratio(self) -> float:
        """AdamW's total over this one: what a machine gains, as weights do not shrink."""
        return self.adamw_total_bytes / self.total_bytes if self.total_bytes else math.nan

    def __str__(self) -> str:
        rows = (
            ("weights", self.weight_bytes, self.weight_bytes),
            ("gradients", self.gradient_bytes, self.all_gradient_bytes),
            ("state", self.state_bytes, self.adamw_bytes),
            ("together", self.total_bytes, self.adamw_total_bytes),
        )
        lines = [f"{'bytes':<10}{'held':>18}{'AdamW':>18}{'AdamW / held':>14}"]
        for name, held, adamw in rows:
            ratio = f"{adamw / held:,.1f}" if held else "-"
            lines.append(f"{name:<10}{held:>18,}{adamw:>18,}{ratio:>14}")
        return "\n".join(lines)


def usage_of(
    params: Iterable[Tensor], model: nn.Module | None, state_bytes: int, released: bool
) -> MemoryUsage:
    """Count the bytes.

    Args:
        params: the optimizer's, each once; those that take no gradient have no state of AdamW's.
        model: whose weights count, frozen ones and buffers too; None: those of ``params``.
        state_bytes: of the optimizer's state.
        released: whether each gradient is freed as soon as it has been used.
    """
    own = [p for p in params if not is_lazy(p)]
    trained = [p for p in own if p.requires_grad]
    gradients = [p.numel() * _gradient_dtype(p).itemsize for p in trained]
    return MemoryUsage(
        weight_bytes=sum(held_bytes(x) for x in (own if model is None else _tensors_of(model))),
        gradient_bytes=max(gradients, default=0) if released else sum(gradients),
        state_bytes=state_bytes,
        all_gradient_bytes=sum(gradients),
        adamw_bytes=sum(ADAMW_BYTES * real_numel(p) + _COUNTER_BYTES for p in trained),
    )


def _tensors_of(model: nn.Module) -> list[Tensor]:
    """All parameters and buffers that are made, each once."""
    every = (*model.parameters(), *model.buffers())
    return [tensor for tensor in dict.fromkeys(every) if not is_lazy(tensor)]


def _gradient_dtype(param: Tensor) -> torch.dtype:
    return param.grad_dtype or param.dtype
