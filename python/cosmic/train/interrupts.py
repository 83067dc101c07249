"""Ctrl-C and SIGTERM while a run goes on: the step is finished first."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

__all__ = ["Interrupts"]

_NAMES = ("SIGINT", "SIGTERM")
_WORD = b"\ninterrupted: stopping after this step; once more to stop at once\n"


class Interrupts:
    """Within, the first SIGINT or SIGTERM only sets ``asked``; a second one raises
    KeyboardInterrupt. Signals that are ignored stay so, and so do all outside the main thread."""

    def __init__(self) -> None:
        self.asked = False
        self._process = os.getpid()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for name in _NAMES:
                number = getattr(signal, name)
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        if os.getpid() == self._process:  # not in a loader's workers, which the terminal tells, too
            os.write(2, _WORD)  # print could be in the middle of a line of its own
