"""A file of JSON lines that any number of processes read and lengthen at the same time."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


class Lines:
    """Objects in a file, a line each; a line that was broken off is passed over."""

    def __init__(self, path: Path) -> None:
        self._path, self._read = path, 0

    def append(self, content: dict[str, Any]) -> None:
        """Write one object, at once and at the end of the file."""
        line = (json.dumps(content) + "\n").encode()
        file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(file, line)
        finally:
            os.close(file)

    def new(self) -> list[dict[str, Any]]:
        """Objects that this and other processes have written since the last call."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(self._read)
            whole, newline, _ = file.read().rpartition(b"\n")
        self._read += len(whole) + len(newline)
        return [content for line in whole.splitlines() if (content := _parsed(line)) is not None]


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        content: dict[str, Any] = json.loads(line)
    except ValueError:
        return None
    return content
