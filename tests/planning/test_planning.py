"""What a batch takes, and which settings are recommended."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from cosmic import Cosmic, chunk_vocabulary, compress_activations, estimate_memory, param_groups
from cosmic.errors import UsageError
from cosmic.planning import machine

pytestmark = pytest.mark.usefixtures("one_thread")

SHAPE: dict[str, Any] = {"vocab_size": 300, "bos_token_id": 0, "eos_token_id": 0}
_CONFIGS: dict[str, Any] = {
    "gpt2": transformers.GPT2Config(
        n_embd=64,
        n_layer=2,
        n_head=2,
        n_positions=128,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        **SHAPE,
    ),
    "llama": transformers.LlamaConfig(
        hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4, **SHAPE
    ),
    "pythia": transformers.GPTNeoXConfig(
        hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, **SHAPE
    ),
}
BATCH = (3, 24)
KINDS = sorted(_CONFIGS)


def config_of(kind: str, **changes: Any) -> Any:
    """A configuration of the test's own: making a model writes its dtype there."""
    config = copy.deepcopy(_CONFIGS[kind])
    for name, value in changes.items():
        setattr(config, name, value)
    return config


def made(kind: str, dtype: torch.dtype = torch.float32) -> Any:
    torch.manual_seed(0)
    model: Any = transformers.AutoModelForCausalLM.from_config(config_of(kind), dtype=dtype)
    return model


def ids() -> torch.Tensor:
    return torch.arange(BATCH[0] * BATCH[1]).view(BATCH) % 299


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_activations_are_those_of_a_run(kind: str, dtype: torch.dtype) -> None:
    model = made(kind, dtype)
    with compress_activations("q8", min_numel=256) as meter:
        model(input_ids=ids(), labels=ids()).loss.backward()
    estimate = estimate_memory(model, batch=BATCH)
    within = 0.0 if dtype == torch.float32 else 0.005
    assert estimate.activation_bytes == pytest.approx(meter.saved_bytes, rel=within)
    assert estimate.loss_bytes == 2 * 4 * BATCH[0] * BATCH[1] * 300
    of_config = estimate_memory(config_of(kind), batch=BATCH, dtype=dtype)
    assert of_config.activation_bytes == estimate.activation_bytes
    assert of_config.total_bytes == pytest.approx(estimate.total_bytes, abs=64), "types of buffers"


def test_no_batch_no_activations() -> None:
    estimate = estimate_memory(config_of("llama"))
    assert (estimate.activation_bytes, estimate.loss_bytes, estimate.batch) == (0, 0, None)
    assert "Activations are not counted: give batch=" in estimate.recommendation


@pytest.mark.parametrize("kind", KINDS)
def test_what_saves_activations_is_counted_so(kind: str) -> None:
    plain, q8, u4, again = (
        estimate_memory(config_of(kind), batch=(8, 128), activations=way).activation_bytes
        for way in (None, "q8", "u4", "checkpointing")
    )
    assert plain > 2 * q8 > 2.5 * u4
    assert again < plain
    deep = config_of(kind, num_hidden_layers=12)
    deeper = estimate_memory(deep, batch=(8, 128), activations="checkpointing").activation_bytes
    layers = 12 - config_of(kind).num_hidden_layers
    assert deeper - again == layers * 4 * 8 * 128 * 64, "of each more layer its input alone"


def test_estimating_leaves_the_model_alone() -> None:
    model = made("llama").eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for way in ("checkpointing", "u4"):
        estimate_memory(model, batch=BATCH, activations=way, dtype=torch.bfloat16)
    assert not model.training and model.config.dtype == torch.float32
    assert all("forward" not in vars(module) for module in model.modules())
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())


@pytest.mark.parametrize("kind", KINDS)
def test_the_largest_gradient_is_that_of_the_run(kind: str) -> None:
    sizes = []
    model = made(kind)
    whole = estimate_memory(model, release_gradients=True)
    assert whole.gradient_bytes == whole.largest_gradient_bytes == 4 * 64 * 300
    with chunk_vocabulary(model, rows=80):
        optimizer = Cosmic(param_groups(model), lr=0.0)
        for param in model.parameters():
            param.register_post_accumulate_grad_hook(lambda p: sizes.append(p.grad.nbytes))
        with optimizer.step_in_backward(model):
            model(input_ids=ids(), labels=ids()).loss.backward()
            optimizer.step()
    estimate = estimate_memory(config_of(kind), release_gradients=True, chunk_vocabulary=80)
    assert estimate.largest_gradient_bytes == max(sizes) < whole.largest_gradient_bytes


def test_sizes_that_axiom_tells() -> None:
    estimate = estimate_memory("pythia-2.8b")
    assert estimate.parameters == 2_775_208_960
    assert (estimate.fp16_gb, estimate.int8_gb) == (5.55041792, 2.77520896)


# ---- the recommendation --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ram", "setting", "call"),
    [
        ("64GB", r"^AdamW in fp32 fits", r"torch\.optim\.AdamW\(model\.parameters\(\)\)\."),
        ("30GB", r"Cosmic in fp32 fits", r"'fp32'\); optimizer = Cosmic\(model"),
        ("16GB", r"Cosmic in bf16 fits", r"load_model\('pythia-2\.8b', 'bf16'\)"),
        ("10GB", r"bf16, gradients released fits", r"optimizer\.step_in_backward\(model\)\."),
        ("8GB", r"gradients released, state of 1% fits", r"budget='1%'"),
        ("4.2GB", r"LoRA beside an int8 base fits", r"load_model\('pythia-2\.8b', 'int8'\)"),
        ("3GB", r"^Nothing fits 3\.00 GB", r"0\.\d\d GB are missing|1\.\d\d GB are missing"),
    ],
)
def test_the_first_setting_that_fits_is_recommended(ram: str, setting: str, call: str) -> None:
    advice = estimate_memory("pythia-2.8b", ram=ram).recommendation
    assert re.search(setting, advice), advice
    assert re.search(call, advice), advice
    assert "process 0.50 GB" in advice and "\n" not in advice


