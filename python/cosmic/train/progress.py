"""Progress of one training: a bar on a terminal, a line now and then elsewhere."""

import sys
import time
from importlib.util import find_spec
from types import TracebackType
from typing import Any

LINES = 10
SMOOTHING = 0.9


class Progress:
    """Shows loss (smoothed) and tokens a second on stderr: by a bar where that is a terminal and
    tqdm is installed, else by lines.

    Args:
        label: what is trained, or by which optimizer.
        steps: how many steps the training has.
        tokens_per_step: tokens that one step trains on, where `update` is not told.
        done: steps that were taken before.
        every: steps between two lines; None: ten lines in all.
    """

    def __init__(
        self,
        label: str,
        steps: int,
        tokens_per_step: int = 0,
        *,
        done: int = 0,
        every: int | None = None,
    ) -> None:
        self._label, self._steps, self._tokens_per_step = label, steps, tokens_per_step
        self._every = every
        self._bar = _bar(label, steps, done) if sys.stderr.isatty() else None
        self._start = time.perf_counter()
        self._done, self._tokens = done, 0
        self._loss: float | None = None

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def update(self, loss: float, tokens: int | None = None) -> None:
        """Count one step with its loss, and its tokens where steps differ."""
        self._done += 1
        self._tokens += self._tokens_per_step if tokens is None else tokens
        before = loss if self._loss is None else self._loss
        self._loss = SMOOTHING * before + (1 - SMOOTHING) * loss
        rate = self._tokens / max(time.perf_counter() - self._start, 1e-9)
        if self._bar is not None:
            self._bar.set_postfix_str(f"loss {self._loss:.3f}, {rate:,.0f} tok/s", refresh=False)
            self._bar.update()
        elif self._tells():
            print(
                f"{self._label}: step {self._done}/{self._steps}, "
                f"loss {self._loss:.3f}, {rate:,.0f} tok/s",
                file=sys.stderr,
                flush=True,
            )

    def _tells(self) -> bool:
        if self._every is not None:
            return self._done % self._every == 0
        return self._done * LINES // self._steps > (self._done - 1) * LINES // self._steps


def _bar(label: str, steps: int, done: int) -> Any:
    if find_spec("tqdm") is None:
        return None
    from tqdm import tqdm

    return tqdm(total=steps, initial=done, desc=label, unit="step", file=sys.stderr)
