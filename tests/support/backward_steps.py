"""Steps within backward, for the tests of that mode."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from cosmic import Cosmic
from helpers import UNUSUAL, normal, parameters
from scenarios import gradients

Gradients = Sequence[Tensor | None]


def params_of(optimizer: Cosmic) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def give(params: Iterable[Tensor], grads: Gradients) -> None:
    """Let autograd bring these gradients; None: this parameter gets none."""
    pairs = [(p, g) for p, g in zip(params, grads, strict=True) if g is not None]
    torch.autograd.backward([p for p, _ in pairs], [g for _, g in pairs])


def in_backward(optimizer: Cosmic, scenario: str, first: int, last: int) -> Cosmic:
    """As ``test_reproducible.run``, with each parameter stepped within backward."""
    params = params_of(optimizer)
    optimizer.zero_grad()
    with warnings.catch_warnings(), optimizer.step_in_backward():
        warnings.simplefilter("ignore", RuntimeWarning)
        for step in range(first, last):
            give(params, gradients(scenario, step))
            assert all(p.grad is None for p in params)
            optimizer.step()
    return optimizer


def pair(**options: Any) -> tuple[Cosmic, Cosmic]:
    """Two optimizers of equal parameters: a vector, a matrix and one of many elements."""
    shapes = ((30,), (65, 70), (5, 41, 7))
    one, two = (Cosmic(parameters(*shapes), **{**UNUSUAL, **options}) for _ in range(2))
    return one, two


def normal_gradients(optimizer: Cosmic, seed: int, scale: float = 1.0) -> list[Tensor]:
    return [
        normal(1000 * seed + k, *p.shape, dtype=p.dtype, scale=scale)
        for k, p in enumerate(params_of(optimizer))
    ]


def ordinary_step(optimizer: Cosmic, grads: Gradients) -> None:
    for p, g in zip(params_of(optimizer), grads, strict=True):
        p.grad = None if g is None else g.clone()
    optimizer.step()
    optimizer.zero_grad()


class Tied(nn.Module):
    """A language model in small: the embedding is the head, too."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(40, 24)
        self.body = nn.Sequential(nn.Linear(24, 64), nn.Tanh(), nn.Linear(64, 24), nn.LayerNorm(24))
        self.head = nn.Linear(24, 40, bias=False)
        self.head.weight = self.embedding.weight

    def loss(self, seed: int) -> Tensor:
        ids = torch.randint(40, (8, 6), generator=torch.Generator().manual_seed(seed))
        logits: Tensor = self.head(self.body(self.embedding(ids)))
        return nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


def tied(**options: Any) -> tuple[Tied, Cosmic, LambdaLR]:
    torch.manual_seed(0)
    model = Tied()
    decayed = [(n, p) for n, p in model.named_parameters() if p.ndim > 1]
    others = [(n, p) for n, p in model.named_parameters() if p.ndim < 2]
    groups: list[dict[str, Any]] = [
        {"params": decayed},
        {"params": others, "weight_decay": 0.0, "lr": 0.02},
    ]
    optimizer = Cosmic(groups, **{**UNUSUAL, "lr": 0.01, **options})
    return model, optimizer, LambdaLR(optimizer, lambda step: 1 / (1 + step))
