"""COSMIC in ``transformers.Trainer``: the bits of a loop by hand, and of a run that went on."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import pytest
import torch
from accelerate.optimizer import AcceleratedOptimizer
from torch import nn
from transformers import Trainer, TrainingArguments, get_linear_schedule_with_warmup

from clients.setting import BATCH, KINDS, ROWS, Kind, Tokens, batches, plain_loop, tiny_gpt2
from cosmic import Cosmic
from helpers import digest, same_bits

WARMUP = 3


def trainer_of(model: nn.Module, folder: Path, steps: int, **options: Any) -> Trainer:
    """A Trainer on the CPU that reports to nobody; ``args`` are further TrainingArguments."""
    given = {
        "max_steps": steps, "per_device_train_batch_size": BATCH, "warmup_steps": WARMUP,
        "lr_scheduler_type": "linear", "max_grad_norm": 1.0, "use_cpu": True, "report_to": "none",
        "train_sampling_strategy": "sequential", "save_strategy": "no", "disable_tqdm": True,
        "dataloader_pin_memory": False, "logging_steps": 1, **options.pop("args", {}),
    }  # fmt: skip
    arguments = TrainingArguments(str(folder), **given)
    return Trainer(model, arguments, **{"train_dataset": Tokens(), **options})


def losses_of(trainer: Trainer) -> list[float]:
    return [row["loss"] for row in trainer.state.log_history if "loss" in row]


def used_by(trainer: Trainer) -> Cosmic:
    """Trainer has accelerate wrap its optimizer."""
    assert isinstance(trainer.optimizer, AcceleratedOptimizer)
    optimizer = trainer.optimizer.optimizer
    assert isinstance(optimizer, Cosmic)
    return optimizer


def by_hand(optimizer: Cosmic, model: nn.Module, steps: int, bf16: bool = False) -> list[float]:
    schedule = get_linear_schedule_with_warmup(optimizer, WARMUP, steps)
    return plain_loop(model, optimizer, batches(Tokens(), steps), schedule, bf16=bf16)


def decay_groups(model: nn.Module) -> list[dict[str, Any]]:
    """Trainer's: norms and biases are not decayed."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim == 1]
    return [{"params": matrices, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]


# ---- the bits of a loop by hand ----------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_an_optimizer_that_is_given_trains_as_in_a_loop_by_hand(kind: str, tmp_path: Path) -> None:
    steps = KINDS[kind].steps
    model, twin = tiny_gpt2(), tiny_gpt2()
    optimizer, expected = KINDS[kind](model.parameters()), KINDS[kind](twin.parameters())
    schedule = get_linear_schedule_with_warmup(optimizer, WARMUP, steps)
    trainer = trainer_of(model, tmp_path, steps, optimizers=(optimizer, schedule))
    trainer.train()
    losses = by_hand(expected, twin, steps)
    assert digest(optimizer) == digest(expected)
    assert losses_of(trainer) == pytest.approx(losses, rel=1e-6)
    assert losses[-1] < losses[0] - 0.5


@pytest.mark.parametrize("kind", ["default", "budget by signal", "TurboAdam"])
def test_a_class_and_its_options_train_as_in_a_loop_by_hand(kind: str, tmp_path: Path) -> None:
    """Trainer makes the groups, the optimizer and the schedule."""
    make, options, steps, _ = KINDS[kind]
    model, twin = tiny_gpt2(), tiny_gpt2()
    trainer = trainer_of(
        model, tmp_path, steps, args={"weight_decay": 0.1},
        optimizer_cls_and_kwargs=(make, {"lr": 5e-3, **options}),
    )  # fmt: skip
    trainer.train()
    optimizer = used_by(trainer)
    expected = KINDS[kind](decay_groups(twin))
    by_hand(expected, twin, steps)
    assert digest(optimizer) == digest(expected)
    decayed, free = optimizer.param_groups
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.1, 0.0)
    assert {id(p) for p in free["params"]} == {id(p) for p in model.parameters() if p.ndim == 1}


