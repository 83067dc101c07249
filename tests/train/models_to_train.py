"""Small models, loaders and fingerprints that the tests of training share."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from cosmic.train import Trainer
from helpers import normal

VOCABULARY = 40
TOKENS = 12


@dataclass
class Output:
    """What a model returns."""

    loss: Tensor


class TinyModel(nn.Module):
    """Embedding, one layer with dropout, and a head, tied or not."""

    def __init__(
        self,
        seed: int = 0,
        *,
        width: int = 24,
        tied: bool = False,
        dropout: float = 0.1,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, width)
        self.layer = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, VOCABULARY, bias=False)
        if tied:
            self.head.weight = self.embedding.weight
        for index, parameter in enumerate(self.parameters()):
            parameter.data = normal(100 * seed + index, *parameter.shape, scale=0.2).to(dtype)
        if tied:
            self.head.weight = self.embedding.weight

    def forward(self, input_ids: Tensor, labels: Tensor) -> Output:
        hidden = self.dropout(torch.relu(self.layer(self.embedding(input_ids))))
        logits = self.head(hidden)[:, :-1].float()
        wanted = labels[:, 1:]
        return Output(nn.functional.cross_entropy(logits.flatten(0, 1), wanted.flatten()))


def ids(seed: int, sequences: int) -> Tensor:
    """Token ids that follow a rule, so that there is something to learn."""
    generator = torch.Generator().manual_seed(seed)
    start = torch.randint(0, VOCABULARY, (sequences, 1), generator=generator)
    return (start + 3 * torch.arange(TOKENS)) % VOCABULARY


def batches(data: Tensor, size: int = 4) -> list[Tensor]:
    """In order, the last one perhaps smaller."""
    return [data[start : start + size] for start in range(0, len(data), size)]


def loader(seed: int = 0, sequences: int = 14, **options: Any) -> DataLoader[Any]:
    """Shuffled batches of pairs (ids, labels), the last one of an epoch smaller."""
    data = ids(seed, sequences)
    return DataLoader(TensorDataset(data, data), batch_size=4, **{"shuffle": True, **options})


def held_out() -> DataLoader[Any]:
    return loader(9, 8, shuffle=False)


def quiet(model: nn.Module, data: Any, held: Any = None, **options: Any) -> Trainer:
    """A trainer that writes nothing unless it is asked to."""
    defaults = {"progress": False, "save_results": False, "checkpoint_interval": 0, "lr": 1e-2}
    return Trainer(model, data, held, **{**defaults, **options})


def digest(trainer: Trainer) -> str:
    """Of weights, optimizer state and losses, bit by bit."""
    summary = hashlib.sha256()
    for part in _leaves([trainer.model.state_dict(), trainer.optimizer.state_dict()]):
        summary.update(part)
    summary.update(repr(trainer._record.train_losses).encode())
    return summary.hexdigest()


def repr_of_key(entry: tuple[Any, Any]) -> str:
    return repr(entry[0])


def _leaves(value: Any) -> Iterator[bytes]:
    if isinstance(value, Tensor):
        yield value.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    elif isinstance(value, dict):
        for key, item in sorted(value.items(), key=repr_of_key):
            yield repr(key).encode()
            yield from _leaves(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _leaves(item)
    else:
        yield repr(value).encode()
