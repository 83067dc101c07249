"""How many threads the compiled part runs on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["forked", "one_thread", "thread_count"]

_forked = False


def forked() -> bool:
    """Whether this is a forked child of the process that imported the package."""
    return _forked


@contextmanager
def one_thread() -> Iterator[None]:
    """torch's own operators on one thread: in a forked child they hang on several, as ours do."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def thread_count() -> int:
    """``torch.set_num_threads``'s number; 1 in a forked child.

    The OpenMP runtime's threads do not live on in a forked child, but its pool is taken for
    complete there, and a region on several threads waits for them for ever. Whether the parent
    had started any (torch's own operators do) cannot be asked.
    """
    return 1 if _forked else torch.get_num_threads()


def _note_fork() -> None:
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_note_fork)
