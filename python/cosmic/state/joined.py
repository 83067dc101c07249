"""Moments of a parameter as a whole, whatever parts it is stepped in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..moments import Moments
from .entries import State, entries_of, foreign, holds, own, prefixed, rung_of
from .groups import Group
from .members import Member, naming, parts_of
from .moments import kept_moments, read, written
from .places import real_view
from .shards import as_shard, is_sharded, local_of

__all__ = ["in_parts", "read_whole", "write_whole", "zeroed_rows"]

_NAMES = ("exp_avg", "exp_avg_sq", "exp_avg_slow")


def read_whole(member: Member, state: State, group: Group) -> Moments:
    """What a parameter's state holds, as ``moments.read``.

    Of a DTensor they are DTensors that lie as it does.

    Of parts the moments are joined in the parameter's shape, None where one of them keeps none,
    with the largest of their counts. Those of a part that has counted less are scaled, so that
    AdamW's correction by that count makes the same of them.

    Raises:
        ValueError: naming the parameter or the part, as of ``moments.read``.
    """
    moments = _read_here(member, state, group)
    m, v, slow = (
        None if tensor is None else as_shard(member.param, tensor)
        for tensor in (getattr(moments, name) for name in _NAMES)
    )
    return Moments(m, v, slow, moments.step)


def _read_here(member: Member, state: State, group: Group) -> Moments:
    rows = parts_of(member, group)
    found = [_read(row, state, group) for row in rows]
    if rows[0].part is None:
        return found[0]
    step = max(moments.step for moments in found)
    scaled = [
        _counted_as(step, moments, entries_of(state, row.prefix), group)
        for row, moments in zip(rows, found, strict=True)
    ]
    joined = {}
    for name in _NAMES:
        parts = [getattr(moments, name) for moments in scaled]
        kept = all(part is not None for part in parts)
        joined[name] = torch.cat(parts, rows[0].part.dimension) if kept else None
    return Moments(**joined, step=step)


def _read(row: Member, state: State, group: Group) -> Moments:
    with naming(row):
        return read(row.tensor, entries_of(state, row.prefix), group, row.param, row.shard)


def _counted_as(step: int, moments: Moments, state: State, group: Group) -> Moments:
    """Averages of fewer steps as AdamW would have them after ``step``."""
    if moments.step in (0, step) or rung_of(state).of_matrix:  # nothing yet, or no correction
        return moments
    beta1, beta2 = (float(beta) for beta in group["betas"])
    m, v = moments.exp_avg, moments.exp_avg_sq
    return moments._replace(
        exp_avg=None if m is None else m * ((1 - beta1**step) / (1 - beta1**moments.step)),
        exp_avg_sq=None if v is None else v * ((1 - beta2**step) / (1 - beta2**moments.step)),
        step=step,
    )


def write_whole(
    member: Member,
    state: State,
    group: Group,
    given: Mapping[str, Tensor | float | None],
    *,
    step: int | None,
    rows: Tensor | None,
    seed: int,
) -> State:
    """A state's own entries with some moments in the place of what it held, as
    ``moments.written``: of a parameter in parts each has its share of what is given.

    Of a DTensor, moments are DTensors that lie as it does, or numbers, and rows are of the whole.

    Raises:
        ValueError: naming the parameter or the part, as of ``moments.written``. Nothing has changed
            then.
    """
    with naming(member):
        given = {key: _value_here(value, key, member, rows) for key, value in given.items()}
        rows = _rows_here(member, rows)
    parts = parts_of(member, group)
    if parts[0].part is None:
        with naming(member):
            return written(
                member.tensor, state, group, given, step=step, rows=rows, index=member.index,
                seed=seed, whole=member.param, shard=member.shard,
            )  # fmt: skip
    with naming(member):
        tensors = {key: _whole(value, key, member, rows) for key, value in given.items()}
    count = max(_read(part, state, group).step for part in parts)
    out: State = {}
    for part in parts:
        share = {key: _share(value, part, rows) for key, value in tensors.items()}
        held = _copied(entries_of(state, part.prefix))
        with naming(part):
            new = _written(part, held, group, share, step, _rows_in(part, rows), count, seed)
        out.update(prefixed(new, part.prefix))
    return out


def _value_here(
    value: Tensor | float | None, name: str, member: Member, rows: Tensor | None
) -> Tensor | float | None:
    """What is given of the shard that is here."""
    if not isinstance(value, Tensor) or value.dim() == 0:
        return value
    param: Any = member.param
    if not is_sharded(param):
        if is_sharded(value):
            raise ValueError(f"{name} is a DTensor, the parameter is not; expected a plain tensor")
        return value
    if rows is not None:
        raise ValueError(f"{name} is a tensor; of rows of a DTensor only a number can be given")
    other: Any = value
    same = is_sharded(value) and value.shape == param.shape
    if not same or (other.device_mesh, other.placements) != (param.device_mesh, param.placements):
        raise ValueError(
            f"{name} is {'a DTensor placed otherwise' if same else 'none of its shape'}; expected "
            f"one number or a DTensor of shape {tuple(param.shape)} with the parameter's mesh and "
            f"placements {param.placements}, such as optimizer.moments() gives"
        )
    return local_of(value)


def _rows_here(member: Member, rows: Tensor | None) -> Tensor | None:
    """Rows of the whole parameter that its shard has, counted from the shard's first one."""
    if rows is None or member.shard is None:
        return rows
    first, count = member.shard.start[0], member.shard.local[0]
    return rows[(rows >= first) & (rows < first + count)] - first


