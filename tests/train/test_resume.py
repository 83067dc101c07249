"""A run that is ended and taken up again has the bits of one that was not."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler, TensorDataset
from transformers import GPT2Config, GPT2LMHeadModel

from cosmic.train import CheckpointError, Trainer
from models_to_train import TinyModel, batches, digest, held_out, ids, loader, quiet

pytestmark = pytest.mark.usefixtures("one_thread")

STEPS, ENDED_AT = 14, 7  # of epochs of four steps


class Killed(Exception):
    """Stands for a kill: nothing is written after it."""


def killed_at(step: int) -> Any:
    from cosmic.train import Callback

    class Kill(Callback):
        def on_checkpoint(self, trainer: Any, path: Path) -> None:
            if trainer.step == step:
                raise Killed

    return Kill()


def both(folder: Path, make: Any, data: Any, **options: Any) -> tuple[Trainer, Trainer]:
    """A run in one piece; and one that is killed after a checkpoint, and taken up by a trainer of a
    model with other weights."""
    options = {"seed": 3, "checkpoint_interval": ENDED_AT, "eval_interval": 4} | options
    whole = quiet(make(0), data(), held_out(), checkpoint_dir=folder / "whole", **options)
    whole.fit(STEPS)
    pieces = {**options, "checkpoint_dir": folder / "pieces"}
    first = quiet(make(0), data(), held_out(), callbacks=[killed_at(ENDED_AT)], **pieces)
    with pytest.raises(Killed):
        first.fit(STEPS)
    second = quiet(make(7), data(), held_out(), **pieces)
    assert second.load_checkpoint() == ENDED_AT
    torch.rand(5), random.random(), np.random.rand(2)  # other work of the process
    second.fit(STEPS)
    return whole, second


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"optimizer": "adamw", "scheduler": "cosine", "max_grad_norm": 0.5},
        {"release_gradients": True, "max_grad_norm": 0.5, "budget": "30%"},
        {"activations": "q8", "release_gradients": True},
        {"accumulate": 2},
    ],
    ids=str,
)
def test_same_bits(options: dict[str, Any], tmp_path: Path) -> None:
    whole, pieces = both(tmp_path, TinyModel, loader, **options)
    assert digest(whole) == digest(pieces)
    assert whole._record.val_losses == pieces._record.val_losses


def test_same_bits_in_bf16_with_tied_weights(tmp_path: Path) -> None:
    whole, pieces = both(
        tmp_path,
        lambda seed: TinyModel(seed, tied=True, dtype=torch.bfloat16),
        loader,
        release_gradients=True,
    )
    assert digest(whole) == digest(pieces)


def tiny_gpt2(seed: int) -> Any:
    torch.manual_seed(seed)
    shape: dict[str, Any] = {"vocab_size": 40, "bos_token_id": 0, "eos_token_id": 0}
    config = GPT2Config(n_embd=32, n_layer=1, n_head=2, n_positions=12, **shape)
    return GPT2LMHeadModel(config).bfloat16()


@pytest.mark.parametrize("optimizer", ["cosmic", "axiom"])
def test_same_bits_with_all_that_saves_memory(optimizer: str, tmp_path: Path) -> None:
    whole, pieces = both(
        tmp_path,
        tiny_gpt2,
        loader,
        optimizer=optimizer,
        chunk_vocabulary=16,
        release_gradients=True,
        activations="q8",
        max_grad_norm=0.5,
        scheduler="cosine",
    )
    assert digest(whole) == digest(pieces)
    assert whole._record.val_losses == pieces._record.val_losses
    names = {name for name, _ in whole.model.named_parameters()}
    assert any(name.endswith("weight_2") for name in names), "the vocabulary was in three blocks"


class Noisy(Dataset[Tensor]):
    """Draws from all three sources of random numbers."""

    def __len__(self) -> int:
        return 14

    def __getitem__(self, index: int) -> Tensor:
        start = index + int(torch.randint(0, 9, ())) + random.randrange(9) + np.random.randint(9)
        return (start + 3 * torch.arange(12)) % 40


class Stream(IterableDataset[Tensor]):
    """Has no length."""

    def __iter__(self) -> Iterator[Tensor]:
        return iter(ids(4, 14))


class Stateful:
    """A loader that goes to its place by itself."""

    def __init__(self) -> None:
        self.at, self.begun = 0, 0

    def __iter__(self) -> Iterator[Tensor]:
        self.begun += 1
        while self.at < 4:
            self.at += 1
            yield ids(self.at, 4)
        self.at = 0

    def state_dict(self) -> dict[str, int]:
        return {"at": self.at}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.at = state["at"]


def own_generator() -> DataLoader[Any]:
    return loader(generator=torch.Generator().manual_seed(5))


def replacing_sampler() -> DataLoader[Any]:
    data = ids(0, 14)
    chosen = RandomSampler(
        data, replacement=True, num_samples=14, generator=torch.Generator().manual_seed(6)
    )
    return loader(shuffle=False, sampler=chosen)


@pytest.mark.parametrize(
    "data",
    [
        own_generator,
        replacing_sampler,
        lambda: DataLoader(Noisy(), batch_size=4, shuffle=True),
        lambda: DataLoader(Stream(), batch_size=4),
        lambda: batches(ids(0, 16)),
        Stateful,
    ],
    ids=["generator", "sampler", "noisy", "stream", "list", "stateful"],
)
def test_any_loader_goes_on_where_it_was(data: Any, tmp_path: Path) -> None:
    whole, pieces = both(tmp_path, TinyModel, data)
    assert digest(whole) == digest(pieces)


def test_a_loader_with_workers(tmp_path: Path) -> None:
    def data() -> DataLoader[Any]:
        return loader(num_workers=1, persistent_workers=True, multiprocessing_context="fork")

    whole, pieces = both(tmp_path, TinyModel, data)
    assert digest(whole) == digest(pieces)


class Counting:
    """A loader that is counted each time it is begun."""

    begun = 0

    def __iter__(self) -> Iterator[Tensor]:
        self.begun += 1
        return iter(batches(ids(0, 8)))


def test_a_loader_is_begun_once_an_epoch(tmp_path: Path) -> None:
    data = Counting()
    quiet(TinyModel(), data, checkpoint_interval=9, checkpoint_dir=tmp_path).fit(6)
    assert data.begun == 3, "an iterator may start processes and draws random numbers"


def test_fit_again_goes_on_whatever_was_drawn_between() -> None:
    whole = quiet(TinyModel(), loader(), held_out(), seed=1)
    whole.fit(9)
    pieces = quiet(TinyModel(), loader(), held_out(), seed=1)
    pieces.fit(3)
    torch.manual_seed(99)
    pieces.evaluate()
    pieces.fit(9)
    assert digest(whole) == digest(pieces)
    assert pieces.fit(9)["steps"] == 9, "all steps were taken already"


def test_evaluations_change_nothing() -> None:
    often = quiet(TinyModel(), loader(), loader(9, shuffle=True), seed=1, eval_interval=1)
    never = quiet(TinyModel(), loader(), seed=1)
    often.fit(6)
    never.fit(6)
    assert digest(often) == digest(never)


def test_a_longer_cosine_is_that_of_all_steps(tmp_path: Path) -> None:
    options = {"scheduler": "cosine", "checkpoint_interval": 5, "checkpoint_dir": tmp_path}
    quiet(TinyModel(), loader(), **options).fit(10)
    longer = quiet(TinyModel(), loader(), **options)
    longer.load_checkpoint()
    longer.fit(40)
    assert longer.optimizer.param_groups[0]["lr"] == pytest.approx(1e-3)
    resumed = quiet(TinyModel(), loader(), **options)
    resumed.load_checkpoint(tmp_path / "step-00000040.pt")
    assert resumed.optimizer.param_groups[0]["lr"] == longer.optimizer.param_groups[0]["lr"]


def test_a_loader_that_became_shorter(tmp_path: Path) -> None:
    options = {"checkpoint_interval": 3, "checkpoint_dir": tmp_path}
    quiet(TinyModel(), loader(), **options).fit(3)
    shorter = quiet(TinyModel(), loader(sequences=6), **options)
    shorter.load_checkpoint()
    with pytest.raises(CheckpointError, match=r"ends after 2 batches, .* after batch 3 of epoch 0"):
        shorter.fit(6)


def test_an_iterator_is_refused_before_training(tmp_path: Path) -> None:
    data = iter(batches(ids(0, 12)))
    with pytest.raises(ValueError, match=r"train_loader is an iterator.*checkpoint_interval=0"):
        quiet(TinyModel(), data, checkpoint_interval=1, checkpoint_dir=tmp_path)
    trainer = quiet(TinyModel(), data)
    assert trainer.fit(3)["steps"] == 3
    with pytest.raises(ValueError, match="iterator and has ended after 3 batches"):
        trainer.fit(4)


def test_pairs_and_tensors_are_the_same_batches() -> None:
    data = ids(0, 12)
    pairs = DataLoader(TensorDataset(data, data), batch_size=4)
    dicts = [{"input_ids": part, "labels": part} for part in batches(data)]
    found = set()
    for wanted in (pairs, batches(data), dicts):
        trainer = quiet(TinyModel(dropout=0.0), wanted)
        trainer.fit(5)
        found.add(digest(trainer))
    assert len(found) == 1
