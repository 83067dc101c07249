"""A model, its batches and its gradients, as the engines' tests share them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from cosmic import Cosmic
from helpers import bits

ROWS, WIDTH, CLASSES, BATCH = 200, 128, 100, 12


class Net(nn.Module):
    """Matrices whose rows are whole blocks or not, a norm and biases; codecs act on the large."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(ROWS, WIDTH)
        self.hidden = nn.Linear(WIDTH, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)
        self.narrow = nn.Linear(WIDTH, 72)
        self.head = nn.Linear(72, CLASSES)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.norm(self.hidden(self.table(ids)).relu())
        out: Tensor = self.head(self.narrow(x).relu())
        return out


def ids_of(step: int, rows: slice = slice(None)) -> Tensor:
    """A step's batch, or some rows of it."""
    generator = torch.Generator().manual_seed(1000 + step)
    return torch.randint(ROWS, (BATCH,), generator=generator)[rows]


def rows_of(rank: int, ranks: int) -> slice:
    """A rank's share of a batch: 12 rows fall into 1, 2 and 3 equal ones."""
    size = BATCH // ranks
    return slice(rank * size, (rank + 1) * size)


def loss_of(model: nn.Module, ids: Tensor) -> Tensor:
    return cross_entropy(model(ids).float(), ids % CLASSES)


def gradients_of(params: Iterable[Tensor]) -> list[Tensor | None]:
    """Copies."""
    return [None if p.grad is None else p.grad.detach().clone() for p in params]


def give(model: nn.Module, gradients: Sequence[Tensor | None]) -> None:
    for param, gradient in zip(model.parameters(), gradients, strict=True):
        param.grad = gradient


def stepped_by_hand(
    make: Callable[[nn.Module], Cosmic], given: Sequence[Sequence[Tensor | None]]
) -> tuple[nn.Module, Cosmic]:
    """A model and its optimizer after steps with these gradients, in this process alone."""
    model = Net()
    optimizer = make(model)
    for gradients in given:
        give(model, gradients)
        optimizer.step()
    return model, optimizer


def digest_of(tensors: Iterable[Tensor]) -> str:
    """Of the bits of tensors, in their order."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(bits(tensor).numpy().tobytes())
    return found.hexdigest()


def gap(ours: Iterable[Tensor], theirs: Iterable[Tensor]) -> float:
    """The largest difference between elements of two lists of tensors."""
    return max(
        float((a.detach() - b.detach()).abs().max()) for a, b in zip(ours, theirs, strict=True)
    )


def error_of(act: Callable[[], Any]) -> tuple[str, str]:
    """Type and text of what it raises."""
    try:
        act()
    except Exception as error:
        return type(error).__name__, str(error)
    return "none", ""
