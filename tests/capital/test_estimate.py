"""What training will take, told before: to the byte, for models that were never made."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from torch import nn

from cosmic import Cosmic, estimate_memory
from helpers import give_gradients

CONFIG = transformers.GPT2Config(
    vocab_size=800, n_positions=40, n_embd=64, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0
)


def made(dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = transformers.GPT2LMHeadModel(CONFIG)
    return model.to(dtype)


def stepped(model: nn.Module, **options: Any) -> Cosmic:
    optimizer = Cosmic(model.named_parameters(), **options)
    give_gradients(model.parameters(), 0)
    optimizer.step()
    return optimizer


@pytest.mark.parametrize("budget", [None, "0%", "0.5%", "3%", "30%", "100%", 12_345])
@pytest.mark.parametrize(
    "options",
    [
        {}, {"state_dtype": "u4+v4"}, {"gate": "snr"}, {"gate": "trust+agc"}, {"policy": "signal"},
        {"beta_slow": 0.99}, {"max_tier": 1}, {"min_compress_size": 0}, {"policy": "role"},
        {"matrix_rule": "off"},
    ],
    ids=str,
)  # fmt: skip
def test_the_estimate_is_what_the_first_step_makes(
    budget: int | str | None, options: dict[str, Any]
) -> None:
    if "gate" in options and budget == "0%":
        budget = 32 * len(list(made().parameters()))  # gates are paid first
    estimate = estimate_memory(CONFIG, budget, **options)
    optimizer = stepped(made(), budget=budget, **options)
    assert estimate.state_bytes == optimizer.state_bytes()
    held = [(info.name, info.rung, info.nbytes) for info in optimizer.tiers()]
    assert [(t.name, t.rung, t.state_bytes) for t in estimate.tensors] == held


def test_an_impossible_budget_is_refused_as_in_the_step() -> None:
    with pytest.raises(ValueError, match="give a budget of at least"):
        estimate_memory(CONFIG, 10, gate="snr")
    with pytest.raises(ValueError, match=r"budget is 'many'"):
        estimate_memory(CONFIG, "many")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_and_gradients(dtype: torch.dtype) -> None:
    model = made(dtype)
    size = sum(p.numel() * p.element_size() for p in model.parameters())  # tied weights once
    buffers = sum(b.numel() * b.element_size() for b in model.buffers())
    largest = max(p.numel() * p.element_size() for p in model.parameters())
    every = estimate_memory(model, "3%")
    assert (every.weight_bytes, every.gradient_bytes) == (size + buffers, size)
    assert every.scratch_bytes > 0, "the budget has hidden matrices stepped as a whole"
    assert every.total_bytes == size + buffers + size + every.state_bytes + every.scratch_bytes
    elementwise = estimate_memory(model, "3%", matrix_rule="off")
    assert elementwise.scratch_bytes == 0
    assert elementwise.total_bytes == size + buffers + size + elementwise.state_bytes
    assert every == estimate_memory(made(), "3%", dtype=dtype)
    with pytest.raises(TypeError, match=r"floating torch\.dtype"):
        estimate_memory(model, dtype=torch.int32)
    released = estimate_memory(model, "3%", release_gradients=True)
    assert released.gradient_bytes == largest
    assert released.state_bytes == every.state_bytes


def test_adamw_s_bytes_are_those_of_its_state() -> None:
    model = made()
    optimizer = torch.optim.AdamW(model.parameters())
    give_gradients(model.parameters(), 0)
    optimizer.step()
    held = sum(t.numel() * t.element_size() for s in optimizer.state.values() for t in s.values())
    assert estimate_memory(model).adamw_bytes == held


def test_the_default_device_does_not_matter() -> None:
    expected = estimate_memory(CONFIG, "3%")
    with torch.device("meta"):
        assert estimate_memory(CONFIG, "3%") == expected


def test_frozen_parameters_are_weights_and_nothing_else() -> None:
    model = made()
    for name, param in model.named_parameters():
        param.requires_grad = "ln" in name
    estimate = estimate_memory(model, "100%")
    trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    assert [t.name for t in estimate.tensors] == [name for name, _ in trained]
    assert estimate.gradient_bytes == sum(4 * p.numel() for _, p in trained)
    assert estimate.weight_bytes == estimate_memory(made()).weight_bytes


def test_a_billion_parameters_take_no_memory_to_estimate() -> None:
    config = transformers.LlamaConfig(
        vocab_size=32000, hidden_size=2048, intermediate_size=5632, num_hidden_layers=22,
        num_attention_heads=32, num_key_value_heads=4,
    )  # fmt: skip
    estimate = estimate_memory(
        config, "5%", dtype=torch.bfloat16, release_gradients=True, policy="uniform"
    )
    numel = sum(torch.Size(t.shape).numel() for t in estimate.tensors)
    assert numel == 1_100_048_384
    assert 0.99 * 0.05 * 8 * numel < estimate.state_bytes <= 0.05 * 8 * numel
    assert estimate.gradient_bytes == 2 * 32000 * 2048
    roles = {t.role for t in estimate.tensors if "embed_tokens" in t.name or "lm_head" in t.name}
    assert roles == {"table"}


@pytest.mark.parametrize("model", [3, None, [nn.Parameter(torch.zeros(3))]])
def test_what_is_no_model_is_refused(model: Any) -> None:
    with pytest.raises(TypeError, match=r"expected an nn\.Module or a configuration"):
        estimate_memory(model)
