"""The optimizers of bench/noise.py by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch

import cosmic
from cosmic.presets import CASMO

YARDSTICK = "AdamW"
SCALAR = "scalar gate"
COORDINATE = "per-coordinate gate"
STRONG = "per-coordinate gate, 1.5"
COMPRESSED = "per-coordinate gate, u4+v4"


@dataclass(frozen=True)
class Setting:
    """What a task gives every optimizer.

    Attributes:
        lr: learning rate.
        weight_decay: decoupled.
        betas: decay of the moments.
        steps: length of the training; the scalar gate calibrates within a fifth of it.
    """

    lr: float
    weight_decay: float
    betas: tuple[float, float]
    steps: int


Parameters = Iterable[torch.nn.Parameter]


def _adamw(params: Parameters, s: Setting) -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        params, lr=s.lr, betas=s.betas, weight_decay=s.weight_decay, fused=True
    )


def _scalar(params: Parameters, s: Setting) -> torch.optim.Optimizer:
    return CASMO(params, lr=s.lr, betas=s.betas, weight_decay=s.weight_decay, total_steps=s.steps)


def _coordinate(robustness: float, state_dtype: str) -> Callable[..., torch.optim.Optimizer]:
    def make(params: Parameters, s: Setting) -> torch.optim.Optimizer:
        return cosmic.Cosmic(
            params,
            lr=s.lr,
            betas=s.betas,
            weight_decay=s.weight_decay,
            gate="agar",
            robustness=robustness,
            c_min=0.1,
            rel_floor=0.1,
            state_dtype=state_dtype,
            min_compress_size=0,  # small tensors too: their codecs are what is tried
        )

    return make


OPTIMIZERS: dict[str, Callable[[Any, Setting], torch.optim.Optimizer]] = {
    YARDSTICK: _adamw,
    SCALAR: _scalar,
    COORDINATE: _coordinate(1.0, "fp32"),
    STRONG: _coordinate(1.5, "fp32"),
    COMPRESSED: _coordinate(1.0, "u4+v4"),
}


def version(name: str) -> str:
    """Package and release that a result of this optimizer depends on."""
    if name == YARDSTICK:
        return f"torch {torch.__version__}"
    return f"cosmic {cosmic.__version__}"
