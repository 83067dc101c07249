"""What bench/noise.py trains: modular addition, a small classifier under five regimes, digits.

A task's data, weights and batches depend on the seed alone.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from noisy.modular import PRIME, Adder, addition
from noisy.optimizers import OPTIMIZERS, Setting

CLASSES = 10
CURVE = 30  # points of a curve


@dataclass(frozen=True)
class Split:
    """One data set.

    Attributes:
        x, labels: what is trained on; the labels may be corrupted.
        corrupted: which labels are, a mask.
        held_out, truth: clean data, of which the first `choosing` rows choose the learning rate
            and the others are the test.
        choosing: rows.
        rare: which held-out rows belong to the rarest third of the classes, where there is one.
    """

    x: Tensor
    labels: Tensor
    corrupted: Tensor
    held_out: Tensor
    truth: Tensor
    choosing: int
    rare: Tensor | None = None


@dataclass(frozen=True)
class Task:
    """One regime of training.

    Attributes:
        data: "grokking", "clusters" or "digits".
        lrs, decays: the grid; `common` is the point of it at which all are compared untuned.
        label_noise: share of training labels that are another class's.
        gradient_noise: standard deviation of what is added to each gradient element.
        tuning_seeds: seeds with which every grid point is run; None: all.
    """

    data: str
    lrs: tuple[float, ...]
    decays: tuple[float, ...]
    common: tuple[float, float]
    steps: int
    batch: int
    label_noise: float = 0.0
    gradient_noise: float = 0.0
    warmup: int = 1
    betas: tuple[float, float] = (0.9, 0.999)
    tuning_seeds: int | None = None


RATES = (3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
USUAL = (1e-3, 0.01)
GROKKING, LABELS, GRADIENTS, DIGITS = (
    "grokking, 30 % of labels corrupted",
    "30 % of labels corrupted",
    "noise on gradients",
    "digits, imbalanced 100:1",
)


def _classifier(**regime: Any) -> Task:
    given: dict[str, Any] = {"lrs": RATES, "common": USUAL}
    return Task("clusters", decays=(0.01,), steps=1500, batch=64, **given | regime)


TASKS: dict[str, Task] = {
    GROKKING: Task(
        "grokking",
        lrs=(3e-4, 1e-3, 3e-3),
        decays=(0.5, 1.0, 3.0, 5.0),
        common=(1e-3, 1.0),
        steps=3000,
        batch=256,
        label_noise=0.3,
        warmup=50,
        betas=(0.9, 0.98),
        tuning_seeds=1,
    ),
    "clean": _classifier(),
    "15 % of labels corrupted": _classifier(label_noise=0.15),
    LABELS: _classifier(label_noise=0.3),
    GRADIENTS: _classifier(gradient_noise=0.05),
    "high rate, 0.03": _classifier(lrs=(3e-2,), common=(3e-2, 0.01)),
    DIGITS: Task("digits", RATES, (0.01,), USUAL, steps=1000, batch=32),
}


def train(name: str, optimizer: str, lr: float, weight_decay: float, seed: int) -> dict[str, Any]:
    """Train once; accuracies in [0, 1].

    Returns:
        `chosen_by`, `test`: on the two parts of the held-out data at the end; `best`: the best test
        accuracy of the curve; `train`: on the training labels as they are; `memorized`: share of
        the corrupted labels that the model gives; `rare`: test accuracy of the rarest third;
        `curve`: step, train, test; `seconds`. What a task has not is None.
    """
    torch.set_num_threads(1)
    task = TASKS[name]
    random = torch.Generator().manual_seed(1000 + seed)
    split = _split(task, random)
    torch.manual_seed(seed)
    model = _model(task, split)
    setting = Setting(lr, weight_decay, task.betas, task.steps)
    stepper = OPTIMIZERS[optimizer](model.parameters(), setting)
    start = time.perf_counter()
    curve = []
    for step in range(1, task.steps + 1):
        for group in stepper.param_groups:
            group["lr"] = lr * min(1.0, step / task.warmup)
        _step(task, split, model, stepper, random)
        if step % (task.steps // CURVE) == 0:
            figures = _measure(split, model)
            curve.append((step, figures["train"], figures["test"]))
    best = max(test for _, _, test in curve)
    return figures | {"best": best, "curve": curve, "seconds": time.perf_counter() - start}


def _step(
    task: Task,
    split: Split,
    model: nn.Module,
    stepper: torch.optim.Optimizer,
    random: torch.Generator,
) -> None:
    rows = torch.randint(0, len(split.x), (task.batch,), generator=random)
    stepper.zero_grad()
    loss = functional.cross_entropy(model(split.x[rows]), split.labels[rows])
    loss.backward()  # type: ignore[no-untyped-call]
    if task.gradient_noise:
        for param in model.parameters():
            noise = torch.randn(param.shape, generator=random)
            if param.grad is not None:
                param.grad.add_(noise, alpha=task.gradient_noise)
    stepper.step()


@torch.no_grad()
def _measure(split: Split, model: nn.Module) -> dict[str, Any]:
    trained = model(split.x).argmax(1) == split.labels
    right = model(split.held_out).argmax(1) == split.truth
    test = right[split.choosing :]
    rare = split.rare[split.choosing :] if split.rare is not None else None
    bad = split.corrupted
    return {
        "chosen_by": _share(right[: split.choosing]),
        "test": _share(test),
        "train": _share(trained),
        "memorized": _share(trained[bad]) if bad.any() else None,
        "rare": _share(test[rare]) if rare is not None else None,
    }


def _share(mask: Tensor) -> float:
    return mask.float().mean().item()


def _model(task: Task, split: Split) -> nn.Module:
    if task.data == "grokking":
        return Adder()
    features = split.x.shape[1]
    return nn.Sequential(
        *(nn.Linear(features, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU()),
        nn.Linear(128, CLASSES),
    )


def _split(task: Task, random: torch.Generator) -> Split:
    if task.data == "digits":
        return _digits(random)
    if task.data == "grokking":
        x, y = addition()
        order = torch.randperm(len(x), generator=random)
        x, y, count, classes = x[order], y[order], len(x) // 2, PRIME
    else:
        x, y = _clusters(random)
        count, classes = 1000, CLASSES
    labels, corrupted = _corrupt(y[:count], classes, task.label_noise, random)
    held_out, truth = x[count:], y[count:]
    return Split(x[:count], labels, corrupted, held_out, truth, choosing=len(truth) // 4)


def _corrupt(
    labels: Tensor, classes: int, share: float, random: torch.Generator
) -> tuple[Tensor, Tensor]:
    """The labels with a share of them moved to another class, uniformly, and which those are."""
    corrupted = torch.rand(len(labels), generator=random) < share
    moves = torch.randint(1, classes, (len(labels),), generator=random)
    return torch.where(corrupted, (labels + moves) % classes, labels), corrupted


def _clusters(random: torch.Generator) -> tuple[Tensor, Tensor]:
    """5,000 points around ten centres in 32 dimensions that overlap a little."""
    centres = 0.6 * torch.randn(CLASSES, 32, generator=random)
    y = torch.randint(0, CLASSES, (5000,), generator=random)
    return torch.randn(5000, 32, generator=random) + centres[y], y


def _digits(random: torch.Generator) -> Split:
    """scikit-learn's digits: of the ten classes 100 to 1 images, by lot which class has how many;
    20 and 50 held out of each."""
    from sklearn.datasets import load_digits

    data = load_digits()
    x = torch.tensor(data.data, dtype=torch.float32) / 16 - 0.5
    y = torch.tensor(data.target, dtype=torch.int64)
    kept, choosing, test = [], [], []
    ranks = torch.randperm(CLASSES, generator=random)
    for label in range(CLASSES):
        rows = (y == label).nonzero().flatten()
        rows = rows[torch.randperm(len(rows), generator=random)]
        choosing.append(rows[:20])
        test.append(rows[20:70])
        count = round(100 * math.pow(100, -int(ranks[label]) / (CLASSES - 1)))
        kept.append(rows[70 : 70 + count])
    of, held = torch.cat(kept), torch.cat([*choosing, *test])
    rare = ranks[y[held]] >= CLASSES - CLASSES // 3
    clean = torch.zeros(len(of), dtype=torch.bool)
    return Split(x[of], y[of], clean, x[held], y[held], CLASSES * 20, rare)
