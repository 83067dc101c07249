"""The page on engines does as it says, on two ranks."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from engine_snippets import run, sections
from rank_processes import Findings, found_by_all

RANKS = 2


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[Findings]:
    return found_by_all(run, RANKS, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("name", sections())
def test_a_snippet_runs_and_steps(found: list[Findings], name: str) -> None:
    if name == "DeepSpeed" and not find_spec("deepspeed"):
        pytest.skip("DeepSpeed is not installed")
    for findings in found:
        assert isinstance(findings[name], list), findings[name]
        assert findings[name] and all(of["steps"] > 0 for of in findings[name])
    for of in (of for findings in found for of in findings[name]):
        assert of["budget"] is None or 0 <= of["bytes"] <= of["budget"]


def test_the_page_has_every_engine() -> None:
    assert list(sections()) == [
        "DistributedDataParallel", "ZeroRedundancyOptimizer", "FSDP2", "accelerate", "Trainer",
        "DeepSpeed", "torchao's CPU offload",
    ]  # fmt: skip
