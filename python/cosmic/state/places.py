"""Where the elements of a parameter and of its packed state belong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .. import _core

__all__ = ["order_of", "place_of", "real_numel", "real_view", "walked_as"]


def real_view(tensor: Tensor) -> Tensor:
    """The tensor, or a complex one as pairs of real numbers."""
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def real_numel(param: Tensor) -> int:
    """Elements of a parameter; a complex one counts twice."""
    return 2 * param.numel() if param.is_complex() else param.numel()


def _walk_order(like: Tensor) -> tuple[int, ...] | None:
    return _core.walk_order(like.shape, like.stride(), "the parameter")


def place_of(param: Tensor) -> dict[str, Tensor]:
    """The entries that say where the codes of a packed state belong: the parameter's (real) shape,
    and the order in which its dimensions are walked where that is not the order of the indices."""
    like = real_view(param.detach())
    numbers = {"packed_shape": tuple(like.shape), "packed_order": _walk_order(like)}
    return {
        key: torch.tensor(found, dtype=torch.int64, device="cpu")
        for key, found in numbers.items()
        if found is not None
    }


def order_of(state: Mapping[str, Any]) -> tuple[int, ...] | None:
    """The order of dimensions in which a packed state is walked; None: that of the indices."""
    held = state.get("packed_order")
    return None if held is None else tuple(held.tolist())


def walked_as(param: Tensor, order: tuple[int, ...] | None) -> Tensor:
    """A stand-in for ``param``, walked in the order that its state was made in.

    Raises:
        ValueError: if that is no order of the parameter's dimensions.
    """
    like = real_view(param.detach())
    if order == _walk_order(like):
        return like
    long = [d for d, n in enumerate(like.shape) if n != 1]
    if order is not None and sorted(order) != long:
        raise ValueError(
            f"its state has packed_order {list(order)}; expected an order of dimensions {long}"
        )
    dims = list(order) if order is not None else [d for d, n in enumerate(like.shape) if n > 1]
    rest = [d for d in range(like.dim()) if d not in dims]
    walk = rest + dims
    back = [walk.index(d) for d in range(like.dim())]
    return torch.empty([like.shape[d] for d in walk], device="cpu").permute(back)
