"""Preset Tiger beside its reference: the same parameters, gradients and options."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cosmic.presets import Tiger
from helpers import normal, parameter
from reference.tiger import TigerGroup, TigerOptions, TigerTensor

Array = NDArray[np.float64]

#: A matrix whose second moment is factored, one that is too small for it, a vector, and one that
#: starts at zero.
SHAPES = ((64, 65), (5, 17), (33,), (12,))
ZERO = 3
FACTORED_FROM = 4096  # elements

_NAMES = {
    "sign_blend": "blend", "sign_tau": "kappa", "use_trust_ratio": "trust",
    "trust_ema_beta": "norm_decay", "rms_clip_threshold": "clip_update",
    "rms_clip_granularity": "granularity",
}  # fmt: skip


def fresh(dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    """The same parameters at every call."""
    params = [parameter(k, *shape, dtype=dtype) for k, shape in enumerate(SHAPES)]
    with torch.no_grad():
        params[ZERO].zero_()
    return params


def gradients(step: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Of every parameter, of another size each, with a part that stays."""
    return [
        (normal(1000 * step + k, *shape) + normal(k, *shape)).to(dtype) * 10.0 ** (k - 4)
        for k, shape in enumerate(SHAPES)
    ]


def take_steps(
    optimizer: Tiger, first: int, last: int, *, dtype: torch.dtype = torch.float32, scale: float = 1
) -> Tiger:
    """Steps first..last - 1."""
    params = params_of(optimizer)
    for step in range(first, last):
        for p, g in zip(params, gradients(step, dtype), strict=True):
            p.grad = g * scale
        optimizer.step()
    return optimizer


def params_of(optimizer: Tiger) -> list[nn.Parameter]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def options_of(named: dict[str, Any]) -> TigerOptions:
    """The reference's options for Tiger's."""
    renamed = {_NAMES.get(name, name): value for name, value in named.items()}
    renamed.pop("factored", None)
    if renamed.get("blend_steps"):
        renamed.setdefault("blend_to", 0.6)
    return TigerOptions(**renamed)


def reference(named: dict[str, Any], steps: int) -> list[Array]:
    """Parameters after the reference's steps."""
    factored = named.get("factored", True)
    tensors = [
        TigerTensor(as_array(p), factored and p.dim() >= 2 and p.numel() >= FACTORED_FROM)
        for p in fresh()
    ]
    group = TigerGroup(options_of(named), tensors)
    for step in range(steps):
        group.step([as_array(g) for g in gradients(step)])
    return [tensor.param for tensor in tensors]


def as_array(tensor: Tensor) -> Array:
    return tensor.detach().to(torch.float64).numpy().copy()
