"""Policies that the default is held against, by name: two of Cosmic's own and two of no sense."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import cosmic
from cosmic.state.roles import Role

BUILT_IN = ("uniform", "signal")
REVERSED = "reversed"
RANDOM = "random"
#: The weights of `RandomPolicy` lie within this power of ten of one, either way.
SPREAD = 1.0

_SWAPPED: dict[Role, Role] = {"table": "matrix", "matrix": "table", "vector": "matrix"}


def policy_options(name: str) -> dict[str, Any]:
    """The option of Cosmic's for "" (the default policy), "uniform", "signal", "reversed", or
    "random N" (the Nth draw).

    Raises:
        ValueError: there is no such policy.
    """
    kind, _, draw = name.partition(" ")
    if not name:
        return {}
    if name in BUILT_IN:
        return {"policy": name}
    if name == REVERSED:
        return {"policy": ReversedPolicy()}
    if kind == RANDOM and draw.isdecimal():
        return {"policy": RandomPolicy(int(draw))}
    raise ValueError(f"unknown policy {name!r}")


class ReversedPolicy:
    """The rule of roles turned round: hidden matrices are worth what tables are, and tables and
    vectors what hidden matrices are."""

    def __init__(self) -> None:
        self.name = REVERSED
        self.uses_signal = False

    def worths(self, candidates: Sequence[cosmic.Candidate]) -> list[list[float]]:
        swapped = [replace(c, role=_SWAPPED[c.role]) for c in candidates]
        return cosmic.RolePolicy().worths(swapped)


class RandomPolicy:
    """The same codec for all, but each tensor's worths times a weight that is drawn by lot.

    A weight depends on the draw and on the tensor's index alone: a tensor keeps it for good.
    """

    def __init__(self, draw: int) -> None:
        self.name = f"{RANDOM} {draw}"
        self.uses_signal = False
        self._draw = draw

    def worths(self, candidates: Sequence[cosmic.Candidate]) -> list[list[float]]:
        alike = cosmic.UniformPolicy().worths(candidates)
        weights = [self._weight(c.index) for c in candidates]
        return [[w * worth for worth in row] for w, row in zip(weights, alike, strict=True)]

    def _weight(self, index: int) -> float:
        drawn = random.Random(f"{self._draw} {index}").uniform(-SPREAD, SPREAD)
        return float(10.0**drawn)
