"""Click prediction on made data: two embedding tables and a small network on both rows.

A batch touches few rows of the tables, so their gradients are dense tensors that are mostly zero,
and rare users and items get a gradient seldom.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from suite.problem import Task

USERS, ITEMS = 4000, 2000
WIDTH = 32  # of a row of either table
BATCH = 256
STEPS = 1000
VALIDATION = 20_000  # held-out pairs
FACTORS = 2  # hidden, of each user and item


class Clicks(NamedTuple):
    """Pairs of a user and an item, and whether the user clicked on the item."""

    users: Tensor
    items: Tensor
    clicked: Tensor

    def part(self, rows: Tensor) -> Clicks:
        """The pairs of some rows."""
        return Clicks(self.users[rows], self.items[rows], self.clicked[rows])


class Network(nn.Module):
    """The logit of a click, by the user's and the item's row."""

    def __init__(self) -> None:
        super().__init__()
        self.users = nn.Embedding(USERS, WIDTH)
        self.items = nn.Embedding(ITEMS, WIDTH)
        for table in (self.users, self.items):
            nn.init.normal_(table.weight, std=0.1)
        self.layers = nn.Sequential(
            nn.Linear(2 * WIDTH, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1)
        )

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        both = torch.cat([self.users(users), self.items(items)], 1)
        logits: Tensor = self.layers(both)
        return logits[:, 0]


class Recommender:
    """A training of the network: one pass over the training pairs, so that none is overfitted."""

    def __init__(self, seed: int) -> None:
        self.training, self.validation = clicks()
        torch.manual_seed(seed)
        self.model: nn.Module = Network()
        order = torch.Generator().manual_seed(seed)
        self.order = torch.randperm(len(self.training.clicked), generator=order)

    def loss(self, step: int) -> Tensor:
        """The binary log-loss of a step's batch; after the last pair comes the first again."""
        places = torch.arange(step * BATCH, (step + 1) * BATCH) % len(self.order)
        return self.log_loss(self.training.part(self.order[places]))

    @torch.no_grad()
    def evaluate(self) -> float:
        """The mean binary log-loss over the held-out pairs."""
        return self.log_loss(self.validation).item()

    def log_loss(self, pairs: Clicks) -> Tensor:
        """The mean over some pairs."""
        logits = self.model(pairs.users, pairs.items)
        return functional.binary_cross_entropy_with_logits(logits, pairs.clicked)


@cache
def clicks() -> tuple[Clicks, Clicks]:
    """The training and the held-out pairs, the same for every seed."""
    generator = torch.Generator().manual_seed(0)
    count = BATCH * STEPS + VALIDATION
    users, items = popular(USERS, count, generator), popular(ITEMS, count, generator)
    tastes = torch.randn(USERS, FACTORS, generator=generator)
    traits = torch.randn(ITEMS, FACTORS, generator=generator)
    eager = 0.7 * torch.randn(USERS, generator=generator)
    liked = 0.7 * torch.randn(ITEMS, generator=generator)
    match = 1.5 * (tastes[users] * traits[items]).sum(1)
    chance = torch.sigmoid(match + eager[users] + liked[items] - 0.5)
    # the noise: a click is drawn by its chance
    clicked = (torch.rand(count, generator=generator) < chance).float()
    pairs = Clicks(users, items, clicked)
    rows = torch.arange(count)
    return pairs.part(rows[VALIDATION:]), pairs.part(rows[:VALIDATION])


def popular(size: int, count: int, generator: torch.Generator) -> Tensor:
    """Draws of `size` users or items by Zipf's law, flattened for the first few."""
    weights = 1 / (torch.arange(size) + 10.0)
    drawn: Tensor = torch.multinomial(weights, count, replacement=True, generator=generator)
    return drawn


RECOMMENDER = Task(
    name="recommender",
    title="embedding tables of users and items and a small network, on made clicks",
    half="judge",
    make=Recommender,
    steps=STEPS,
    batch=BATCH,
    rate=1e-2,
)
