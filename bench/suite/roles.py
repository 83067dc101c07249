"""The three roles by which every optimizer of the suite may have rates of its own."""

from __future__ import annotations

from typing import Any

from torch import nn

import cosmic
from cosmic.state.roles import KINDS

Group = dict[str, Any]
ROLES = ("table", "matrix", "vector")


def groups_of(
    model: nn.Module, rate: float, matrix: float, vector: float, tags: bool = False
) -> list[Group]:
    """A model's named parameters in groups: tables with `rate`, others with a factor of it.

    Groups are those of `cosmic.param_groups`, each with its role and, as `suite_role`, with the
    one of the three that it counts for; positions and what nobody knows count for tables. With
    `tags` they are those of tags, and have their rates.
    """
    factors = {"table": 1.0, "matrix": matrix, "vector": vector}
    out: list[Group] = []
    for group in cosmic.param_groups(model, tags=tags, tag_rates=tags):
        role = KINDS[group["role"]] or "table"
        names, params = group.pop("param_names"), group.pop("params")
        named = list(zip(names, params, strict=True))
        out.append(group | {"params": named, "lr": rate * factors[role], "suite_role": role})
    return out
