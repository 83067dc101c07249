"""A small residual network on scikit-learn's handwritten digits, distorted and noisy."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from suite.problem import Problem, Task

STEPS, BATCH, SMALL_BATCH = 300, 64, 16
SIZE = 16  # pixels a side; the images have 8
CLASSES = 10
HELD_OUT = 500  # images, each shown in `VIEWS` distortions
VIEWS = 2
SPLIT_SEED = 20  # of what is held out and how it is distorted: the same for all trainings

# The distortions: so strong that 300 steps end far from a loss of 0.
SHIFT = 0.3  # of half the image's side
TURN = math.radians(25)
STRETCH = 0.2  # of the scale, along each axis
NOISE = 0.35  # standard deviation; ink is 1, paper 0


@dataclass(frozen=True)
class Digits:
    """Images [images, 1, 8, 8] to train on, undistorted; held-out ones as they are shown."""

    images: Tensor
    labels: Tensor
    held_out: Tensor
    truth: Tensor


@lru_cache(maxsize=1)
def digits() -> Digits:
    """The data set, the same for all seeds."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    pixels = torch.from_numpy(images).float().view(-1, 1, 8, 8) / 16
    classes = torch.from_numpy(labels).long()
    random = torch.Generator().manual_seed(SPLIT_SEED)
    order = torch.randperm(len(pixels), generator=random)
    held_out, train = order[:HELD_OUT].repeat(VIEWS), order[HELD_OUT:]
    shown = distorted(pixels[held_out], random)
    return Digits(pixels[train], classes[train], shown, classes[held_out])


def distorted(images: Tensor, random: torch.Generator) -> Tensor:
    """Images of `SIZE`, each shifted, turned and stretched by chance, with noise on the pixels."""
    count = len(images)

    def within(bound: float) -> Tensor:
        return (torch.rand(count, generator=random) * 2 - 1) * bound

    angle, across, down = within(TURN), 1 + within(STRETCH), 1 + within(STRETCH)
    first = torch.stack([across * angle.cos(), -down * angle.sin(), within(SHIFT)], 1)
    second = torch.stack([across * angle.sin(), down * angle.cos(), within(SHIFT)], 1)
    shape = [count, 1, SIZE, SIZE]
    grid = functional.affine_grid(torch.stack([first, second], 1), shape, align_corners=False)
    moved = functional.grid_sample(images, grid, align_corners=False)
    return moved + NOISE * torch.randn(shape, generator=random)


class Residual(nn.Module):
    """Two convolutions around which the input, or its projection, is carried and added."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1:
            projection = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        inner = functional.relu(self.norm1(self.conv1(x)))
        return functional.relu(self.norm2(self.conv2(inner)) + self.shortcut(x))


class ResidualNet(nn.Module):
    """Three stages of 16, 32 and 64 channels, each of half the resolution of the one before."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 16, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        stages = [Residual(16, 16, 1), Residual(16, 32, 2), Residual(32, 64, 2)]
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(64, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        features = self.stages(functional.relu(self.norm(self.conv(x))))
        logits: Tensor = self.head(features.mean((2, 3)))
        return logits


class DigitsProblem:
    """One training on the digits.

    Attributes:
        model: what is trained.
    """

    def __init__(self, seed: int, batch: int) -> None:
        torch.manual_seed(seed)
        self.model: nn.Module = ResidualNet().train()
        data, random = digits(), torch.Generator().manual_seed(seed)
        count = len(data.images)
        epochs = -(-STEPS * batch // count)
        order = torch.cat([torch.randperm(count, generator=random) for _ in range(epochs)])
        chosen = order[: STEPS * batch]
        self._images = distorted(data.images[chosen], random).view(STEPS, batch, 1, SIZE, SIZE)
        self._labels = data.labels[chosen].view(STEPS, batch)

    def loss(self, step: int) -> Tensor:
        """Cross entropy of the step's batch."""
        return functional.cross_entropy(self.model(self._images[step]), self._labels[step])

    @torch.no_grad()
    def evaluate(self) -> float:
        """Cross entropy of the held-out images, under the running statistics of the norms."""
        self.model.eval()
        loss = functional.cross_entropy(self.model(digits().held_out), digits().truth)
        self.model.train()
        return float(loss)


def _make(batch: int) -> Callable[[int], Problem]:
    return lambda seed: DigitsProblem(seed, batch)


DIGITS = Task(
    name="digits",
    title="a small residual network on distorted, noisy digits",
    half="fit",
    make=_make(BATCH),
    steps=STEPS,
    batch=BATCH,
    rate=3e-2,
)
DIGITS_16 = replace(
    DIGITS, name="digits-16", title=f"{DIGITS.title}, {SMALL_BATCH} images a step",
    make=_make(SMALL_BATCH), batch=SMALL_BATCH,
)  # fmt: skip
