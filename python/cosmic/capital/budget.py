"""Byte budgets."""

from __future__ import annotations

import operator
import re
from fractions import Fraction

__all__ = ["ADAMW_BYTES", "check_budget", "resolve_budget"]

#: State of torch.optim.AdamW for one real parameter element: two fp32 moments.
ADAMW_BYTES = 8

_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
_SIZE = re.compile(r"\s*([0-9]*\.?[0-9]+)\s*([A-Za-z]+)\s*")
_PERCENT = re.compile(r"\s*([0-9]*\.?[0-9]+)\s*%\s*")


def check_budget(budget: object) -> None:
    """Raise ValueError or TypeError unless ``budget`` has one of the forms of resolve_budget."""
    resolve_budget(budget, 0)


def resolve_budget(budget: object, numel: int) -> int | None:
    """The bytes that a budget allows.

    Args:
        budget: bytes as an int; a size such as ``"64MB"`` (powers of 10) or ``"64MiB"`` (powers
            of 2); a share such as ``"10%"`` of what the two fp32 moments of AdamW would take; or
            None for no limit.
        numel: real elements of all parameters that hold or are about to hold state.

    Returns:
        Bytes, rounded down, or None.
    """
    if budget is None:
        return None
    if not isinstance(budget, str):
        return _whole(budget)
    if match := _PERCENT.fullmatch(budget):
        return int(Fraction(match[1]) / 100 * ADAMW_BYTES * numel)
    if (match := _SIZE.fullmatch(budget)) and match[2].upper() in _UNITS:
        return int(Fraction(match[1]) * _UNITS[match[2].upper()])
    raise ValueError(
        f"budget is {budget!r}; expected a size such as '64MB' or '512KiB' (units: B, KB, MB, "
        "GB, TB, KiB, MiB, GiB, TiB) or a share such as '10%'"
    )


def _whole(budget: object) -> int:
    try:
        if isinstance(budget, bool):
            raise TypeError
        nbytes = operator.index(budget)  # type: ignore[arg-type]  # raises what is caught
    except TypeError:
        raise TypeError(
            f"budget is {budget!r}; expected an int of bytes, a string such as '64MB' or '10%', "
            "or None"
        ) from None
    if nbytes < 0:
        raise ValueError(f"budget is {nbytes} bytes; expected 0 or more")
    return nbytes
