"""Converted models in transformers' Trainer and in PEFT."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from torch import nn

from clients.setting import Tokens, batches, tiny_gpt2
from clients.test_trainer import trainer_of
from cosmic import exact

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")


def digest(model: nn.Module) -> str:
    found = hashlib.sha256()
    for parameter in model.parameters():
        found.update(parameter.detach().numpy().tobytes())
    return found.hexdigest()


def by_hand(model: nn.Module, steps: int) -> None:
    optimizer = exact.VerityAdam(model.parameters(), 1e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 0.5, 1.0, 4)
    for batch in batches(Tokens(), steps):
        model(**batch).loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()


def test_trainer_trains_a_converted_model_to_the_bits_of_a_loop(tmp_path: Path) -> None:
    """With clipping off, which would sum norms in torch's order."""
    model, twin = exact.convert(tiny_gpt2()), exact.convert(tiny_gpt2())
    optimizer = exact.VerityAdam(model.parameters(), 1e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 0.5, 1.0, 4)
    trainer: Any = trainer_of(
        model, tmp_path, 3, optimizers=(optimizer, schedule), args={"max_grad_norm": 0.0}
    )
    trainer.model_accepts_loss_kwargs = False  # the model's own mean
    trainer.train()
    by_hand(twin, 3)
    assert digest(model) == digest(twin)


@pytest.mark.parametrize("first", ["adapters", "conversion"])
def test_adapters_are_exact_whichever_comes_first(first: str) -> None:
    config = peft.LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True, lora_dropout=0.1)
    model: Any = tiny_gpt2()
    if first == "conversion":
        exact.convert(model)
    model = peft.get_peft_model(model, config)
    (batch,) = batches(Tokens(), 1)
    if first == "adapters":
        assert exact.check(model, **batch)
        exact.convert(model)
    assert exact.check(model, **batch) == []
    before = digest(model)
    by_hand(model, 2)
    assert digest(model) != before
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    assert names and all("lora_" in name for name in names)
