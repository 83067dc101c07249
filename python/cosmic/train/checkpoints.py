"""Checkpoints on the disk: each one file, written as a whole or not at all."""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from cosmic import _core
from cosmic.errors import first_line

from .errors import CheckpointError
from .files import UNFINISHED, check_folder, write_durably
from .locking import claim

__all__ = ["CHECKPOINT_FORMAT", "CheckpointFolder", "check_model", "copied", "read", "write"]

CHECKPOINT_FORMAT = 1  # to be raised when the meaning of the content changes
KIND = "cosmic.train"
_NAME = re.compile(r"step-(\d+)\.pt")
_LOADABLE = frozenset(
    {str, bytes, bool, int, float, type(None), torch.dtype, torch.device, torch.Size}
    | {Tensor, torch.nn.Parameter}
)


class _UnreadableError(CheckpointError):
    """The file is there, but not whole."""


def write(path: Path, content: Mapping[str, Any], *, temporary: Path | None = None) -> None:
    """Write a checkpoint; one of the same name is replaced when the new one is durable.

    Tensors are written as they lie, one after the other, those that share memory once: nothing is
    copied in memory.

    Raises:
        CheckpointError: a value is of a kind that is not loaded without running code, or the file
            cannot be written. What was at ``path`` is there still.
    """
    marked = {
        "kind": KIND, "format": CHECKPOINT_FORMAT, "cosmic": _core.__version__,
        "torch": str(torch.__version__), **_plain(content, ""),
    }  # fmt: skip
    try:
        write_durably(path, lambda file: torch.save(marked, file), temporary=temporary)
    except OSError as error:
        raise CheckpointError(
            f"checkpoint {path} cannot be written ({error.strerror or error}); what was there "
            "before is kept. The run stands at this step: make room and call save_checkpoint() or "
            "fit() again"
        ) from error


def read(path: Path) -> dict[str, Any]:
    """Read what ``write`` has written; tensors are mapped from the file, not copied.

    Raises:
        CheckpointError: there is no such file, it is not whole, no checkpoint of a run, or of
            another format than this release's.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except FileNotFoundError:
        raise CheckpointError(f"there is no checkpoint {path}") from None
    except UnpicklingError as error:
        raise _UnreadableError(
            f"checkpoint {path} cannot be read, or is not whole: it holds more than tensors, "
            "numbers and text, and is none that Trainer has written"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        if path.is_file() and not zipfile.is_zipfile(path):
            raise _UnreadableError(
                f"checkpoint {path} cannot be read, or is not whole: it is no file of torch.save"
            ) from error
        raise _UnreadableError(
            f"checkpoint {path} cannot be read, or is not whole: {first_line(error)}"
        ) from error
    if not isinstance(content, dict) or content.get("kind") != KIND or "format" not in content:
        raise CheckpointError(f"{path} is not a checkpoint that Trainer has written")
    if content["format"] != CHECKPOINT_FORMAT:
        raise CheckpointError(
            f"checkpoint {path} is of format {content['format']}, written by cosmic "
            f"{content['cosmic']}; cosmic {_core.__version__} reads format {CHECKPOINT_FORMAT}: "
            "go on with the release that has written it"
        )
    if (content["cosmic"], content["torch"]) != (_core.__version__, str(torch.__version__)):
        warnings.warn(
            f"checkpoint {path} was written with cosmic {content['cosmic']} and torch "
            f"{content['torch']}: the run goes on, but not to the same bits",
            stacklevel=3,
        )
    return content


class CheckpointFolder:
    """The checkpoints of one run, `step-00000500.pt` and so on.

    Args:
        folder: which need not exist.
        keep: how many stay; older ones are deleted when a newer one is durable.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self._keep = folder, keep
        self._broken: set[int] = set()  # steps whose file was found not to be whole

    def check(self) -> None:
        """See that files can be written there, and that no other process does.

        Raises:
            OSError: they cannot.
            CheckpointError: another process does.
        """
        check_folder(self.folder, "checkpoint_dir")
        claim(self.folder)

    def path_of(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}.pt"

    def steps(self) -> list[int]:
        """Steps that there are checkpoints of, in order."""
        if not self.folder.is_dir():
            return []
        found = (_NAME.fullmatch(path.name) for path in self.folder.iterdir())
        return sorted(int(match[1]) for match in found if match)

    def whole_steps(self) -> list[int]:
        """Those that were not found broken."""
        return [step for step in self.steps() if step not in self._broken]

    def save(self, step: int, content: Mapping[str, Any]) -> Path:
        """Write the checkpoint of a step, then delete those that are too old.

        Raises:
            CheckpointError: as ``write``. None is deleted then.
        """
        path = self.path_of(step)
        self.folder.mkdir(parents=True, exist_ok=True)
        claim(self.folder)
        # one name for all: what a kill leaves is overwritten by the next
        write(path, content, temporary=self.folder / UNFINISHED)
        self._broken.discard(step)
        older = [other for other in self.steps() if other <= step]
        for other in older[: -self._keep]:
            self.path_of(other).unlink(missing_ok=True)
        return path

    def latest(self) -> tuple[Path, dict[str, Any]] | None:
        """The newest checkpoint that can be read; None where there is none at all.

        Raises:
            CheckpointError: there are some, but none can be read.
        """
        steps = self.steps()
        for step in reversed(steps):
            path = self.path_of(step)
            try:
                return path, read(path)
            except _UnreadableError as error:
                self._broken.add(step)
                warnings.warn(f"{error}; the one before it is taken", stacklevel=3)
        if steps:
            raise CheckpointError(f"none of the {len(steps)} checkpoints in {self.folder} is whole")
        return None


def check_model(path: Path, saved: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """See that a checkpoint is of this model: entries of the same names, shapes and dtypes.

    Raises:
        CheckpointError: it names the first that differs.
    """

    def refuse(what: str) -> CheckpointError:
        return CheckpointError(f"checkpoint {path} is of another model: {what}")

    for name, value in own.items():
        if name not in saved:
            raise refuse(f"it has no {name}")
        for attribute in ("shape", "dtype"):
            had, has = (getattr(one, attribute, None) for one in (saved[name], value))
            if had != has:
                shown = tuple(had or ()) if attribute == "shape" else had
                wanted = tuple(has or ()) if attribute == "shape" else has
                raise refuse(f"{name} has {attribute} {shown} there and {wanted} here")
    if extra := [name for name in saved if name not in own]:
        raise refuse(f"it has {extra[0]}, which this one has not")


def copied(value: Any) -> Any:
    """The same with tensors in memory of their own, instead of the file's."""
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(copied(item) for item in value)
    return value


def _plain(value: Any, place: str) -> Any:
    """The same of types that torch loads with ``weights_only``; tensors are not copied."""
    if type(value) in _LOADABLE:
        return value
    if isinstance(value, Mapping):
        return {
            _plain(key, place): _plain(item, f"{place}[{key!r}]") for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        items = [_plain(item, f"{place}[{index}]") for index, item in enumerate(value)]
        return items if isinstance(value, list) else tuple(items)
    for kind in (str, int, float):  # their subclasses, such as numpy's
        if isinstance(value, kind):
            return kind(value)
    raise CheckpointError(
        f"a checkpoint cannot hold {place.lstrip('.')}, which is {type(value).__name__}; it holds "
        "tensors, numbers, text, and dicts, lists and tuples of these"
    )
