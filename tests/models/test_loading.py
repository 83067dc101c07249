"""``load_model``: memory while loading, what trains, and what is wrong with a checkpoint."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from cosmic import Cosmic, errors, load_model
from cosmic.models import weights

pytestmark = pytest.mark.usefixtures("one_thread")

WIDE = {"vocab_size": 8000, "hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 9}
SMALL = {"vocab_size": 96, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}


def saved(folder: Path, shape: dict[str, int], dtype: torch.dtype, **options: Any) -> Path:
    """A Llama of cheap numbers, saved."""
    tied, shard = options.get("tied", False), options.get("shard", "50GB")
    arguments: dict[str, Any] = {**shape, "num_attention_heads": 4, "tie_word_embeddings": tied}
    with torch.device("meta"):
        model: Any = transformers.LlamaForCausalLM(transformers.LlamaConfig(**arguments))
    model = model.to(dtype)
    model.to_empty(device="cpu")
    model.tie_weights()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_((torch.arange(p.shape[-1]) % 15 - 7) / 256)
    model.save_pretrained(folder, max_shard_size=shard)
    return folder


def small(tmp_path: Path, dtype: torch.dtype = torch.float32, **options: Any) -> Path:
    return saved(tmp_path / "model", SMALL, dtype, **options)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What loading 150 MB of weights took, by how they lie on disk."""
    base = tmp_path_factory.mktemp("checkpoints")
    made: dict[str, tuple[str, torch.dtype, dict[str, Any]]] = {
        "fp32, one file, tied": ("a", torch.float32, {"tied": True}),
        "fp16, shards": ("b", torch.float16, {"shard": "40MB"}),
        "bf16, shards": ("c", torch.bfloat16, {"shard": "40MB"}),
    }
    folders = {
        how: saved(base / name, WIDE, dtype, **options)
        for how, (name, dtype, options) in made.items()
    }
    assert len([*folders["fp16, shards"].glob("*.safetensors")]) > 2
    run = Path(__file__).with_name("loading_run.py")
    done = subprocess.run(
        [sys.executable, str(run), *map(str, folders.values())], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    return {how: told[str(folder)] for how, folder in folders.items()}


@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured by Linux's own peak")
@pytest.mark.parametrize("how", ["fp32, one file, tied", "fp16, shards", "bf16, shards"])
def test_loading_takes_the_weights_and_little_more(
    measured: dict[str, dict[str, Any]], how: str
) -> None:
    row = measured[how]
    assert row["weight_bytes"] > 135e6 and row["dtypes"] == ["torch.bfloat16"]
    assert row["checking_bytes"] <= 0.1 * row["weight_bytes"]
    assert row["loading_bytes"] <= 1.1 * row["weight_bytes"]
    # a mapped weight that is written becomes memory of the process instead, not besides
    assert row["training_bytes"] <= 1.5 * row["weight_bytes"]
    assert row["all_moved"]


@pytest.mark.parametrize("stored", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
@pytest.mark.parametrize("shard", ["50GB", "20KB"])
def test_the_numbers_are_those_of_the_files(
    tmp_path: Path, stored: torch.dtype, dtype: str, shard: str
) -> None:
    folder = small(tmp_path, stored, shard=shard)
    wanted = torch.bfloat16 if dtype == "bf16" else torch.float32
    model = load_model(str(folder), dtype)
    on_disk = {k: v for file in folder.glob("*.safetensors") for k, v in load_file(file).items()}
    state = model.state_dict()
    assert set(state) == set(on_disk)
    for name, stored_tensor in on_disk.items():
        assert torch.equal(state[name], stored_tensor.to(wanted)), name
    assert model.training and all(p.requires_grad for p in model.parameters())
    assert model.config.dtype == wanted


def test_tied_weights_stay_tied_and_the_files_stay_as_they_are(tmp_path: Path) -> None:
    folder = small(tmp_path, torch.bfloat16, tied=True)
    (file,) = folder.glob("*.safetensors")
    before = file.read_bytes()
    model = load_model(str(folder))
    assert model.lm_head.weight is model.model.embed_tokens.weight
    optimizer = Cosmic(model.parameters(), lr=0.01)
    ids = torch.arange(8).view(1, 8)
    model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    assert file.read_bytes() == before, "the mapping is private"


def test_random_weights_of_a_known_shape() -> None:
    first, again, other = (load_model("tiny-gpt2", seed=seed) for seed in (3, 3, 4))
    weights = [model.transformer.h[0].attn.c_attn.weight for model in (first, again, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    assert weights[0].dtype == torch.bfloat16
    scratch = load_model("pythia-70m", "fp32", from_scratch=True)
    assert scratch.num_parameters() == 70_426_624


# ---- what trains ---------------------------------------------------------------------------------


def test_patterns_choose_what_trains() -> None:
    model = load_model("tiny-gpt2", trainable=["*.ln_*", "transformer.h.2.*.bias"])
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained and all(".ln_" in n or n.startswith("transformer.h.2.") for n in trained)
    with pytest.raises(ValueError, match=r"no parameter is named 'lm_head\.wait'"):
        load_model("tiny-gpt2", trainable=["*.ln_*", "lm_head.wait"])


def test_an_adapter_beside_weights_of_bf16() -> None:
    model = load_model("tiny-gpt2", trainable="lora")
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained and all(".lora_" in name for name in trained)
    assert {p.shape[0] for n, p in model.named_parameters() if "lora_A" in n} == {8}


def test_a_configuration_of_peft_is_taken_as_it_is() -> None:
    from peft import LoraConfig

    config = LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True)
    model = load_model("tiny-gpt2", trainable=config)
    assert {p.shape[0] for n, p in model.named_parameters() if "lora_A" in n} == {2}


# ---- what is wrong -------------------------------------------------------------------------------


def changed(folder: Path, change: Any) -> Path:
    (file,) = folder.glob("*.safetensors")
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop("model.norm.weight"), r"lacks weights .*: model\.norm\.weight"),
        (lambda t: t.update(extra=torch.zeros(2)), r"does not have: extra"),
        (
            lambda t: t.update({"model.norm.weight": torch.zeros(7)}),
            r"other shapes: model\.norm\.weight has \(7,\), expected \(64,\)",
        ),
    ],
    ids=["missing", "unexpected", "shape"],
)
def test_a_checkpoint_of_another_architecture_is_named(
    tmp_path: Path, change: Any, said: str
) -> None:
    folder = changed(small(tmp_path), change)
    with pytest.raises(errors.UsageError, match=said):
        load_model(str(folder))


