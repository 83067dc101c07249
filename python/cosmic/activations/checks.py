"""Checks of the arguments that several parts take."""

from __future__ import annotations

from ..errors import check_count

__all__ = ["check_min_numel", "check_seed"]


def check_min_numel(value: object) -> int:
    """The value, if it is a number of elements."""
    return check_count("min_numel", value, 0)


def check_seed(value: object) -> int:
    """The value, if it is a seed of random bits."""
    return check_count("seed", value, 0, below=2**64)
