"""Models by name: where they come from, their shapes, their weights."""

from pathlib import Path

import pytest
import torch

from cosmic.errors import UsageError
from cosmic.finetune import tokenizing
from cosmic.models.building import build_model
from cosmic.models.configs import from_pretrained, hub_advice, load_config, load_tokenizer
from cosmic.models.sources import Source, model_source
from cosmic.train import memory
from helpers import TEXT

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("model", "from_scratch", "expected"),
    [
        ("tiny-gpt2", False, Source.BUILT_IN),
        ("small-gpt2", False, Source.BUILT_IN),
        ("distilgpt2", True, Source.BUILT_IN),
        ("distilbert/distilgpt2", True, Source.BUILT_IN),
        ("distilgpt2", False, Source.HUB),
        ("somebody/llama", True, Source.HUB),
        ("tinyllama-1.1b", True, Source.BUILT_IN),
        ("TinyLlama/TinyLlama_v1.1", True, Source.BUILT_IN),
        ("tinyllama-1.1b", False, Source.HUB),
        ("./missing", True, Source.LOCAL),
    ],
)
def test_where_a_model_comes_from(model: str, from_scratch: bool, expected: Source) -> None:
    assert model_source(model, from_scratch) is expected


def test_same_seed_same_weights() -> None:
    first = build_model("tiny-gpt2", False, seed=3, dtype="fp32").state_dict()
    again = build_model("tiny-gpt2", False, seed=3, dtype="fp32").state_dict()
    other = build_model("tiny-gpt2", False, seed=4, dtype="fp32").state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_known_shape_is_the_published_one() -> None:
    config = load_config("distilgpt2", from_scratch=True)
    shape = (config.n_layer, config.n_embd, config.n_head, config.vocab_size, config.n_positions)
    assert shape == (6, 768, 12, 50257, 1024)


def test_a_billion_parameters_without_their_memory() -> None:
    before = memory.rss_bytes()
    model = build_model("tinyllama-1.1b", True, seed=0, dtype="bf16", without_weights=True)
    assert sum(parameter.numel() for parameter in model.parameters()) == 1_100_048_384
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert memory.rss_bytes() < before + 200_000_000
    config = load_config("TinyLlama/TinyLlama_v1.1", from_scratch=True)
    assert (config.num_key_value_heads, config.tie_word_embeddings) == (4, False)


def test_weights_of_bf16_are_made_in_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy in fp32 would be three times the memory at its peak."""
    monkeypatch.setattr(torch.nn.Module, "to", pytest.fail)
    model = build_model("tiny-gpt2", False, seed=3, dtype="bf16")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


def test_a_known_name_that_the_hub_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Loader:
        @staticmethod
        def from_pretrained(name: str) -> None:
            asked.append(name)

    from_pretrained(Loader, "tinyllama-1.1b")
    from_pretrained(Loader, "distilgpt2")
    assert asked == ["TinyLlama/TinyLlama_v1.1", "distilgpt2"]


def test_model_that_nobody_has_gets_other_advice_than_a_known_one() -> None:
    error = OSError("401 Client Error.\nRepository Not Found for url: x")
    said = hub_advice("some/llama", error)
    tried = "try --from-scratch (from_scratch=True) with a local folder or distilgpt2"
    assert f"(401 Client Error); {tried}" in said
    known = hub_advice("openai-community/gpt2", error)
    assert known.endswith("with --from-scratch (in Python from_scratch=True)")


def test_local_folder_gives_its_weights_and_tokenizer(tmp_path: Path) -> None:
    model = build_model("tiny-gpt2", False, seed=1, dtype="fp32")
    model.save_pretrained(tmp_path)
    tokenizing.train_tokenizer([TEXT], 300).save_pretrained(tmp_path)
    loaded = build_model(str(tmp_path), False, seed=2, dtype="bf16")
    assert torch.equal(loaded.lm_head.weight, model.lm_head.weight.bfloat16())
    assert len(load_tokenizer(str(tmp_path))) == 300
    fresh = build_model(str(tmp_path), True, seed=1, dtype="fp32")
    assert torch.equal(fresh.lm_head.weight, model.lm_head.weight), "same seed, same shape"


def test_trained_weights_are_checked_without_being_held(tmp_path: Path) -> None:
    model = build_model("tiny-gpt2", False, seed=1, dtype="fp32")
    model.save_pretrained(tmp_path)
    bare = build_model(str(tmp_path), False, seed=2, dtype="bf16", without_weights=True)
    assert {(p.device.type, p.dtype) for p in bare.parameters()} == {("meta", torch.bfloat16)}
    shapes = [{n: p.shape for n, p in m.named_parameters()} for m in (model, bare)]
    assert shapes[0] == shapes[1], "tied ones once"
    (file,) = tmp_path.glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(UsageError, match="cut off or damaged"):
        build_model(str(tmp_path), False, seed=2, dtype="bf16", without_weights=True)


def test_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has no config\.json"):
        load_config(str(tmp_path), from_scratch=True)
