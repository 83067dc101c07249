"""A step that is none: torch's checkpoint functions take one to have state made that they can load
into, with gradients of zero and a learning rate of zero."""

from __future__ import annotations

import struct

import torch
from torch import Tensor

from ..state.entries import holds, take_over
from ..state.groups import check_dicts, placed_params
from ..state.shards import local_of
from .planned import Planned
from .ranks import all_ranks

__all__ = ["asks_for_state", "make_state"]

_ZEROS = struct.pack("d", 0.0), struct.pack("d", -0.0)
#: By the bytes of a floating dtype, one that has its bits.
_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def asks_for_state(optimizer: Planned) -> bool:
    """Whether this step can only be meant to make state: there is none yet but what such a step has
    made, every learning rate is 0 and so is every element of every gradient, on all ranks."""
    if optimizer._compiled is not None or optimizer._steps:
        return False
    if any(holds(s) for p, s in optimizer.state.items() if p not in optimizer._provisional):
        return False
    check_dicts(optimizer.param_groups)
    if any(_is_not_zero(group.get("lr")) for group in optimizer.param_groups):
        return False
    found = [p.grad for _, _, p in placed_params(optimizer.param_groups) if p.grad is not None]
    return all_ranks(optimizer, bool(found) and not any(map(_is_not_zero, found)))


def make_state(optimizer: Planned) -> None:
    """Give every parameter with a gradient the state of a first step that is still to come.

    The first real step drops it again and decides anew, by what its gradients show.
    """
    optimizer._drop_provisional()
    for param, new in optimizer._compile().states.items():
        take_over(optimizer.state.setdefault(param, {}), new)
        optimizer._provisional[param] = "planned"


def _is_not_zero(number: object) -> bool:
    """Whether there is anything but zeros, or what is no number: the step itself refuses that."""
    if type(number) is float:
        return struct.pack("d", number) not in _ZEROS
    if not isinstance(number, Tensor):
        return type(number) is not int or number != 0
    here = local_of(number)
    return here.layout != torch.strided or here.device.type != "cpu" or _has_bits(here)


def _has_bits(tensor: Tensor) -> bool:
    """Whether an element is anything but 0.0 or -0.0. A comparison would take what is subnormal for
    zero in a thread that flushes it (`torch.set_flush_denormal`), where a step does not."""
    real = torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor
    if not real.is_floating_point():
        return bool(real.any())
    bits = real.resolve_neg().view(_INTEGERS[real.itemsize])
    return bool(bits.bitwise_left_shift(1).any())
