"""Presets by a word: what they say, and that a checkpoint has it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from cosmic import Cosmic, backends, param_groups
from cosmic.presets import preset
from helpers import give_gradients


def model_of(*sides: int) -> nn.Module:
    with torch.device("meta"):
        return nn.Sequential(*(nn.Linear(side, side, bias=False) for side in sides))


def stepped(model: nn.Module, word: str) -> Cosmic:
    optimizer = Cosmic(param_groups(model), lr=1e-3, **preset(word, model))
    give_gradients(model.parameters(), 0)
    optimizer.step()
    return optimizer


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(100, 64), nn.Linear(64, 64), nn.Linear(64, 100))


def test_modern_steps_hidden_matrices_as_a_whole_and_tables_by_elements() -> None:
    rungs = {row.name: row.rung for row in stepped(small(), "modern").tiers()}
    assert rungs["1.weight"] == "tier2:muon:m1"
    assert rungs["0.weight"] == "tier2:u4+v4"


def test_lean_takes_three_percent_of_adamw_s_state_at_most() -> None:
    model = small()
    optimizer = stepped(model, "lean")
    assert 0 < optimizer.state_bytes() <= 0.03 * 8 * sum(p.numel() for p in model.parameters())


def test_auto_goes_by_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "selected", lambda: "avx2")
    assert preset("auto", model_of(999)) == {"state_dtype": "fp32"}
    assert preset("auto", model_of(1000)) == preset("modern")
    assert preset("auto", model_of(30000, 9999)) == preset("modern")
    assert preset("auto", model_of(30000, 10000)) == preset("lean")


def test_auto_does_not_orthogonalize_without_vector_instructions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backends, "selected", lambda: "scalar")
    assert preset("auto", model_of(1000)) == {}


def test_auto_counts_what_trains() -> None:
    model = model_of(900, 2000)
    model[1].requires_grad_(False)  # type: ignore[index]
    assert preset("auto", model) == {"state_dtype": "fp32"}


@pytest.mark.parametrize("word", ["modern", "auto"])
def test_a_checkpoint_has_the_options(word: str) -> None:
    saved = stepped(small(), word).state_dict()
    plain = Cosmic(param_groups(small()), lr=1e-3)
    plain.load_state_dict(saved)
    for option, value in preset(word, small()).items():
        assert [group[option] for group in plain.param_groups] == [value] * len(plain.param_groups)


def test_what_is_returned_is_the_caller_s_own() -> None:
    preset("lean")["budget"] = "50%"
    assert preset("lean") == {"budget": "3%"}


def test_another_word_is_refused() -> None:
    with pytest.raises(ValueError, match="word is 'legacy'; expected 'modern', 'lean' or 'auto'"):
        preset("legacy")
    with pytest.raises(TypeError, match="model is a NoneType; expected an nn"):
        preset("auto")