def test_a_folder_without_weights_or_with_half_a_file(tmp_path: Path) -> None:
    folder = small(tmp_path)
    (file,) = folder.glob("*.safetensors")
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(errors.UsageError, match="model folder"):
        load_model(str(folder))
    file.write_bytes(b"\xff" * 40)
    with pytest.raises(errors.UsageError, match="no safetensors file"):
        load_model(str(folder))
    file.unlink()
    with pytest.raises(errors.UsageError, match="model folder"):
        load_model(str(folder))
    with pytest.raises(errors.UsageError, match="does not exist"):
        load_model(str(tmp_path / "nothing"))


def test_a_hub_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("cosmic.models.loader.hub_answers", lambda: False)
    with pytest.raises(errors.UsageError, match=r"does not answer; start .*from_scratch=True"):
        load_model("pythia-70m")


@pytest.mark.parametrize(
    ("arguments", "kind", "said"),
    [
        (("tiny-gpt2", "fp8"), ValueError, r"dtype is 'fp8'; expected one of 'bf16'"),
        ((3,), TypeError, "name is int"),
        (("tiny-gpt2", "int8", "all"), ValueError, "weights in int8 are frozen"),
        (("tiny-gpt2", "bf16", "some"), ValueError, "trainable is 'some'"),
        (("tiny-gpt2", "bf16", 3), TypeError, "trainable is int"),
        (("tiny-gpt2", "bf16", []), ValueError, "nothing would train"),
    ],
)
def test_bad_arguments(arguments: tuple[Any, ...], kind: type[Exception], said: str) -> None:
    name, *rest = arguments
    options = {"trainable": rest[1]} if len(rest) > 1 else {}
    with pytest.raises(kind, match=said):
        load_model(name, *rest[:1], **options)


def test_packages_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errors, "find_spec", lambda name: None if name == "torchao" else name)
    with pytest.raises(ImportError, match=r"needs torchao: pip install 'cosmic-optim\[int8\]'"):
        load_model("tiny-gpt2", "int8")


def test_pages_of_memory_that_is_not_a_file_s_are_left_alone() -> None:
    tensor = torch.arange(1 << 20)
    weights.drop_pages(tensor, weights.mapped_files())
    assert torch.equal(tensor, torch.arange(1 << 20))
