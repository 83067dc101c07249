"""Runs of a rule of whole matrices, for the tests of this folder."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from cosmic import Cosmic
from cosmic.presets import Muon
from helpers import normal, parameter, parameters

#: Codecs of the momentum.
CODECS = ("fp32", "bf16", "m8", "m4", "m2", "m1")
#: Wide, tall and square, with sides that no block and no tile divides.
SHAPES = ((40, 70), (90, 33), (64, 64))


def muons(*shapes: tuple[int, ...], seed: int = 0, **options: Any) -> Muon:
    """The preset of fresh parameters, the same ones at every call."""
    made = [parameter(seed + k, *shape) for k, shape in enumerate(shapes or SHAPES)]
    return Muon(made, **options)


def mixed(**options: Any) -> Cosmic:
    """``matrix_rule`` of two hidden matrices, and of what falls to ordinary rungs."""
    params = parameters((40, 70), (96, 33), (33,), ())
    return Cosmic(params, **{"matrix_rule": "muon", "lr": 0.01, "weight_decay": 0.1, **options})


def params_of(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def gradient(step: int, index: int, like: Tensor, scale: float = 1.0) -> Tensor:
    """Of a parameter at a step: a direction that stays, and noise."""
    steady = normal(77_000 + index, *like.shape)
    return ((steady + normal(1000 * step + index, *like.shape)) * scale).to(like.dtype)


def give(optimizer: torch.optim.Optimizer, step: int, scale: float = 1.0) -> None:
    for k, p in enumerate(params_of(optimizer)):
        p.grad = gradient(step, k, p, scale)


def go(optimizer: torch.optim.Optimizer, first: int, last: int) -> None:
    """Steps first..last - 1, with gradients that depend on the step and the parameter alone."""
    for step in range(first, last):
        give(optimizer, step)
        optimizer.step()
