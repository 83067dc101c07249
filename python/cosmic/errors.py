"""The exceptions that the command line shows as a sentence instead of a stack trace."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec

__all__ = ["MissingPackagesError", "UsageError", "first_line", "require_packages"]


class UsageError(Exception):
    """Something that the user can mend. The message is one sentence and says how."""


class MissingPackagesError(UsageError, ImportError):
    """An optional package is needed and not installed. The message names it and its extra."""


def first_line(error: Exception) -> str:
    """What another library's error says, short enough to be part of a sentence."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(". ")


def require_packages(who: str, packages: Iterable[str], extra: str) -> None:
    """Refuse to go on without some packages.

    Args:
        who: what needs them, as the sentence names it.
        packages: names of modules.
        extra: of this package, that brings them.

    Raises:
        MissingPackagesError: naming each that is not installed.
    """
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise MissingPackagesError(
            f"{who} needs {', '.join(missing)}: pip install 'cosmic-optim[{extra}]'"
        )