def test_accumulated_gradients_are_stepped_once(tmp_path: Path) -> None:
    """Two halves of a batch, weighed by their tokens: the whole batch, to rounding."""
    halves, whole = tiny_gpt2(), tiny_gpt2()
    optimizers = [KINDS["fp32"](model.parameters(), eps=1e-4) for model in (halves, whole)]
    args = {"gradient_accumulation_steps": 2, "per_device_train_batch_size": BATCH // 2}
    trainer_of(halves, tmp_path, 4, args=args, optimizers=(optimizers[0], None)).train()
    trainer_of(whole, tmp_path, 4, optimizers=(optimizers[1], None)).train()
    assert {int(state["step"]) for state in optimizers[0].state.values()} == {4}
    for ours, theirs in zip(halves.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_bf16_is_torch_autocast(tmp_path: Path) -> None:
    model, twin = tiny_gpt2(), tiny_gpt2()
    optimizer, expected = (KINDS["default"](m.parameters()) for m in (model, twin))
    trainer = trainer_of(model, tmp_path, 15, args={"bf16": True}, optimizers=(optimizer, None))
    trainer.train()
    by_hand(expected, twin, 15, bf16=True)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert digest(optimizer) == digest(expected)
    assert losses_of(trainer)[-1] < losses_of(trainer)[0] - 0.5
    plain = tiny_gpt2()
    by_hand(KINDS["default"](plain.parameters()), plain, 15)
    assert not same_bits(plain.lm_head.weight, model.lm_head.weight), "it does compute in bf16"


def test_gradients_can_be_freed_in_backward(tmp_path: Path) -> None:
    """Clipped by the optimizer, as nothing is left for Trainer to clip."""
    model, twin = tiny_gpt2(), tiny_gpt2()
    optimizer, expected = (KINDS["default"](m.parameters()) for m in (model, twin))
    none: dict[str, Any] = {"max_grad_norm": 0.0}
    with optimizer.step_in_backward(model, max_norm=1.0):
        trainer_of(model, tmp_path, 15, args=none, optimizers=(optimizer, None)).train()
    schedule = get_linear_schedule_with_warmup(expected, WARMUP, 15)
    with expected.step_in_backward(twin, max_norm=1.0):
        for batch in batches(Tokens(), 15):
            twin(**batch).loss.backward()
            assert all(p.grad is None for p in twin.parameters())
            expected.step()
            schedule.step()
    assert digest(optimizer) == digest(expected)


def test_a_table_of_the_datasets_package(tmp_path: Path) -> None:
    ids = Tokens().ids.tolist()
    table = datasets.Dataset.from_dict({"input_ids": ids, "labels": ids})
    found = []
    for data in (table, Tokens()):
        optimizer = KINDS["default"]((model := tiny_gpt2()).parameters())
        options = {"train_dataset": data, "optimizers": (optimizer, None)}
        args = {"train_sampling_strategy": "random"}
        trainer_of(model, tmp_path, 8, args=args, **options).train()
        found.append(digest(optimizer))
    assert found[0] == found[1]


# ---- a run that goes on from a checkpoint ------------------------------------------------------


class Run(NamedTuple):
    """What a run ended with: parameters and state, the steps with transitions of rungs, and the
    checkpoint that it left in the middle."""

    digest: str
    moved: set[int]
    checkpoint: Path


def run(kind: Kind, folder: Path, *, seed: int = 0, resume: Path | None = None) -> Run:
    """Shuffled data and dropout, whose random numbers Trainer puts back."""
    model = tiny_gpt2(seed, dropout=0.1)
    optimizer, moved = kind(model.named_parameters()), set[int]()
    optimizer.add_listener(partial(note_transition, moved))
    args = {
        "train_sampling_strategy": "random", "save_strategy": "steps", "save_steps": kind.middle,
        "seed": 3,
    }  # fmt: skip
    options: dict[str, Any] = {"args": args, "optimizers": (optimizer, None)}
    trainer_of(model, folder, kind.steps, **options).train(str(resume) if resume else None)
    assert optimizer.state_dict()["cosmic"]["steps"] == kind.steps
    return Run(digest(optimizer), moved, folder / f"checkpoint-{kind.middle}")


def note_transition(steps: set[int], event: str, fields: dict[str, Any]) -> None:
    if event == "transition":
        steps.add(fields["step"])


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Run]:
    """The run that nothing interrupts, of an optimizer by name."""
    return cache(lambda kind: run(KINDS[kind], tmp_path_factory.mktemp("whole")))


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_goes_on_from_mid_epoch_has_the_same_bits(
    kind: str, tmp_path: Path, whole_run: Callable[[str], Run]
) -> None:
    """The second one is of another seed: nothing comes from it but what the checkpoint has."""
    whole, middle = whole_run(kind), KINDS[kind].middle
    saved = json.loads((whole.checkpoint / "trainer_state.json").read_text())
    assert saved["epoch"] == pytest.approx(middle * BATCH / ROWS)
    assert middle * BATCH % ROWS, "it lies within an epoch"
    rest = run(KINDS[kind], tmp_path, seed=5, resume=whole.checkpoint)
    assert rest.digest == whole.digest
    assert rest.moved == {step for step in whole.moved if step >= middle}
    if kind == "budget by signal":
        assert rest.moved
        assert {step for step in whole.moved if 0 < step < middle}


def test_what_belongs_to_the_whole_optimizer_is_to_be_given_again(
    tmp_path: Path, whole_run: Callable[[str], Run]
) -> None:
    kind, whole = KINDS["budget by signal"], whole_run("budget by signal")
    for option in ("budget", "policy", "seed", "reallocate_every"):
        options = {key: value for key, value in kind.options.items() if key != option}
        rest = run(kind._replace(options=options), tmp_path / option, resume=whole.checkpoint)
        assert rest.digest != whole.digest, option


def test_what_belongs_to_groups_comes_from_the_checkpoint(
    tmp_path: Path, whole_run: Callable[[str], Run]
) -> None:
    whole = whole_run("gate snr")
    other = Kind(Cosmic, {"state_dtype": "fp32", "lr": 1.0, "weight_decay": 0.5})
    assert run(other, tmp_path, resume=whole.checkpoint).digest == whole.digest
