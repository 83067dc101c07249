"""Files that are there as a whole or not at all, whenever the process or the machine stops."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

__all__ = ["check_folder", "strict", "write_durably", "write_json"]

UNFINISHED = ".unfinished"


class _Watched:
    """A file that remembers why a write failed, as torch tells another reason."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self._file.flush()


def write_durably(
    path: Path, write: Callable[[BinaryIO], object], *, temporary: Path | None = None
) -> None:
    """Write a file beside its place, make it durable, and only then put it there.

    A kill at any moment leaves what ``path`` was before, or the whole new file.

    Args:
        path: file to write; one that is there is replaced.
        write: is given the open file.
        temporary: file of the same folder to write first; None: ``path`` with ``.unfinished``.

    Raises:
        OSError: it cannot be written, such as on a full disk. The temporary file is gone then, and
            ``path`` as it was.
    """
    temporary = temporary or path.with_name(path.name + UNFINISHED)
    try:
        with temporary.open("wb", buffering=0) as file:
            watched = _Watched(file)
            try:
                write(watched)  # type: ignore[arg-type]
            except BaseException:
                if watched.error is not None:
                    raise watched.error from None
                raise
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make a new name in a folder durable, too."""
    if os.name == "nt":  # where a folder cannot be opened
        return
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def check_folder(folder: Path, what: str) -> None:
    """Make a folder, and see that files can be written there.

    Raises:
        PermissionError, NotADirectoryError, ...: an OSError that names the argument ``what``.
    """
    probe = folder / f".probe-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise type(error)(
            error.errno, f"{what} cannot be written ({error.strerror})", str(folder)
        ) from error


def strict(value: Any) -> Any:
    """JSON knows neither NaN nor infinity: null stands for both."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: strict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [strict(item) for item in value]
    return value


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write strict JSON, the whole file or nothing.

    Raises:
        OSError: it cannot be written.
    """
    text = json.dumps(strict(content), indent=2, allow_nan=False) + "\n"
    write_durably(path, lambda file: file.write(text.encode()))
