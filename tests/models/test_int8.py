"""A frozen base in int8 with an adapter: its bytes, its numbers, and that it trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from cosmic import Cosmic, estimate_memory, load_model
from cosmic.models.trainable import is_quantized
from cosmic.train import Trainer

pytestmark = pytest.mark.usefixtures("one_thread")

IDS = (torch.arange(48) * 7 % 90).view(2, 24)


def saved(folder: Path, kind: str) -> Path:
    torch.manual_seed(0)
    shape: dict[str, Any] = {"vocab_size": 96, "bos_token_id": 0, "eos_token_id": 0}
    if kind == "gpt2":
        config: Any = transformers.GPT2Config(n_embd=128, n_layer=2, n_head=4, **shape)
    else:
        config = transformers.LlamaConfig(
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=2,
            num_attention_heads=4,
            **shape,
        )
    model: Any = transformers.AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(params=["llama", "gpt2"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(saved(tmp_path, request.param))


def loss_of(model: Any) -> torch.Tensor:
    model.eval()
    loss: torch.Tensor = model(input_ids=IDS, labels=IDS).loss
    return loss


def test_the_base_is_frozen_in_half_the_bytes_of_bf16(folder: str) -> None:
    model = load_model(folder, "int8")
    base = {n: p for n, p in model.named_parameters() if "lora_" not in n}
    held = [p for p in base.values() if is_quantized(p)]
    assert held and not any(p.requires_grad for p in base.values())
    hidden = sum(p.numel() for p in held)
    whole = sum(p.numel() for p in base.values())
    rest = estimate_memory(model).weight_bytes - sum(
        p.nbytes for n, p in model.named_parameters() if "lora_" in n
    )
    buffers = sum(b.nbytes for b in model.buffers())
    rows = sum(p.shape[0] for p in held)
    assert rest - buffers == hidden + 5 * rows + 2 * (whole - hidden), "a scale and a zero a row"
    assert not any(
        "lm_head" in n or "wte" in n or "embed" in n for n in base if is_quantized(base[n])
    )


def test_it_computes_what_the_weights_of_bf16_do(folder: str) -> None:
    exact = loss_of(load_model(folder, "bf16"))
    assert loss_of(load_model(folder, "int8")).item() == pytest.approx(exact.item(), abs=0.02)


def test_only_the_adapter_trains(folder: str) -> None:
    model = load_model(folder, "int8", seed=1)
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert trained and all("lora_" in name for name in trained)
    assert not any("lm_head" in name for name in trained)
    before = {n: p.detach().clone() for n, p in trained.items()}
    optimizer = Cosmic(trained.items(), lr=1e-2)
    first = loss_of(model)
    for _ in range(8):
        optimizer.zero_grad()
        loss_of(model).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert loss_of(model) < first - 0.1
    assert all(not torch.equal(before[name], p) for name, p in trained.items())


def test_what_is_in_int8_cannot_train(folder: str) -> None:
    with pytest.raises(ValueError, match="is in int8 and cannot train; load with dtype='bf16'"):
        load_model(folder, "int8", trainable=["*.0.*"])


def test_a_run_goes_on_from_its_checkpoint(folder: str, tmp_path: Path) -> None:
    def trainer(runs: str) -> Trainer:
        options: dict[str, Any] = {"save_results": False, "progress": False, "seed": 0}
        model = load_model(folder, "int8")
        return Trainer(model, [IDS], checkpoint_dir=tmp_path / runs, lr=1e-2, **options)

    whole = trainer("whole").fit(3)
    trainer("pieces").fit(1)
    second = trainer("pieces")
    quantized: Any = next(p for p in second.model.parameters() if is_quantized(p))
    quantized.qdata.zero_()
    assert second.load_checkpoint() == 1
    assert quantized.qdata.any(), "quantized weights are the checkpoint's, too"
    results = second.fit(3)
    assert results["train_losses"] == whole["train_losses"]
    assert results["weight_bytes"] == estimate_memory(second.model).weight_bytes
