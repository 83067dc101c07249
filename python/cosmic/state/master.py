"""Parameters in bfloat16 with eight bits more each: a group's option ``master_bits``."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import _core
from .entries import MASTER, State, entries_of
from .groups import Group
from .members import Member, parts_of
from .shards import as_shard, local_of

__all__ = ["check_has_master", "check_master_bits", "has_master", "master_weight"]

_BITS = 24  # of sign, exponent and the upper half of the mantissa


def check_master_bits(group: Group, where: str) -> None:
    """Raise ValueError unless a group's ``master_bits`` has one of its values."""
    bits = group["master_bits"]
    if bits is not None and (type(bits) is not int or bits != _BITS):
        raise ValueError(f"{where}['master_bits'] is {bits!r}; expected None or {_BITS}")


def check_has_master(group: Group, index: int) -> None:
    """Raise ValueError for a group that asks for more bits of parameters in bfloat16 and has none:
    it would train without them."""
    if group["master_bits"] is None:
        return
    params = group["params"]
    if any(p.dtype == torch.bfloat16 for p in params):
        return
    dtypes = ", ".join(sorted({str(p.dtype) for p in params})) or "none"
    raise ValueError(
        f"param_groups[{index}] has master_bits {group['master_bits']}, which adds to parameters "
        f"in bfloat16, and parameters of dtype {dtypes}; cast them to torch.bfloat16 before the "
        "optimizer is made, or give master_bits=None"
    )


def has_master(param: Tensor, group: Group) -> bool:
    """Whether a parameter of this group has more bits in its state."""
    return group["master_bits"] is not None and param.dtype == torch.bfloat16


def master_weight(member: Member, state: State, group: Group) -> Tensor:
    """A parameter's value with all bits that there are, as a float32 tensor of its shape, a DTensor
    if it is one; of other dtypes and before the first step the parameter itself, cast. Float64
    stays float64."""
    param = local_of(member.param).detach()
    wide = param.to(torch.promote_types(param.dtype, torch.float32), copy=True)
    for row in parts_of(member, group):
        low = entries_of(state, row.prefix).get(MASTER)
        if low is None or param.dtype != torch.bfloat16:
            continue
        to = wide if row.part_here is None else wide.narrow(*row.part_here)
        _core.join_master(row.tensor.detach(), low, to)
    return as_shard(member.param, wide)
