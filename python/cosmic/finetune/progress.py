"""Progress of one training: a bar on a terminal, a line every tenth elsewhere."""

import sys
import time
from types import TracebackType

from tqdm import tqdm

LINES = 10
SMOOTHING = 0.9


class Progress:
    """Shows loss (smoothed) and tokens a second on stderr.

    Args:
        label: the optimizer.
        steps: how many `update` calls will come.
        tokens_per_step: tokens that one step trains on.
    """

    def __init__(self, label: str, steps: int, tokens_per_step: int) -> None:
        self._label, self._steps, self._tokens = label, steps, tokens_per_step
        self._on_terminal = sys.stderr.isatty()
        self._bar = tqdm(
            total=steps, desc=label, unit="step", file=sys.stderr, disable=not self._on_terminal
        )
        self._start = time.perf_counter()
        self._done = 0
        self._loss: float | None = None

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()

    def update(self, loss: float) -> None:
        """Count one step with its loss."""
        self._done += 1
        before = loss if self._loss is None else self._loss
        self._loss = SMOOTHING * before + (1 - SMOOTHING) * loss
        rate = self._done * self._tokens / max(time.perf_counter() - self._start, 1e-9)
        if self._on_terminal:
            self._bar.set_postfix_str(f"loss {self._loss:.3f}, {rate:,.0f} tok/s", refresh=False)
            self._bar.update()
        elif self._done * LINES // self._steps > (self._done - 1) * LINES // self._steps:
            print(
                f"{self._label}: step {self._done}/{self._steps}, "
                f"loss {self._loss:.3f}, {rate:,.0f} tok/s",
                file=sys.stderr,
                flush=True,
            )
