"""What the loss's node leaves to the blocks' nodes, which run after it in the same backward."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from .tiles import Scored

__all__ = ["Handover", "Link"]


class Handover:
    """One loss's saved tensors: given when its node has unpacked them, so that they are unpacked
    once; dropped when every block has had them."""

    def __init__(self) -> None:
        self._scored: Scored | None = None
        self._left = 0

    def give(self, scored: Scored, takers: int) -> None:
        self._scored, self._left = scored, takers

    def take(self) -> Scored:
        scored = self._scored
        if scored is None:
            raise RuntimeError("a block's gradient was asked for without its loss's")
        self._left -= 1
        if self._left <= 0:
            self._scored = None
        return scored


@dataclass
class Link:
    """From an embedding's call to the tied head's: the head's part of a block's gradient is made
    where the embedding's is, by one node, so that it waits for nothing.

    Attributes:
        tickets: one scalar a block, whose gradient is that of the summed loss.
        handover: to the blocks' nodes.
    """

    tickets: list[Tensor] = field(default_factory=list)
    handover: Handover = field(default_factory=Handover)

    @staticmethod
    def ticket() -> Tensor:
        return torch.zeros((), dtype=torch.float32)
