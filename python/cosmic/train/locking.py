"""A folder that one process at a time writes into."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from .errors import CheckpointError

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["claim"]

LOCK = ".lock"

#: Open files whose locks this process holds until it ends, however it ends.
_HELD: dict[Path, int] = {}


def claim(folder: Path) -> None:
    """Keep other processes from claiming a folder, for as long as this one lives.

    The lock is POSIX's: a kill releases it, and processes that are forked do not have it. Where a
    file system or a system knows none, nothing is claimed.

    Raises:
        CheckpointError: another process has claimed it.
    """
    place = folder.resolve()
    if fcntl is None or place in _HELD:
        return
    number = os.open(place / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.lockf(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(number)
        if error.errno in (errno.EACCES, errno.EAGAIN):
            raise CheckpointError(
                f"another process is writing checkpoints into {folder}: give each run a "
                "checkpoint_dir of its own"
            ) from None
        return
    _HELD[place] = number
