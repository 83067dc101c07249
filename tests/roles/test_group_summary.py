"""What ParamGroups.summary and .table show of groups: their order, and what acts in whose steps."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from cosmic import Cosmic, ParamGroups, param_groups
from cosmic.grouping.tag_words import TAGS
from cosmic.state.roles import KINDS
from role_models import gpt2, llama

DOCS = Path(__file__).parents[2] / "docs"
NOTE = "Cosmic steps with lr * lr_scale; other optimizers step with lr."


def words_of_table(title: str) -> list[str]:
    """What the first cells of a table in docs/param_groups.md name, in order."""
    page = (DOCS / "param_groups.md").read_text("utf-8")
    table = page.split(f"| `{title}` |", 1)[1].split("\n\n", 1)[0]
    cells = [line.split("|")[1] for line in table.splitlines()[2:]]
    return [word for cell in cells for word in re.findall(r'"(\w+)"', cell)]


def group(word: str, **options: Any) -> dict[str, Any]:
    return {"params": [torch.zeros(2)], "param_names": [word], **options}


def shown(groups: ParamGroups) -> list[str]:
    return [line.split()[1] for line in groups.summary().splitlines()[1 : len(groups) + 1]]


def test_groups_stand_in_the_order_of_the_table_of_tags() -> None:
    tags = words_of_table("tag")
    assert tags == list(TAGS) and len(tags) == 21
    groups = ParamGroups(group(tag, tag=tag, role="other") for tag in sorted(tags))
    assert shown(groups) == tags


def test_groups_without_a_tag_stand_in_the_order_of_the_table_of_roles_after_the_others() -> None:
    roles = words_of_table("role")
    assert set(roles) == set(KINDS)
    without = [group(role, role=role) for role in sorted(roles)]
    found = shown(ParamGroups([*without, group("none"), group("x", tag="other", role="head")]))
    assert found == ["other", *roles, "-"]


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
def test_it_says_that_other_optimizers_know_no_factors(optimizer: Any) -> None:
    def summary(made: torch.optim.Optimizer) -> str:
        return ParamGroups(made.param_groups).summary()

    groups = param_groups(llama(), tags=True, tag_rates=True)
    assert NOTE not in groups.summary()  # it has no rates yet
    assert summary(optimizer(groups, lr=0.1)).endswith(f"\n\n{NOTE}")
    assert NOTE not in summary(Cosmic(param_groups(llama(), tags=True, tag_rates=True), lr=0.1))
    assert NOTE not in summary(optimizer(param_groups(llama(), tags=True), lr=0.1))


def test_the_table_of_an_optimizers_groups() -> None:
    """Which may have parts by name, or one number of them, and no role."""
    weights = list(gpt2().named_parameters())[2:5]
    for parts, words in (
        ({weights[0][0]: (0, 1)}, "- in parts by name"), ((0, 1), "- of 1 parts"), (None, "-"),
    ):  # fmt: skip
        optimizer = Cosmic(weights, parts=parts)
        line = str(ParamGroups(optimizer.param_groups)).splitlines()[1]
        assert line.split("  ")[0] == words
