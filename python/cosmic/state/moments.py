"""Moments as numbers: read out of a state whatever its codecs, and written into it."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor

from .. import _core
from ..moments import Moments
from ..parts import CODECS
from ..rungs import Rung
from .building import decoded_moments, encode, rebuilt, recentered
from .checks import checked
from .entries import State, holds, own, rung_of
from .groups import Group
from .places import order_of, real_view
from .shards import Shard

__all__ = ["Rows", "kept_moments", "read", "selected", "written"]

#: A selection along a parameter's first dimension.
Rows: TypeAlias = int | slice | Iterable[int] | Tensor
_NAMES = ("exp_avg", "exp_avg_sq", "exp_avg_slow")
_MOST, _MOST_SQUARE = 2.0**126, 2.0**96  # sums by rows and columns leave out more


def read(
    param: Tensor,
    state: State,
    group: Group,
    whole: Tensor | None = None,
    shard: Shard | None = None,
) -> Moments:
    """What a state holds, decoded into tensors of their own: float32, or float64 where the
    arithmetic is; complex where the parameter is.

    Args:
        whole: the parameter that ``param`` is a part of, or the shard that is here, if it is one.
        shard: which part of a larger tensor ``param`` is.

    Raises:
        ValueError: if the state does not fit the parameter, and for a codec such as ``costate``,
            whose first moment is a multiple of the next gradient.
    """
    held = checked(param, own(state), whole, shard) if holds(state) else {}
    if not held:
        return Moments(None, None, None, 0)
    rung = rung_of(held)
    if rung.m != "none" and CODECS[rung.m].of_next_gradient:
        raise ValueError(
            f"it keeps its first moment as a multiple of the next gradient ({rung.m}), which is "
            "not known yet"
        )
    found = _real_moments(param, held, group, shard) if rung.slots else {}
    step = int(held["step"]) if "step" in held else 0
    m, v, slow = (_as_param(param, found.get(name)) for name in _NAMES)
    return Moments(m, v, slow, step)


def _real_moments(
    param: Tensor, held: State, group: Group, shard: Shard | None
) -> dict[str, Tensor]:
    decoded = decoded_moments(param, held, group, shard)
    moments = {name: value.clone() for name, value in decoded.items()}
    if rung_of(held).centered:
        moments["exp_avg_sq"] = recentered(moments, held, group, 1)
    if "exp_avg" in moments:
        moments["exp_avg"] *= _correction(held, group)
    return moments


def _as_param(param: Tensor, moment: Tensor | None) -> Tensor | None:
    if moment is None or not param.is_complex():
        return moment
    return torch.view_as_complex(moment.contiguous())


def _correction(held: State, group: Group) -> float:
    """What a first moment that started in mid-run is multiplied with, so that AdamW, which corrects
    its bias by the count of all steps, makes the same of it."""
    step, start = int(held["step"]), held.get("exp_avg_start", 0)
    if start in (0, step) or rung_of(held).of_matrix:  # all steps, nothing yet, or no correction
        return 1.0
    beta1 = float(group["betas"][0])
    return float((1.0 - beta1**step) / (1.0 - beta1 ** (step - start)))


def written(
    param: Tensor,
    state: State,
    group: Group,
    given: Mapping[str, Tensor | float | None],
    *,
    step: int | None,
    rows: Tensor | None,
    index: int,
    seed: int,
    whole: Tensor | None = None,
    shard: Shard | None = None,
) -> State:
    """A state's own entries with some moments in the place of what it held.

    Tensors that it holds are written in place. Codes of blocks in which nothing was given stay.

    Args:
        rows: indices along the first dimension, as from ``selected``; None: all.
        whole: the parameter that ``param`` is a part of, or the shard that is here, if it is one.
        shard: which part of a larger tensor ``param`` is.

    Raises:
        ValueError: for a moment that the rung does not keep, has another shape or is not finite, a
            negative second moment, and a step below 0. Nothing has changed then.
    """
    rung, before = rung_of(state), read(param, state, group, whole, shard)
    moments = {}
    for name in _NAMES:
        old = getattr(before, name)
        moments[name] = _merged(rung, name, old, given.get(name), rows)
    count = _counted(rung, before.step, step)
    new = rebuilt(param, checked(param, own(state), whole, shard), group, index, seed, shard)
    if count is not None:
        new["step"].fill_(count)
    real = {name: real_view(value) for name, value in moments.items() if value is not None}
    if real:
        new.pop("exp_avg_start", None)  # what was read has all steps' correction
        if rung.centered:
            real["exp_avg_sq"] = recentered(real, new, group, -1)
        _put(param, rung, new, real, group, rows, index, seed, shard)
    return new


def kept_moments(state: State) -> tuple[str, ...]:
    """Names of the moments that a state keeps."""
    rung = rung_of(state)
    return tuple("exp_avg_sq" if slot == rung.second else slot for slot in rung.slots)


def _counted(rung: Rung, before: int, step: int | None) -> int | None:
    if step is None:
        return before if "step" in rung.scalars else None
    if type(step) is not int or not 0 <= step < 2**62:
        raise ValueError(f"step is {step!r}; expected an int >= 0, below 2**62")
    if "step" not in rung.scalars:
        raise ValueError(f"step is {step}; it is on {rung.name}, which keeps no step")
    return step


def _merged(
    rung: Rung,
    name: str,
    old: Tensor | None,
    given: Tensor | float | None,
    rows: Tensor | None,
) -> Tensor | None:
    if given is None:
        return old
    if old is None:
        raise ValueError(
            f"{name} is given, but it is on {rung.name}, which keeps none; fix a rung that does "
            "(group options rung, tier, min_tier), or leave it out"
        )
    wanted = old if rows is None else old[rows]
    value = _as_moment(given, name, old)
    if value.dim() and value.shape != wanted.shape:
        raise ValueError(
            f"{name} has shape {tuple(value.shape)}; expected {tuple(wanted.shape)} or one number"
        )
    _check_range(value, name)
    if rows is None:
        return value.expand(wanted.shape).clone()
    out = old.clone()
    out[rows] = value
    return out


def _as_moment(given: Tensor | float, name: str, old: Tensor) -> Tensor:
    """What is given in the moment's dtype; one real number of a square is of both parts."""
    value = torch.as_tensor(given, device="cpu").detach()
    if value.is_complex() and not old.is_complex():
        raise ValueError(f"{name} is complex; its parameter is real")
    if name == "exp_avg_sq" and old.is_complex() and not value.is_complex():
        value = torch.complex(value.to(old.real.dtype), value.to(old.real.dtype))
    return value.to(old.dtype)


