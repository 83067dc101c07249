"""Steps that never were: groups, and what a step is said to have seen of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch

from cosmic.controllers import Controller, Observation, TensorStats

__all__ = ["groups_tagged", "looks", "tensor"]

#: What a step has seen of a group's tensors, by its tag: root mean squares of update and parameter.
Seen = Mapping[str, tuple[float, float]]


def groups_tagged(*tags: str, **options: Any) -> list[dict[str, Any]]:
    """Groups without tensors."""
    return [
        {"tag": tag, "params": [], "lr": 1e-3, "lr_scale": 1.0, "weight_decay": 0.1, **options}
        for tag in tags
    ]


def tensor(
    group: int, update: float, param: float, *, numel: int = 100, scale: float = 1.0,
    part: str | None = None,
) -> TensorStats:  # fmt: skip
    return TensorStats(
        f"tensor{group}", group, part, numel, 1.0, update, 1.0, scale, param, torch.ones(1)
    )


def looks(
    controller: Controller,
    groups: list[dict[str, Any]],
    seen: Seen,
    times: int,
    after: Callable[[], None] = lambda: None,
) -> None:
    """Let a controller look as often, each time at a step with the ``lr_scale`` of then."""
    for step in range(1, times + 1):
        found = [
            tensor(k, *seen[group["tag"]], scale=group["lr_scale"])
            for k, group in enumerate(groups)
            if group["tag"] in seen
        ]
        controller.observe(Observation(step, groups, found))
        assert all(math.isfinite(group["lr_scale"]) for group in groups)
        after()
