"""The rungs that a parameter may have: one where its group fixes it, a ladder under a budget."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch

from ..parts import HISTORY_RULES, RULES
from ..rungs import (
    MATRIX,
    Geometry,
    Rung,
    combinations,
    matrix_rungs,
    parse_matrix_dtype,
    parse_state_dtype,
    with_slow_average,
)
from ..state.gates import rule_read

__all__ = ["DEFAULT_MATRIX_DTYPE", "DEFAULT_STATE_DTYPE", "DEFAULT_TABLE_DTYPE", "OFF", "ladder_of"]

#: Codecs of full history that lose nothing against fp32 in training (docs/codecs.md). A table's
#: second moment is none of rows and columns: with it a small GPT-2 ends 0.03 higher with small
#: batches and 0.12 with large ones (docs/budget.md).
DEFAULT_STATE_DTYPE, DEFAULT_TABLE_DTYPE = "u4+factored", "u4+v4"
#: Full history that a budget chooses from where `state_dtype` leaves the choice, cheap to dear.
_HISTORIES = (
    "u1+factored", "u2+factored", "u4+factored", "u4+v4", "q8+factored", "q8+q8", "bf16+bf16",
    "fp32+fp32",
)  # fmt: skip
#: The value of `matrix_rule` that no policy overrules.
OFF = "off"
#: The first moment of a matrix that is stepped as a whole: measured (docs/matrix_rule.md).
DEFAULT_MATRIX_DTYPE = "m1"


def ladder_of(
    geometry: Geometry,
    dtype: torch.dtype,
    group: Mapping[str, Any],
    *,
    budgeted: bool,
    direction: Callable[[], str],
    is_matrix: bool,
    is_table: bool,
    label: str,
) -> tuple[Rung, ...]:
    """The rungs that a parameter may have, by price; one if nothing is left to choose.

    Without a budget the one that loses nothing: full history, or what comes nearest to it within
    the group's `max_tier`.

    Args:
        direction: ``"rowmean"`` or ``"colmean"``, asked for only where one of them is wanted.
        is_matrix: whether it is a hidden matrix, which the group's ``matrix_rule`` steps.
        is_table: whether it has a table's codecs where the group names none.
        label: for messages.

    Raises:
        ValueError: if the group's fixed rung is none for this parameter.
    """
    asked = str(group["rung"] or group["state_dtype"])
    wanted = _Wanted(
        group["rung"], group["tier"], group["min_tier"] or 0,
        2 if group["max_tier"] is None else group["max_tier"], group["state_dtype"],
        group["beta_slow"] is not None, group["min_compress_size"],
        direction() if "rowmean" in asked and geometry.matrix else "rowmean", budgeted,
        _variant_for(group),
        group["matrix_rule"] if is_matrix and geometry.sides else None,
        group["matrix_state_dtype"], DEFAULT_TABLE_DTYPE if is_table else DEFAULT_STATE_DTYPE,
    )  # fmt: skip
    try:
        return _ladder(geometry, dtype in (torch.float64, torch.complex128), wanted)
    except ValueError as error:
        raise ValueError(f"{label} is {dtype}; {error}") from None


class _Wanted(NamedTuple):
    """What a group asks for."""

    rung: str | None
    tier: int | None
    least: int  # tier
    most: int
    state_dtype: str | torch.dtype | None
    slow: bool
    min_compress_size: int | tuple[int, int]
    direction: str
    budgeted: bool
    variant: str  # of the rule of full history: its option's, or the one that its gate reads
    matrix_rule: str | None  # that steps the tensor as a whole
    matrix_state_dtype: str | torch.dtype | None
    default: str  # where state_dtype names no codecs

    def compressed(self, numel: int) -> tuple[bool, bool]:
        """Whether the first and the second moment of so many elements are."""
        size = self.min_compress_size
        least_m, least_v = size if isinstance(size, tuple) else (size, size)
        return numel >= least_m, numel >= least_v

    @property
    def no_momentum(self) -> bool:
        """Whether it asks for the rule of whole matrices without one."""
        return self.matrix_rule is not None and self.matrix_state_dtype == "none"


@functools.lru_cache(maxsize=4096)  # a model has few shapes
def _ladder(geometry: Geometry, double: bool, wanted: _Wanted) -> tuple[Rung, ...]:
    if wanted.rung is not None:
        return (_adapted(Rung.parse(wanted.rung), geometry, double, wanted),)
    if wanted.tier is not None:
        return (_of_tier(wanted.tier, geometry, double, wanted),)
    if not wanted.budgeted:
        if wanted.most == 1 and not double:
            return (_adapted(_best_without_momentum(wanted), geometry, double, wanted),)
        return (_of_tier(wanted.most, geometry, double, wanted),)
    if wanted.no_momentum and not double and wanted.most > 0:
        return (_whole(None, geometry, double, wanted),)  # a count: nothing is left to save
    every = _every_rung(geometry, double, wanted)
    rungs = dict.fromkeys(r for r in every if wanted.least <= r.tier <= wanted.most)
    return tuple(sorted(rungs, key=lambda rung: rung.nbytes(geometry)))


def _every_rung(geometry: Geometry, double: bool, wanted: _Wanted) -> Iterator[Rung]:
    """Compressed whatever the tensor's size, unless `state_dtype` says how: the budget knows what
    small tensors cost."""
    of_any_size = wanted._replace(min_compress_size=0)
    yield Rung(0)
    yield Rung(1)
    if not double:
        yield _adapted(Rung(1, v="factored"), geometry, double, of_any_size)
    if (wanted.matrix_rule is None and wanted.state_dtype is not None) or double:
        yield _of_tier(2, geometry, double, wanted)
        return
    if wanted.matrix_rule is not None:
        if wanted.matrix_state_dtype is not None:
            yield _whole(None, geometry, double, of_any_size)
            return
        for rung in matrix_rungs(wanted.matrix_rule):
            yield _whole(rung.m, geometry, double, of_any_size)
        return
    for history in _HISTORIES:
        m, v = parse_state_dtype(history)
        if (m, v) not in combinations(HISTORY_RULES[wanted.variant].name):
            continue  # too coarse for what the gate reads of the moments
        yield _adapted(Rung(2, m, v=v), geometry, double, of_any_size)


def _best_without_momentum(wanted: _Wanted) -> Rung:
    whole = (rung for rung in matrix_rungs(wanted.matrix_rule or "") if rung.m == "none")
    return next(whole, Rung(1, v="factored"))


def _of_tier(tier: int, geometry: Geometry, double: bool, wanted: _Wanted) -> Rung:
    whole = wanted.matrix_rule is not None and not double
    if tier < 2 and not (whole and tier == 1 and wanted.no_momentum):
        return Rung(tier)
    if whole:
        return _whole(None, geometry, double, wanted)
    m, v = parse_state_dtype(wanted.state_dtype or wanted.default)
    return _adapted(Rung(2, m, v=v), geometry, double, wanted)


def _adapted(rung: Rung, geometry: Geometry, double: bool, wanted: _Wanted) -> Rung:
    """The rung as this parameter can have it; where that is another one, ``tiers()`` shows it."""
    if rung.of_matrix:
        return _whole(rung.m, geometry, double, wanted._replace(matrix_rule=rung.variant))
    if rung.v == "none":
        return rung
    if double and rung.tier == 1:
        raise ValueError(
            f"rung {rung.name!r} needs float32 arithmetic: a parameter in float32, bfloat16 or "
            "float16"
        )
    if not double and rung.v == "fp64":
        raise ValueError(f"rung {rung.name!r} is of parameters in float64")
    m, v = rung.m, rung.v
    if double:
        m = v = "fp64"  # moments in the precision of the arithmetic
    else:
        keeps_m, keeps_v = wanted.compressed(geometry.numel)
        if rung.packed and not keeps_m and rung.tier == 2:
            m = "fp32"
        if rung.packed and not keeps_v:
            v = "fp32"
        elif v in MATRIX and geometry.matrix is None:
            # nothing to take rows and columns of
            known = combinations(HISTORY_RULES[rung.variant or wanted.variant].name)
            v = "v4" if rung.tier < 2 or (m, "v4") in known else "fp32"
        elif v == "rowmean":
            v = wanted.direction
    slow = "none" if rung.tier == 1 or not wanted.slow else m
    variant = (rung.variant or wanted.variant) if rung.tier == 2 else rung.variant
    if not double and rung.tier == 2:
        _check_combination(m, v, variant, slow != "none")
    return Rung(rung.tier, m, slow, v, variant)


def _whole(codec: str | None, geometry: Geometry, double: bool, wanted: _Wanted) -> Rung:
    """The rung of a matrix that is stepped as a whole."""
    rule = wanted.matrix_rule or ""
    asked = codec or parse_matrix_dtype(wanted.matrix_state_dtype or DEFAULT_MATRIX_DTYPE, rule)
    rung = Rung(1 if asked == "none" else 2, asked, variant=rule)
    if geometry.sides is None:
        raise ValueError(
            f"rung {rung.name!r} steps real matrices: tensors of two dimensions or more, with "
            f"elements, which this is not; matrix_rule={rule!r} gives it to matrices alone"
        )
    if double:
        raise ValueError(
            f"rung {rung.name!r} needs float32 arithmetic: a parameter in float32, bfloat16 or "
            "float16"
        )
    keeps, _ = wanted.compressed(geometry.numel)
    return rung if keeps or not rung.packed else Rung(2, "fp32", variant=rule)


def _check_combination(m: str, v: str, variant: str, slow: bool) -> None:
    rule = HISTORY_RULES[variant]
    if slow and not rule.slow:
        raise ValueError(
            f"rungs '+{variant}' have no slow average; expected 'beta_slow' None for them"
        )
    known = with_slow_average() if slow else combinations(rule.name)
    if (m, v) not in known:
        beside = f" with gate {rule.gate!r}" if rule.gate != "none" else ""
        beside += " with a slow average (beta_slow)" * slow
        raise ValueError(
            f"codecs {m}+{v}{beside} do not go together; supported are: "
            + ", ".join(f"{m}+{v}" for m, v in known)
        )


def _variant_for(group: Mapping[str, Any]) -> str:
    read = rule_read(group["gate"])
    return RULES[read].variant if read else str(group["rule"] or "")
