"""COSMIC in ``lightning``: closures, schedules, clipping, accumulation, checkpoints mid-epoch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

from clients.setting import (
    ADAMW,
    BATCH,
    KINDS,
    ROWS,
    Batch,
    Kind,
    Tokens,
    batches,
    plain_loop,
    tiny_gpt2,
)
from helpers import digest

pytestmark = [
    # Lightning's own use of torch's trees.
    pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated"),
    # The folder of the run that goes on has its checkpoint.
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
    # Advice to have more workers, on machines that have more cores.
    pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers"),
]

ACCUMULATE = 2
MICRO = BATCH // ACCUMULATE


def factor(step: int) -> float:
    return min(step + 1, 3) / 3


class Automatic(LightningModule):
    """As in Lightning's documentation; keeps the optimizer, the losses and a number a batch."""

    inner: Any

    def __init__(self, kind: Kind, seed: int = 0) -> None:
        super().__init__()
        self.model = tiny_gpt2(seed)
        self.kind = kind
        self.losses: list[float] = []
        self.seen: list[int] = []

    def training_step(self, batch: Batch, index: int) -> Any:
        loss = self.model(**batch).loss
        self.losses.append(float(loss.detach()))
        self.seen.append(int(batch["input_ids"].sum()))
        return loss

    def configure_optimizers(self) -> Any:
        self.inner = self.kind(self.model.named_parameters())
        schedule = LambdaLR(self.inner, factor)
        return {
            "optimizer": self.inner,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


class Manual(Automatic):
    """Optimizes by hand, through Lightning's wrapper."""

    def __init__(self, kind: Kind) -> None:
        super().__init__(kind)
        self.automatic_optimization = False

    def training_step(self, batch: Batch, index: int) -> None:
        optimizer: Any = self.optimizers()
        schedule: Any = self.lr_schedulers()
        optimizer.zero_grad()
        self.manual_backward(super().training_step(batch, index))
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        optimizer.step()
        schedule.step()


class Resumable(Iterable[Batch]):
    """Shuffled by epoch, and tells where it is: Lightning saves that, and gives it back."""

    def __init__(self) -> None:
        self.tokens, self.epoch, self.given = Tokens(), 0, 0

    def __len__(self) -> int:
        return ROWS // MICRO

    def __iter__(self) -> Iterator[Batch]:
        order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(self.epoch))
        for rows in order.view(-1, MICRO)[self.given :]:
            self.given += 1
            yield {"input_ids": self.tokens.ids[rows], "labels": self.tokens.ids[rows]}
        self.epoch, self.given = self.epoch + 1, 0

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "given": self.given}

    def load_state_dict(self, saved: dict[str, int]) -> None:
        self.epoch, self.given = saved["epoch"], saved["given"]


def fit(
    module: Automatic, data: Iterable[Batch], folder: Path,
    resume: Path | None = None, **options: Any,
) -> Path:  # fmt: skip
    """Fit, on the CPU and reporting to nobody; returns the checkpoint of the middle.

    ``weights_only`` refuses checkpoints that hold more than tensors and plain values.
    """
    middle = module.kind.middle
    saving = ModelCheckpoint(folder, "{step}", every_n_train_steps=middle, save_top_k=-1)
    defaults: dict[str, Any] = {"gradient_clip_val": 1.0, "accumulate_grad_batches": ACCUMULATE}
    trainer = Trainer(
        accelerator="cpu", devices=1, max_steps=module.kind.steps, logger=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
        callbacks=[saving], **{**defaults, **options},
    )  # fmt: skip
    trainer.fit(module, data, ckpt_path=resume, weights_only=True if resume else None)
    return folder / f"step={middle}.ckpt"


# ---- the bits of a loop by hand ----------------------------------------------------------------


@pytest.mark.parametrize("kind", ["default", "budget by signal", "CASMO"])
def test_automatic_optimization_is_a_loop_by_hand(kind: str, tmp_path: Path) -> None:
    """Lightning runs forward and backward in the closure of ``step``."""
    module, twin = Automatic(KINDS[kind]), tiny_gpt2()
    fit(module, DataLoader(Tokens(), MICRO), tmp_path)
    expected = KINDS[kind](twin.named_parameters())
    inputs = batches(Tokens(), ACCUMULATE * KINDS[kind].steps, MICRO)
    losses = plain_loop(twin, expected, inputs, LambdaLR(expected, factor), accumulate=ACCUMULATE)
    assert digest(module.inner) == digest(expected)
    assert module.losses == losses
    assert sum(losses[-4:]) / 4 < losses[0] - 0.5


