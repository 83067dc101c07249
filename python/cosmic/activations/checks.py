"""Checks of the arguments that several parts take."""

from __future__ import annotations

__all__ = ["check_min_numel", "check_number", "check_seed"]


def check_number(name: str, value: object, least: int) -> int:
    """The value, if it is a whole number from ``least`` on.

    Raises:
        TypeError: if it is no int.
        ValueError: if it is less.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} is {value!r}; expected an int")
    if value < least:
        raise ValueError(f"{name} is {value}; expected {least} or more")
    return value


def check_min_numel(value: object) -> int:
    """The value, if it is a number of elements."""
    return check_number("min_numel", value, 0)


def check_seed(value: object) -> int:
    """The value, if it is a seed of random bits."""
    seed = check_number("seed", value, 0)
    if seed >= 2**64:
        raise ValueError(f"seed is {seed}; expected an int from 0 to 2**64 - 1")
    return seed
