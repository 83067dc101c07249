"""Parameters by their places in the groups, and what messages call them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from .._core import UnsupportedTensorError
from .groups import Group, name_of, placed_params

__all__ = ["Member", "check_param", "listed", "members", "naming"]

_NAMED = 3  # parameters that a message names before it says how many more there are


@dataclass(frozen=True)
class Member:
    """A parameter's place in the optimizer."""

    index: int
    group: int
    param: Tensor
    name: str  # the user's, or the index as text
    label: str  # for messages

    @property
    def takes_gradients(self) -> bool:
        """Whether a gradient may come at the next step; a lazy module's parameter is made first."""
        return self.param.requires_grad and not is_lazy(self.param)


def members(groups: Sequence[Group]) -> Iterator[Member]:
    """Every parameter of the groups, in order.

    Raises:
        ValueError, TypeError: for what is no parameter, naming its place.
    """
    for index, (g, k, param) in enumerate(placed_params(groups)):
        name = name_of(groups[g], k)
        if name is None:
            place = f"parameter {index} (param_groups[{g}]['params'][{k}])"
            yield Member(index, g, param, str(index), place)
        else:
            yield Member(index, g, param, name, f"parameter {name!r}")


def check_param(param: Tensor, label: str) -> None:
    """Refuse at once what could never be stepped. A lazy module's parameter that is not made yet
    is looked at when it is.

    Raises:
        UnsupportedTensorError: naming the parameter.
    """
    if is_lazy(param):
        return
    if not (param.is_floating_point() or param.is_complex()):
        raise UnsupportedTensorError(
            f"{label} is {param.dtype}; expected a floating or complex dtype"
        )
    if param.layout != torch.strided or param.device.type != "cpu":
        raise UnsupportedTensorError(
            f"{label} has layout {param.layout} on device {param.device}; COSMIC steps dense "
            "(strided) tensors on the CPU"
        )
    if param.is_conj() or param.is_neg():
        raise UnsupportedTensorError(
            f"{label} is a lazily conjugated or negated view, whose memory holds other values; "
            "use its resolve_conj().resolve_neg()"
        )


@contextmanager
def naming(member: Member) -> Iterator[None]:
    """Errors of what is done within name the parameter."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise type(error)(f"{member.label}: {error}") from None


def listed(names: list[str]) -> str:
    """Names for a message: the first of them, and how many more there are."""
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
