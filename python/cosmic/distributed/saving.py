"""Checks of what was saved of a CompressionState."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import UsageError

__all__ = ["check_saved", "kept_by_name"]


def check_saved(saved: Mapping[str, Any], expected: Mapping[str, object]) -> None:
    """See that a state was saved where it is loaded.

    Raises:
        UsageError: naming the first value that differs.
    """
    missing = [name for name in (*expected, "step", "bytes", "residuals") if name not in saved]
    if missing:
        raise UsageError(f"this is no saved CompressionState: it has no {', '.join(missing)}")
    for name, value in expected.items():
        if saved[name] != value:
            raise UsageError(
                f"saved with {name} {saved[name]!r}, to be loaded with {value!r}. Residuals belong "
                "to one rank of a fixed number of ranks, and go on with the settings that they "
                "were made with; to change these, begin with a new state"
            )


def kept_by_name(
    saved: Mapping[str, Any], sizes: Mapping[str, int], dtype: torch.dtype | None
) -> dict[str, Tensor]:
    """The saved residuals.

    Args:
        saved: a state that belongs here.
        sizes: elements of the model's parameters, by name.
        dtype: of residuals; None: there are none.

    Raises:
        UsageError: naming the first that does not fit.
    """
    residuals = dict(saved["residuals"])
    for name, residual in residuals.items():
        if name not in sizes:
            raise UsageError(f"a residual of {name!r} was saved, which this model has not")
        if residual.dtype != dtype or residual.shape != (sizes[name],):
            raise UsageError(
                f"the residual of {name!r} was saved as {residual.dtype} of {residual.numel()} "
                f"elements; expected {dtype} of {sizes[name]}"
            )
    return residuals
