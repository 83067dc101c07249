"""How much memory this process may use."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["PROCESS_BYTES", "SHARE_TO_USE", "usable_bytes"]

#: Resident memory of a process with torch, transformers, this package and their threads before any
#: weight: 0.37 GB after the imports and a first model, 0.5 after a first step; torch 2.13 on Linux.
PROCESS_BYTES = 500_000_000
#: Of a machine's memory: the rest is the system's, and the allocator's where blocks lie idle.
SHARE_TO_USE = 0.95

_CGROUPS = Path("/proc/self/cgroup")
_ROOT = Path("/sys/fs/cgroup")


def usable_bytes() -> int:
    """Bytes of memory that this process may use at most: the machine's, or a control group's limit
    where that is less.

    Raises:
        OSError: the system does not tell.
    """
    return min([_machine_bytes(), *_group_limits()])


def _machine_bytes() -> int:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not on Windows
        raise OSError(
            "this system does not tell how much memory it has; give it by ram=, such as ram='16GB'"
        ) from None


def _group_limits() -> list[int]:
    """Limits of the control groups that this process is in, and of those above them."""
    try:
        lines = _CGROUPS.read_text().splitlines()
    except OSError:
        return []
    limits = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            base, file = (
                (_ROOT, "memory.max")
                if not controllers
                else (_ROOT / "memory", "memory.limit_in_bytes")
            )
            group = base / path.lstrip("/")
            limits += [_limit(folder / file) for folder in (group, *group.parents)]
    return [limit for limit in limits if limit is not None]


def _limit(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):  # no such group, or "max"
        return None
