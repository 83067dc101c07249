"""The snippets of docs/engines.md, run by every rank as they stand."""

from __future__ import annotations

import os
import re
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import CPUOffloadPolicy
from torch.utils.data import DataLoader

from clients.setting import BATCH, Tokens, tiny_gpt2
from cosmic import Cosmic

PAGE = Path(__file__).resolve().parents[2] / "docs" / "engines.md"
_SECTION = re.compile(r"^## (.+?)$(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
_SNIPPET = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Model(nn.Module):
    """It returns its loss, as transformers' do."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(600, 128)
        self.head = nn.Linear(128, 600)

    def forward(self, tokens: Tensor) -> Any:
        logits = self.head(self.embedding(tokens))
        return SimpleNamespace(loss=nn.functional.cross_entropy(logits, tokens))


def sections() -> dict[str, list[str]]:
    """The page's snippets by heading."""
    found = {name: _SNIPPET.findall(text) for name, text in _SECTION.findall(PAGE.read_text())}
    return {name: snippets for name, snippets in found.items() if snippets}


def run(rank: int) -> Iterator[tuple[str, Any]]:
    """Of each section the Cosmics that it has made: rungs, steps taken and bytes."""
    ranks = str(dist.get_world_size())
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=ranks, LOCAL_WORLD_SIZE=ranks,
        LOCAL_SIZE=ranks, MASTER_ADDR="127.0.0.1", MASTER_PORT="0", DS_ACCELERATOR="cpu",
    )  # fmt: skip
    os.chdir(tempfile.mkdtemp())
    for name, snippets in sections().items():
        made: list[Cosmic] = []
        with pytest.MonkeyPatch.context() as patch:
            prepare(name, patch)
            patch.setattr(Cosmic, "__init__", noting(made, Cosmic.__init__))
            names = given(name)
            try:
                for snippet in snippets:
                    exec(compile(snippet, f"{PAGE.name}, {name}", "exec"), names)
            except Exception:
                yield name, traceback.format_exc()
                continue
        yield name, [said(optimizer) for optimizer in made if optimizer.state]


def noting(made: list[Cosmic], init: Any) -> Any:
    """A constructor that notes what it has made."""

    def __init__(self: Cosmic, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        made.append(self)

    return __init__


def said(optimizer: Cosmic) -> dict[str, Any]:
    return {
        "steps": optimizer.state_dict()["cosmic"]["steps"],
        "bytes": optimizer.state_bytes(),
        "budget": optimizer.budget_bytes(),
    }


def given(name: str) -> dict[str, Any]:
    """What the page calls model, batches, loader and dataset without saying."""
    torch.manual_seed(0)
    if name in ("accelerate", "Trainer"):
        model: nn.Module = tiny_gpt2()
    else:
        model = Model()
    batches = [torch.randint(600, (4,)) for _ in range(3)]
    loader = DataLoader(Tokens(), BATCH)
    return {"model": model, "batches": batches, "loader": loader, "dataset": Tokens()}


def prepare(name: str, patch: pytest.MonkeyPatch) -> None:
    """The CPU in the place of a device, where a section is of one."""
    if name in ("accelerate", "Trainer"):
        from accelerate.state import AcceleratorState, GradientState

        from launched_training import take_the_cpu_for_an_accelerator

        take_the_cpu_for_an_accelerator(patch)
        patch.setattr(CPUOffloadPolicy.__init__, "__defaults__", (False,))  # pins no memory
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()
    if name == "DeepSpeed":
        from deepspeed_checks import without_compiling

        without_compiling()
    if name == "torchao's CPU offload":
        from device_stand_in import stand_in

        stand_in(patch)
