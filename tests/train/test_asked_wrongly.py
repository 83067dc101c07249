"""What a run is given by mistake: found before it trains, told in words that help."""

from __future__ import annotations

from collections.abc import Callable as Function
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim import SGD, AdamW
from torch.optim.lr_scheduler import ReduceLROnPlateau, StepLR
from torch.utils.data import DataLoader, IterableDataset

from cosmic.presets import AXIOM
from cosmic.train import Callback, NonfiniteLossError
from models_to_train import TinyModel, held_out, ids, loader, quiet


@pytest.mark.parametrize(
    ("callbacks", "said"),
    [
        ([Callback], r"callbacks\[0\] is the class Callback; give Callback\(\)"),
        ([Callback(), lambda *_: None], r"callbacks\[1\] is function, without on_step_end\(\)"),
        (Callback(), "callbacks is Callback; expected a list"),
        ("watch", "callbacks is str"),
    ],
)
def test_callbacks_that_are_none(callbacks: Any, said: str) -> None:
    with pytest.raises(TypeError, match=said):
        quiet(TinyModel(), loader(), callbacks=callbacks)


@pytest.mark.parametrize("prefix", ["runs/", "", ".", "runs/.."])
def test_a_prefix_that_names_no_file(
    prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="which names no file; expected such as"):
        quiet(TinyModel(), loader(), save_results=True, results_prefix=prefix)
    assert not list(tmp_path.iterdir())


def test_a_prefix_that_is_no_path() -> None:
    with pytest.raises(TypeError, match="results_prefix is None; expected a path"):
        quiet(TinyModel(), loader(), save_results=True, results_prefix=None)


def test_an_optimizer_that_steps_nothing_of_the_model() -> None:
    other = SGD(TinyModel().parameters(), lr=0.1)
    with pytest.raises(ValueError, match="SGD has none of the parameters that the model trains"):
        quiet(TinyModel(), loader(), optimizer=other)
    model = TinyModel()
    made = AdamW(model.head.parameters())
    model.head.requires_grad_(False)
    with pytest.raises(ValueError, match="AdamW has none of the parameters"):
        quiet(model, loader(), optimizer=lambda _: made)


def test_a_class_in_the_place_of_an_optimizer() -> None:
    with pytest.raises(TypeError, match=r"is the class AdamW; .* lambda model: AdamW\(model"):
        quiet(TinyModel(), loader(), optimizer=AdamW)


@pytest.mark.parametrize(
    ("scheduler", "kind", "said"),
    [
        (ReduceLROnPlateau, TypeError, "step a ReduceLROnPlateau in on_evaluate"),
        (StepLR(SGD(TinyModel().parameters(), lr=0.1), 1), ValueError, "of another optimizer"),
    ],
)
def test_schedulers_that_cannot_be_stepped(
    scheduler: Any, kind: type[Exception], said: str
) -> None:
    trainer = quiet(TinyModel(), loader(), scheduler=scheduler)
    with pytest.raises(kind, match=said):
        trainer.fit(2)
    assert trainer.step == 0


def test_a_model_that_is_stepped_within_backward_already() -> None:
    model = TinyModel()
    first = quiet(model, loader(), release_gradients=True)
    for release in (True, False):
        with pytest.raises(ValueError, match=r"by another Cosmic; call cleanup\(\)"):
            quiet(model, loader(), release_gradients=release)
    first.cleanup()
    optimizer = AXIOM(model.parameters())
    optimizer.register_hooks(model=model)
    with pytest.raises(ValueError, match=r"AXIOM steps within backward already; call remove_hooks"):
        quiet(model, loader(), optimizer=optimizer)
    optimizer.remove_hooks()
    trainer = quiet(model, loader(), optimizer=optimizer, release_gradients=True)
    assert trainer.fit(2)["gradient_bytes"] == model.embedding.weight.nbytes


class OnceOnly(IterableDataset[Any]):
    """A data set whose second epoch is empty."""

    def __init__(self) -> None:
        self.rows = iter(ids(0, 8))

    def __iter__(self) -> Any:
        return self.rows


def test_data_that_can_be_gone_through_once() -> None:
    with pytest.raises(ValueError, match="val_loader is an iterator"):
        quiet(TinyModel(), loader(), iter(held_out()))
    with pytest.raises(ValueError, match="after epoch 1: its data set can be gone through once"):
        quiet(TinyModel(), DataLoader(OnceOnly(), batch_size=4)).fit(5)


@pytest.mark.parametrize(
    "labels",
    [lambda ids: torch.full_like(ids, -100), lambda ids: ids[:, :1], lambda ids: ids[:0]],
    ids=["ignored", "one token", "no sequence"],
)
def test_a_batch_with_nothing_to_predict(labels: Function[[Any], Any]) -> None:
    shown = labels(ids(0, 2))
    trainer = quiet(TinyModel(), [(ids(0, 2)[: len(shown), : shown.shape[1]], shown)])
    with pytest.raises(NonfiniteLossError, match="its batch has nothing to predict"):
        trainer.fit(1)


def test_lists_where_tensors_are_expected() -> None:
    rows = ids(0, 2).tolist()
    with pytest.raises(TypeError, match=r"input_ids of a batch is list; expected a tensor.*with_f"):
        quiet(TinyModel(), [{"input_ids": rows, "labels": ids(0, 2)}]).fit(1)
    with pytest.raises(TypeError, match="labels of a batch is list"):
        quiet(TinyModel(), [{"input_ids": ids(0, 2), "labels": rows}]).fit(1)
