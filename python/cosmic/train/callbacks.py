"""What is called while a run goes on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Callback", "StepInfo", "check_callbacks"]


@dataclass(frozen=True)
class StepInfo:
    """One step that was taken.

    Args:
        step: its number, from 1.
        loss: its mean loss, of the batches that it took together.
        lr: learning rate of the optimizer's first group in it.
        tokens: that it trained on.
        seconds: from the first batch's forward to the end of the update.
        optimizer_seconds: of these, the optimizer's.
    """

    step: int
    loss: float
    lr: float
    tokens: int
    seconds: float
    optimizer_seconds: float


class Callback:
    """What happens beside a run: each method does nothing until a subclass has it do something.

    Each is given the ``Trainer``. A method that returns False ends ``fit`` after the step, as
    ``trainer.stop()`` does.
    """

    def on_step_end(self, trainer: Any, info: StepInfo) -> bool | None:
        """A step was taken."""
        return None

    def on_evaluate(self, trainer: Any, loss: float, perplexity: float) -> bool | None:
        """``fit`` has evaluated."""
        return None

    def on_checkpoint(self, trainer: Any, path: Path) -> bool | None:
        """A checkpoint is on the disk."""
        return None

    def on_end(self, trainer: Any, results: dict[str, Any]) -> bool | None:
        """``fit`` ends, by an interrupt or a loss that is no number, too."""
        return None


def check_callbacks(callbacks: Any) -> list[Callback]:
    """A list of them.

    Raises:
        TypeError: it is no sequence of objects with all methods of ``Callback``.
    """
    if isinstance(callbacks, str) or not isinstance(callbacks, Iterable):
        raise TypeError(f"callbacks is {type(callbacks).__name__}; expected a list of Callback")
    found = list(callbacks)
    for index, one in enumerate(found):
        if isinstance(one, type):
            raise TypeError(
                f"callbacks[{index}] is the class {one.__name__}; give {one.__name__}()"
            )
        missing = [name for name in _METHODS if not callable(getattr(one, name, None))]
        if missing:
            raise TypeError(
                f"callbacks[{index}] is {type(one).__name__}, without {missing[0]}(); expected an "
                "object of a subclass of cosmic.train.Callback"
            )
    return found


_METHODS = [name for name in vars(Callback) if name.startswith("on_")]
