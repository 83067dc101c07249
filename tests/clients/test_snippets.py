"""The snippets of docs/clients.md run, and do what the page says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader

from clients.setting import Tokens, parameter_bits, tiny_gpt2

PAGE = Path(__file__).parents[2] / "docs" / "clients.md"

pytestmark = [
    # Lightning's own use of torch's trees; its advice to have more workers.
    pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated"),
    pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers"),
    # Peft asks the model by a name that transformers is about to drop.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated"),
]


def snippets() -> dict[str, list[str]]:
    """Blocks of Python by the heading that they stand under."""
    found = {}
    for section in PAGE.read_text().split("\n## ")[1:]:
        heading = section.splitlines()[0]
        if blocks := re.findall(r"```python\n(.*?)```", section, re.DOTALL):
            found[heading] = blocks
    return found


@pytest.mark.parametrize("heading", snippets())
def test_a_snippet_trains(heading: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model, data = tiny_gpt2(), Tokens()
    names: dict[str, Any] = {"model": model, "dataset": data, "loader": DataLoader(data, 8)}
    before = parameter_bits(model)
    for block in snippets()[heading]:
        exec(compile(block, f"{PAGE.name}: {heading}", "exec"), names)
        after = parameter_bits(names["model"])
        assert after != before
        before = after


def test_there_is_a_snippet_for_every_client() -> None:
    assert list(snippets()) == ["transformers.Trainer", "accelerate", "Lightning", "PEFT"]