# After the step is where the state belongs.
@pytest.mark.filterwarnings("ignore:Using ModelCheckpoint with manual optimization")
def test_manual_optimization_is_a_loop_by_hand(tmp_path: Path) -> None:
    kind = KINDS["default"]
    module, twin = Manual(kind), tiny_gpt2()
    only: dict[str, Any] = {"gradient_clip_val": None, "accumulate_grad_batches": 1}
    fit(module, DataLoader(Tokens(), BATCH), tmp_path, **only)
    expected = kind(twin.named_parameters())
    plain_loop(twin, expected, batches(Tokens(), kind.steps), LambdaLR(expected, factor))
    assert digest(module.inner) == digest(expected)


def test_bf16_is_torch_autocast(tmp_path: Path) -> None:
    kind = KINDS["default"]
    module, twin = Automatic(kind), tiny_gpt2()
    only: dict[str, Any] = {"precision": "bf16-mixed", "accumulate_grad_batches": 1}
    fit(module, DataLoader(Tokens(), BATCH), tmp_path, **only)
    expected = kind(twin.named_parameters())
    inputs = batches(Tokens(), kind.steps)
    plain_loop(twin, expected, inputs, LambdaLR(expected, factor), bf16=True)
    assert digest(module.inner) == digest(expected)


# ---- a run that goes on from a checkpoint ------------------------------------------------------


@pytest.mark.parametrize("kind", [*KINDS, "AdamW"])
def test_a_run_that_goes_on_from_mid_epoch_has_the_same_bits(kind: str, tmp_path: Path) -> None:
    """The second one is of another seed: nothing comes from it but what the checkpoint has."""
    given = {**KINDS, "AdamW": ADAMW}[kind]
    assert given.middle * BATCH % ROWS, "the checkpoint lies within an epoch"
    whole, rest = Automatic(given), Automatic(given, seed=5)
    checkpoint = fit(whole, Resumable(), tmp_path)
    fit(rest, Resumable(), tmp_path, resume=checkpoint)
    assert rest.losses == whole.losses[ACCUMULATE * given.middle :]
    assert digest(rest.inner) == digest(whole.inner)


@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch")
@pytest.mark.parametrize("kind", ["AdamW", "default"])
def test_a_loader_that_cannot_tell_where_it_is_begins_anew(kind: str, tmp_path: Path) -> None:
    """Whatever the optimizer: Lightning warns, and gives the first batches of the epoch again."""
    given = {**KINDS, "AdamW": ADAMW}[kind]
    whole, rest = Automatic(given), Automatic(given)
    checkpoint = fit(whole, DataLoader(Tokens(), MICRO), tmp_path)
    fit(rest, DataLoader(Tokens(), MICRO), tmp_path, resume=checkpoint)
    assert rest.seen[:4] == whole.seen[:4] != whole.seen[ACCUMULATE * given.middle :][:4]
    assert digest(rest.inner) != digest(whole.inner)


# ---- Lightning's wrapper -----------------------------------------------------------------------


class Asking(Automatic):
    """Asks the wrapper what it holds."""

    told: list[Any]

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        wrapper: Any = self.optimizers()
        assert wrapper.optimizer is self.inner
        self.told = [wrapper.state_bytes(), wrapper.budget_bytes(), wrapper.tiers()]
        self.told += [wrapper.stats(), wrapper.state_dict()["cosmic"]]


def test_the_wrapper_tells_what_the_optimizer_does(tmp_path: Path) -> None:
    module = Asking(KINDS["budget by signal"])
    fit(module, Resumable(), tmp_path)
    inner = module.inner
    assert module.told[0] == inner.state_bytes() <= inner.budget_bytes() == module.told[1]
    assert module.told[2] == inner.tiers()
    assert module.told[3] == inner.stats()
    assert module.told[4] == inner.state_dict()["cosmic"]


class BackwardOfTheWrapper(Manual):
    def on_train_start(self) -> None:
        wrapper: Any = self.optimizers()
        wrapper.step_in_backward(self.model)


def test_the_wrapper_refuses_to_step_in_backward(tmp_path: Path) -> None:
    """What it would set is its own, and the optimizer would know nothing of it."""
    only: dict[str, Any] = {"gradient_clip_val": None, "accumulate_grad_batches": 1}
    with pytest.raises(RuntimeError, match=r"of a wrapper.*\.optimizer\.step_in_backward"):
        fit(BackwardOfTheWrapper(KINDS["default"]), Resumable(), tmp_path, **only)