def zeroed_rows(member: Member, state: State, group: Group, rows: Tensor, seed: int) -> State:
    """A state's own entries with the moments of some rows at zero."""
    out: State = {}
    here = _rows_here(member, rows)
    for part in parts_of(member, group):
        held = entries_of(state, part.prefix)
        zeros = dict.fromkeys(kept_moments(held), 0.0)
        with naming(part):
            new = written(
                part.tensor, held, group, zeros, step=None, rows=_rows_in(part, here),
                index=part.index, seed=seed, whole=part.param, shard=part.shard,
            ) if zeros else own(held)  # fmt: skip
        out.update(prefixed(new, part.prefix))
    return out


def in_parts(member: Member, state: State, group: Group) -> State:
    """A state of plain moments, as another optimizer's checkpoint gives it, in its group's parts.

    Raises:
        ValueError: for a moment that has another shape than the parameter, and for a DTensor in
            parts.
    """
    parts = parts_of(member, group)
    if parts[0].part is None or not holds(state):
        return state
    if is_sharded(member.param):
        raise ValueError(
            f"{member.label} is a DTensor in parts, and another optimizer's state is of no parts; "
            "load it without option 'parts'"
        )
    shape = real_view(member.tensor.detach()).shape
    out = foreign(state)
    moments = {key: value for key, value in own(state).items() if key in _NAMES}
    for key, value in moments.items():
        if value.shape != shape:
            raise ValueError(
                f"{member.label}: its state has {key} of shape {tuple(value.shape)}; expected "
                f"{tuple(shape)}"
            )
    for part in parts:
        assert part.part is not None
        share = {**own(state), **{key: _share(value, part, None) for key, value in moments.items()}}
        out.update(prefixed(share, part.prefix))
    return out


def _written(
    part: Member,
    held: State,
    group: Group,
    share: dict[str, Tensor | None],
    step: int | None,
    rows: Tensor | None,
    count: int,
    seed: int,
) -> State:
    """One part's entries; where it has counted less than others, all its moments as of their
    count."""
    before = read(part.tensor, held, group, part.param, part.shard)
    given = {key: value for key, value in share.items() if value is not None}
    if given and rows is not None and not len(rows):
        given = {}
    if given and before.step not in (0, count):
        scaled = _counted_as(count, before, held, group)
        for key in kept_moments(held):
            whole = getattr(scaled, key)
            if key in given:
                whole = whole.clone()
                whole[... if rows is None else rows] = given[key]
            given[key] = whole
        rows, step = None, count if step is None else step
    return written(
        part.tensor,
        held,
        group,
        given,
        step=step,
        rows=rows,
        index=part.index,
        seed=seed,
        whole=part.param,
        shard=part.shard,
    )


def _whole(
    value: Tensor | float | None, name: str, member: Member, rows: Tensor | None
) -> Tensor | None:
    """What is given as a tensor: one number, or of the shape of the parameter or of its rows."""
    if value is None:
        return None
    tensor = torch.as_tensor(value, device="cpu").detach()
    shape = tuple(member.tensor.shape)
    wanted = shape if rows is None else (len(rows), *shape[1:])
    if tensor.dim() and tuple(tensor.shape) != wanted:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}; expected {wanted} or one number")
    return tensor


def _share(value: Tensor | None, member: Member, rows: Tensor | None) -> Tensor | None:
    """What of it is a part's."""
    part = member.part_here
    if value is None or value.dim() == 0 or part is None:
        return value
    if rows is None or part[0] > 0:
        return value.narrow(*part)
    return value[_inside(member, rows)]


def _inside(member: Member, rows: Tensor) -> Tensor:
    assert member.part_here is not None
    _, start, size = member.part_here
    return (rows >= start) & (rows < start + size)


def _rows_in(member: Member, rows: Tensor | None) -> Tensor | None:
    """Rows of the parameter that are a part's, counted from its first one."""
    part = member.part_here
    if rows is None or part is None or part[0] > 0:
        return rows
    return rows[_inside(member, rows)] - part[1]


def _copied(state: State) -> State:
    return {k: v.detach().clone() if isinstance(v, Tensor) else v for k, v in state.items()}