def test_recommended_bytes_are_the_estimate_s() -> None:
    advice = estimate_memory("gpt2", batch=(2, 64), ram="2GB").recommendation
    assert "Cosmic in fp32 fits" in advice
    found = estimate_memory("gpt2", batch=(2, 64))
    (total,) = re.findall(r"process 0\.50 GB = (\S+) GB", advice)
    assert float(total) == pytest.approx((found.total_bytes + 5e8) / 1e9, abs=0.006)


def test_long_sequences_want_less_of_their_activations() -> None:
    config = config_of("llama", max_position_embeddings=8192, num_hidden_layers=8)
    batch = (4, 4096)
    needs = {
        way: estimate_memory(config, batch=batch, activations=way, dtype=torch.bfloat16)
        for way in (None, "q8", "checkpointing")
    }
    ram = {way: int((need.total_bytes + 5.2e8) / 0.95) for way, need in needs.items()}
    advice = estimate_memory(config, batch=batch, ram=ram["q8"]).recommendation
    assert "activations in 8 bits fits" in advice and "compress_activations('q8')" in advice
    advice = estimate_memory(config, batch=batch, ram=ram["checkpointing"]).recommendation
    assert "recomputed instead fits" in advice and "gradient_checkpointing_enable" in advice


def test_a_control_group_s_limit_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    whole = machine.usable_bytes()
    (tmp_path / "self").write_text("0::/a/b\n")
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.setattr(machine, "_CGROUPS", tmp_path / "self")
    monkeypatch.setattr(machine, "_ROOT", tmp_path)
    (tmp_path / "a" / "b" / "memory.max").write_text("max\n")
    assert machine.usable_bytes() >= whole
    (tmp_path / "a" / "memory.max").write_text("1234567\n")
    assert machine.usable_bytes() == 1_234_567
    (tmp_path / "self").write_text("5:memory:/a\n")
    (tmp_path / "memory" / "a").mkdir(parents=True)
    (tmp_path / "memory" / "a" / "memory.limit_in_bytes").write_text("7654321\n")
    assert machine.usable_bytes() == 7_654_321


# ---- what is wrong -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        ({"activations": "q9"}, ValueError, "codec is 'q9'"),
        ({"ram": 16}, ValueError, "ram is 16; expected bytes as an int or a size such as '16GB'"),
        ({"batch": 3}, TypeError, r"batch is 3; expected a pair of ints"),
        ({"batch": (0, 8)}, ValueError, r"expected 1 sequence and 2 tokens"),
        ({"batch": (1, 5000)}, ValueError, r"batch has 5000 tokens; the model has 128"),
        ({"batch": (1, 8), "activations": "zip"}, ValueError, r"'zip'"),
        ({"chunk_vocabulary": -1}, ValueError, r"chunk_vocabulary is -1"),
        ({"chunk_vocabulary": "all"}, TypeError, r"chunk_vocabulary is 'all'"),
        ({"ram": "much"}, ValueError, r"ram is 'much'; expected bytes"),
    ],
)
def test_bad_arguments(options: dict[str, Any], kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said):
        estimate_memory(config_of("gpt2"), **options)


def test_a_model_of_which_nothing_trains() -> None:
    with pytest.raises(ValueError, match="no parameter that requires grad: nothing to train"):
        estimate_memory(made("gpt2").requires_grad_(False))


def test_a_model_that_is_called_otherwise() -> None:
    with pytest.raises(ValueError, match=r"activations of Linear cannot be counted: model\(input"):
        estimate_memory(torch.nn.Linear(4, 4), batch=(1, 8))
    with pytest.raises(ValueError, match="no layers that transformers can recompute"):
        estimate_memory(torch.nn.Linear(4, 4), batch=(1, 8), activations="checkpointing")


def pictures() -> Any:
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        image_size=32, patch_size=16,
    )  # fmt: skip
    return transformers.ViTForImageClassification(config)


def classes() -> Any:
    config = transformers.BertConfig(
        vocab_size=60, hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32,
    )  # fmt: skip
    return transformers.BertForSequenceClassification(config)


@pytest.mark.parametrize("make", [pictures, classes])
def test_a_model_without_a_vocabulary_to_predict(make: Any) -> None:
    estimate = estimate_memory(make(), ram="100MB", chunk_vocabulary=True)
    assert estimate.weight_bytes > 0
    advice = estimate.recommendation
    assert "Nothing fits" in advice and "LoRA" not in advice and "vocabulary" not in advice


@pytest.mark.parametrize("make", [pictures, classes])
def test_a_batch_of_what_takes_none(make: Any) -> None:
    with pytest.raises(ValueError, match="cannot be counted: model"):
        estimate_memory(make(), batch=(2, 8))
    with pytest.raises(ValueError, match=r"takes a head by blocks, and .* has none; leave it out"):
        estimate_memory(make(), batch=(2, 8), chunk_vocabulary=True)


def test_advice_of_an_unknown_name_is_about_configurations(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cosmic.models.loader.hub_answers", lambda: False)
    with pytest.raises(UsageError, match=r"give a local folder with config\.json, or ") as caught:
        estimate_memory("pythia")
    assert "scratch" not in str(caught.value) and "pythia-2.8b" in str(caught.value)
