"""Which settings fit a machine: the first that do, from the most usual to the most thrifty."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from .machine import PROCESS_BYTES, SHARE_TO_USE

__all__ = ["Need", "Setting", "recommend"]

_GB = 1e9
_WITHOUT_BATCH = "Activations are not counted: give batch=(sequences, tokens)."


class Need(NamedTuple):
    """Bytes of one setting.

    Attributes:
        weights: of the model.
        gradients: that are held at once.
        state: of the optimizer, scratch included.
        batch: activations, logits and their gradients.
    """

    weights: int
    gradients: int
    state: int
    batch: int

    @property
    def total(self) -> int:
        """All of these and the process itself."""
        return sum(self) + PROCESS_BYTES


class Setting(NamedTuple):
    """One way to train.

    Attributes:
        name: in a few words.
        call: Python that asks for it.
        need: works out what it takes.
    """

    name: str
    call: str
    need: Callable[[], Need]


def recommend(settings: Iterable[Setting], ram: int, *, counts_batch: bool) -> str:
    """A paragraph: the first setting that fits, and what the one before it would have taken; or how
    much is missing.

    Args:
        settings: in the order in which they are tried; at least one.
        ram: bytes that the process may use.
        counts_batch: whether activations are in the needs.
    """
    limit = int(ram * SHARE_TO_USE)
    refused: list[tuple[Setting, Need]] = []
    note = "" if counts_batch else f" {_WITHOUT_BATCH}"
    for setting in settings:
        need = setting.need()
        if need.total <= limit:
            before = f"{_told(refused[-1])} does not fit. " if refused else ""
            return (
                f"{before}{setting.name} fits {_gb(ram)} of memory: {_parts(need)}. In Python: "
                f"{setting.call}.{note}"
            )
        refused.append((setting, need))
    least = min(refused, key=lambda pair: pair[1].total)
    return (
        f"Nothing fits {_gb(ram)} of memory. {_told(least)} is the least: {_parts(least[1])}; "
        f"{_gb(least[1].total - limit)} are missing. Take shorter or fewer sequences, a smaller "
        f"model, or more memory.{note}"
    )


def _told(pair: tuple[Setting, Need]) -> str:
    return f"{pair[0].name} at {_gb(pair[1].total)}"


def _parts(need: Need) -> str:
    batch = f" + activations and loss {_gb(need.batch)}" if need.batch else ""
    return (
        f"weights {_gb(need.weights)} + gradients {_gb(need.gradients)} + state {_gb(need.state)}"
        f"{batch} + process {_gb(PROCESS_BYTES)} = {_gb(need.total)}"
    )


def _gb(nbytes: int) -> str:
    return f"{nbytes / _GB:.2f} GB"
