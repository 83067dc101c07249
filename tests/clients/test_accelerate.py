"""COSMIC prepared by ``accelerate``: accumulation, clipping, autocast, saved and loaded state."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from accelerate.utils import DataLoaderConfiguration
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

from clients.setting import BATCH, KINDS, ROWS, Kind, Tokens, batches, plain_loop, tiny_gpt2
from helpers import digest, take_steps

ACCUMULATE = 2
MICRO = BATCH // ACCUMULATE
STEPS_AN_EPOCH = ROWS // BATCH


@pytest.fixture(autouse=True)
def own_state() -> Iterator[None]:
    """Accelerators share their state in a process, precision included."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def accelerator_of(precision: str = "no") -> Accelerator:
    data = DataLoaderConfiguration(use_seedable_sampler=True, data_seed=11)
    return Accelerator(
        cpu=True, mixed_precision=precision, gradient_accumulation_steps=ACCUMULATE,
        dataloader_config=data,
    )  # fmt: skip


def factor(step: int) -> float:
    return min(step + 1, 3) / 3


def train(
    kind: Kind, *, precision: str = "no", seed: int = 0, shuffle: bool = True,
    save: Path | None = None, resume: Path | None = None,
) -> tuple[str, list[float]]:  # fmt: skip
    """The loop of accelerate's documentation: fingerprint and losses.

    Args:
        save: where to save after ``kind.middle`` steps.
        resume: where to go on from such a checkpoint.
    """
    accelerator = accelerator_of(precision)
    model = tiny_gpt2(seed)
    inner = kind(model.named_parameters())
    model, optimizer, loader, schedule = accelerator.prepare(
        model, inner, DataLoader(Tokens(), MICRO, shuffle=shuffle), LambdaLR(inner, factor)
    )
    step, losses = 0, []
    if resume:
        accelerator.load_state(str(resume))
        step = kind.middle
    model.train()
    while step < kind.steps:
        epoch, done = divmod(step, STEPS_AN_EPOCH)
        loader.set_epoch(epoch)
        for batch in accelerator.skip_first_batches(loader, done * ACCUMULATE) if done else loader:
            with accelerator.accumulate(model):
                loss = model(**batch).loss
                losses.append(float(loss.detach()))
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
            step += accelerator.sync_gradients
            if accelerator.sync_gradients and step == kind.middle and save:
                accelerator.save_state(str(save))
            if step == kind.steps:
                break
    assert inner.state_dict()["cosmic"]["steps"] == kind.steps
    return digest(inner), losses


@pytest.mark.parametrize(
    ("kind", "precision"),
    [("default", "no"), ("default", "bf16"), ("budget by signal", "no"), ("TurboAdam", "bf16")],
)
def test_it_trains_as_in_a_loop_by_hand(kind: str, precision: str) -> None:
    """Two backwards a step, clipped, with a schedule."""
    found, losses = train(KINDS[kind], precision=precision, shuffle=False)
    twin = tiny_gpt2()
    expected = KINDS[kind](twin.named_parameters())
    by_hand = plain_loop(
        twin, expected, batches(Tokens(), ACCUMULATE * KINDS[kind].steps, MICRO),
        LambdaLR(expected, factor), accumulate=ACCUMULATE, bf16=precision == "bf16",
    )  # fmt: skip
    assert found == digest(expected)
    assert losses == by_hand
    assert sum(losses[-4:]) / 4 < losses[0] - 0.5


@pytest.mark.parametrize(
    ("kind", "precision"), [*((kind, "no") for kind in KINDS), ("default", "bf16")]
)
def test_a_run_that_goes_on_from_mid_epoch_has_the_same_bits(
    kind: str, precision: str, tmp_path: Path
) -> None:
    """The second one is of another seed: nothing comes from it but what was saved."""
    assert KINDS[kind].middle % STEPS_AN_EPOCH, "the checkpoint lies within an epoch"
    whole, losses = train(KINDS[kind], precision=precision, save=tmp_path)
    rest, later = train(KINDS[kind], precision=precision, seed=5, resume=tmp_path)
    assert rest == whole
    assert later == losses[ACCUMULATE * KINDS[kind].middle :]


@pytest.mark.parametrize("kind", KINDS)
def test_preparing_an_optimizer_that_has_stepped_changes_nothing(kind: str) -> None:
    """Accelerate loads its own state dict into it; with a budget between look and allocation."""
    inputs, ours, twin = list(batches(Tokens(), 8)), tiny_gpt2(), tiny_gpt2()
    prepared, plain = (KINDS[kind](model.named_parameters()) for model in (ours, twin))
    plain_loop(twin, plain, iter(inputs))
    plain_loop(ours, prepared, iter(inputs[:4]))
    before = digest(prepared)
    accelerator_of().prepare(prepared)
    assert digest(prepared) == before
    plain_loop(ours, prepared, iter(inputs[4:]))
    assert digest(prepared) == digest(plain)


def test_the_wrapper_shows_the_optimizer_itself() -> None:
    """torch.optim's attributes pass through; COSMIC's own methods are those of ``.optimizer``."""
    model = tiny_gpt2()
    names = dict(model.named_parameters())
    late = names.pop("transformer.ln_f.weight")
    inner = KINDS["default"](names.items())
    wrapped: Any = accelerator_of().prepare(inner)
    assert wrapped.optimizer is inner
    take_steps(wrapped.optimizer, 0, 1)
    assert wrapped.state is inner.state
    assert wrapped.defaults is inner.defaults
    assert wrapped.param_groups is inner.param_groups
    assert wrapped.state_dict()["cosmic"] == inner.state_dict()["cosmic"]
    wrapped.add_param_group({"params": [("late", late)], "lr": 0.5})
    take_steps(inner, 1, 2)
    assert inner.tiers()[-1].name == "late"
    assert wrapped.optimizer.state_bytes() == sum(info.nbytes for info in inner.tiers())
    before = digest(inner)
    for group in wrapped.param_groups:
        group["lr"] = 0.0
    weights = [p.detach().clone() for p in model.parameters()]
    take_steps(inner, 2, 3)
    assert digest(inner) != before, "moments go on"
    assert all((p == w).all() for p, w in zip(model.parameters(), weights, strict=True))
