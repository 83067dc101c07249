"""The exceptions that the command line shows as a sentence, and checks that several rooms make."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec

__all__ = [
    "DisagreementError",
    "MissingPackagesError",
    "UsageError",
    "check_count",
    "first_line",
    "require_packages",
]


class UsageError(Exception):
    """Something that the user can mend. The message is one sentence and says how."""


class MissingPackagesError(UsageError, ImportError):
    """An optional package is needed and not installed. The message names it and its extra."""


class DisagreementError(UsageError):
    """Ranks differ in what they must share: options, model, codec, seed. Every rank raises it."""

    __module__ = "cosmic.distributed"  # where it can be imported from, for tracebacks and pickles


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


def check_count(name: str, value: object, least: int, below: int | None = None) -> int:
    """The value, if it is a whole number in its range.

    Args:
        name: of the argument, as messages have it.
        value: what was given.
        least: the first number of the range.
        below: the first number after it; none by default.

    Raises:
        TypeError: if it is no int.
        ValueError: if it is out of the range.
    """
    limit = "" if below is None else f" and below {below}"
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} is {value!r}; expected an int, {least} or more{limit}")
    if value < least or (below is not None and value >= below):
        raise ValueError(f"{name} is {value}; expected {least} or more{limit}")
    return value
