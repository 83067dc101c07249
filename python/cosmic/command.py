"""How the command ``cosmic`` ends when it is interrupted or cannot start: by a line, no traceback.

Most of what can go wrong then goes wrong while torch is imported, before the command's own code
runs. So this module imports nothing but the standard library, and is imported first.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["INTERRUPTED", "catch_interrupts", "interrupts_raised", "refusal"]

INTERRUPTED = 130  # as shells have it: 128 and SIGINT's number
_MAIN = "cosmic.cli.main"

_raised = False  # whether an interrupt is to raise KeyboardInterrupt


def is_command() -> bool:
    """Whether this import is the start of the command, by its script or ``python -m``, and not of a
    program that uses the package."""
    if sys.argv[:1] == ["-m"]:  # the module is still being looked for
        return sys.orig_argv[-len(sys.argv)].removeprefix("-m") == _MAIN
    frame: FrameType | None = sys._getframe()
    while frame is not None:  # the script imports the command's module by this name
        if frame.f_globals.get("__name__") == "__main__" and _MAIN in frame.f_code.co_names:
            return True
        frame = frame.f_back
    return False


def refusal(message: str) -> BaseException:
    """What to raise where the package cannot be used: ImportError, or the command's end, which
    prints the message and has status 1."""
    return SystemExit(f"cosmic: error: {message}") if is_command() else ImportError(message)


def catch_interrupts() -> None:
    """From now on an interrupt ends the command at once. An exception would not always: raised in
    the import of an extension module or in a callback, it is swallowed or turned into another."""
    ours = threading.current_thread() is threading.main_thread() and is_command()
    if ours and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _on_interrupt)


@contextmanager
def interrupts_raised() -> Iterator[None]:
    """Within, an interrupt raises KeyboardInterrupt, so that what was begun is ended, too."""
    global _raised
    _raised = True
    try:
        yield
    finally:
        _raised = False


def _on_interrupt(_number: int, _frame: FrameType | None) -> None:
    if not _raised:
        os.write(2, b"cosmic: interrupted\n")
        os._exit(INTERRUPTED)
    raise KeyboardInterrupt