def _check_range(value: Tensor, name: str) -> None:
    """Codecs keep what is finite, squares that are no less than 0, and neither at float32's end."""
    real = real_view(value)
    most = _MOST_SQUARE if name == "exp_avg_sq" else _MOST
    if real.dtype != torch.float64 and (real.abs() >= most).any() and real.isfinite().all():
        raise ValueError(f"{name} has {float(real.abs().max())!r}; expected less than {most}")
    if not real.isfinite().all():
        raise ValueError(f"{name} is not finite everywhere")
    if name == "exp_avg_sq" and (real < 0).any():
        raise ValueError("exp_avg_sq is negative somewhere; it is an average of squares")


def selected(param: Tensor, rows: Rows) -> Tensor:
    """Indices along a parameter's first dimension.

    Raises:
        ValueError: for rows that it does not have, or that are none.
    """
    if param.dim() == 0:
        raise ValueError(f"rows is {rows!r}, but the parameter has no dimensions")
    every = torch.arange(param.shape[0], device="cpu")
    try:
        return every[_index(rows)].reshape(-1)
    except (IndexError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"rows is {rows!r}; expected an index, a slice, indices or a mask of the first "
            f"dimension, which has {param.shape[0]}: {error}"
        ) from None


def _index(rows: Any) -> slice | Tensor:
    if isinstance(rows, bool):
        raise TypeError("one bool is no mask")
    if isinstance(rows, slice):
        return rows
    if isinstance(rows, Tensor):
        found = rows.detach().cpu()
    elif isinstance(rows, Iterable):
        listed = list(rows)
        found = torch.tensor(listed, dtype=None if listed else torch.int64, device="cpu")
    else:
        found = torch.tensor(operator.index(rows), device="cpu")
    whole = not found.is_floating_point() and not found.is_complex()
    if not whole or (found.dtype == torch.bool and found.dim() != 1):
        raise TypeError("an index is a whole number, a mask has one bool a row")
    return found


def _put(
    param: Tensor,
    rung: Rung,
    new: State,
    moments: dict[str, Tensor],
    group: Group,
    rows: Tensor | None,
    index: int,
    seed: int,
    shard: Shard | None,
) -> None:
    if not rung.packed:
        for name, value in moments.items():
            new[rung.second if name == "exp_avg_sq" else name].copy_(value)
        return
    # Numbers that a codec keeps of a whole tensor change what all its codes mean.
    of_tensor = rung.m != "none" and CODECS[rung.m].numbers is not None
    kept = {} if rows is None or of_tensor else _by_block(param, rung, new)
    before = {key: planes.clone() for key, planes in kept.items()}
    encode(param, rung, new, moments, group, index, seed, shard)
    if before and rows is not None:
        untouched = ~_touched(param, new, rows)
        for key, planes in kept.items():
            planes[untouched] = before[key][untouched]


def _by_block(param: Tensor, rung: Rung, new: State) -> dict[str, Tensor]:
    """Planes of codes, scales and the like as views of one row a block."""
    blocks = -(-real_view(param.detach()).numel() // _core.BLOCK)
    return {
        key: new[key].view(blocks, -1)
        for slot, codec in rung.slots.items()
        for key in new
        if key.startswith(f"{slot}_{codec}_") and new[key].dim() == 1 and blocks
    }


def _touched(param: Tensor, new: State, rows: Tensor) -> Tensor:
    """Blocks in which a selection of rows has an element."""
    shape = real_view(param.detach()).shape
    marks = torch.zeros(shape, dtype=torch.bool, device="cpu")
    marks[rows] = True
    order = order_of(new)
    if order is not None:
        marks = marks.permute([d for d in range(len(shape)) if d not in order] + list(order))
    flat = marks.reshape(-1)
    padded = torch.nn.functional.pad(flat, (0, -flat.numel() % _core.BLOCK))
    return padded.view(-1, _core.BLOCK).any(dim=1)
