"""The optimizers that bench/tinymix.py compares, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

import cosmic
from cosmic.presets import Tiger

LR, WEIGHT_DECAY = 3e-4, 0.01
RELATIVE = 10.0  # the rate over LR where it is a share of a tensor's own size
YARDSTICK = "AdamW foreach"

Make = Callable[[nn.Module], torch.optim.Optimizer]


@dataclass(frozen=True)
class Contestant:
    """One optimizer.

    Attributes:
        lr: its learning rate.
        make: a model to an optimizer of its parameters.
        ours: whether it is Cosmic or a preset of it.
    """

    lr: float
    make: Make
    ours: bool = True


def _adamw(**how: Any) -> Contestant:
    def make(model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=WEIGHT_DECAY, **how)

    return Contestant(LR, make, ours=False)


def _of(optimizer: Callable[..., torch.optim.Optimizer], lr: float, **options: Any) -> Contestant:
    def make(model: nn.Module) -> torch.optim.Optimizer:
        return optimizer(model.named_parameters(), lr=lr, weight_decay=WEIGHT_DECAY, **options)

    return Contestant(lr, make)


def _tagged(lr: float) -> Contestant:
    """Groups by tag, with the rates of tags, and the two linear layers kept in balance."""

    def make(model: nn.Module) -> torch.optim.Optimizer:
        tags: dict[str | type[nn.Module], str] = {
            "up.weight": "ffn_up",
            "down.weight": "ffn_down",
        }
        groups = cosmic.param_groups(model, tags=tags, tag_rates=True)
        return Tiger(groups, lr=lr, weight_decay=WEIGHT_DECAY, auto_ffn_asym=True)

    return Contestant(lr, make)


_cosmic, _tiger, _RATE = partial(_of, cosmic.Cosmic), partial(_of, Tiger), RELATIVE * LR
CONTESTANTS: dict[str, Contestant] = {
    YARDSTICK: _adamw(foreach=True),
    "AdamW fused": _adamw(fused=True),
    "Cosmic": _cosmic(LR),
    "Cosmic fp32": _cosmic(LR, state_dtype="fp32"),
    "Cosmic trust": _cosmic(_RATE, gate="trust"),
    "Cosmic trust, exact": _cosmic(_RATE, gate="trust", exact=True),
    # the factors multiply: where both are below 1, the step is not in proportion to the tensor
    "Cosmic trust+agc": _cosmic(_RATE, gate="trust+agc", agc_clip=10.0),
    "Tiger": _tiger(_RATE),
    "Tiger, lagged": _tiger(_RATE, exact=False),
    "Tiger, 4 bits": _tiger(_RATE, mom_dtype="u4"),
    "Tiger, tags": _tagged(_RATE),
    "Tiger, no ratio": _tiger(LR, factored=False, use_trust_ratio=False),
}
