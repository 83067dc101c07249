"""TinyMix, its one batch, and trainings side by side."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from tiny.contestants import CONTESTANTS

WIDTH, HEADS, HIDDEN = 256, 4, 512
BATCH, TOKENS, SEED = 16, 32, 0


class TinyMix(nn.Module):
    """Attention and two linear layers, with a norm at the end and nothing carried around them."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.up = nn.Linear(WIDTH, HIDDEN)
        self.down = nn.Linear(HIDDEN, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        mixed, _ = self.attention(x, x, x, need_weights=False)
        out: Tensor = self.norm(self.down(functional.gelu(self.up(mixed))))
        return out


class Training:
    """One model on the one batch, whose targets are noise as well: it is learned by heart.

    Attributes:
        optimizer: of all its parameters.
    """

    def __init__(self, name: str) -> None:
        torch.manual_seed(SEED)
        self._model = TinyMix()
        self._x, self._y = torch.randn(2, BATCH, TOKENS, WIDTH)
        self.optimizer = CONTESTANTS[name].make(self._model)

    def step(self) -> tuple[float, float]:
        """One step: zero_grad, forward, backward, step.

        Returns:
            The loss before it, and the seconds that the optimizer took.
        """
        self.optimizer.zero_grad()
        loss = functional.mse_loss(self._model(self._x), self._y)
        loss.backward()  # type: ignore[no-untyped-call]
        start = time.perf_counter()
        self.optimizer.step()
        return float(loss.detach()), time.perf_counter() - start


@dataclass
class Course:
    """What a training gave, by step.

    Attributes:
        losses: of the batch, before each step.
        seconds: of each step that is timed.
        stepping: of these, those in the optimizer.
    """

    losses: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    stepping: list[float] = field(default_factory=list)


def train(names: Sequence[str], warmup: int, steps: int) -> dict[str, Course]:
    """Train all of them side by side: a step each in turn, so that a machine that changes its speed
    does so for all.

    Args:
        warmup: first steps, which are not timed; their losses count.
    """
    trainings = {name: Training(name) for name in names}
    courses = {name: Course() for name in names}
    for step in range(warmup + steps):
        for name, training in trainings.items():
            start = time.perf_counter()
            loss, stepping = training.step()
            courses[name].losses.append(loss)
            if step >= warmup:
                courses[name].seconds.append(time.perf_counter() - start)
                courses[name].stepping.append(stepping)
    return courses
