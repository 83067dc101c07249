"""Parameter groups as text: what was found, and what options they have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from torch import Tensor

from ..state.members import listed
from ..state.roles import Kind
from .tag_words import TAGS

__all__ = ["found_table", "summary"]

_SORTS = ("tag", "index", "n_params")
_NUMBERS = ("lr", "weight_decay", "lr_scale", "lr * lr_scale")
#: What stands for an option that is not the group's own: the optimizer's holds.
_NONE = "-"
_NOTE = "Cosmic steps with lr * lr_scale; other optimizers step with lr."
Group = Mapping[str, Any]


def found_table(groups: Sequence[Group]) -> str:
    """A line a group: its role, or its tag and role, its tensors, their elements, the options that
    it has by its tag, and the names of some."""
    tagged = any("tag" in group for group in groups)
    columns = (["tag"] if tagged else []) + ["role", "tensors", "elements"]
    rows = [[*columns, *(["options"] if tagged else []), "such as"]]
    for group in groups:
        parts = _parts(group.get("parts"))
        counts = [str(len(group["params"])), f"{_elements(group):,}"]
        names = listed(list(group["param_names"]))
        row = [str(group.get("role") or _NONE) + parts, *counts]
        rows.append([_tag(group), *row, _options(group), names] if tagged else [*row, names])
    return _aligned(rows, right=(len(columns) - 2, len(columns) - 1))


def summary(groups: Sequence[Group], precision: int, sort_by: str) -> str:
    """The table of ``ParamGroups.summary``."""
    if sort_by not in _SORTS:
        raise ValueError(f"sort_by is {sort_by!r}; expected one of {', '.join(map(repr, _SORTS))}")
    if type(precision) is not int or precision < 1:
        raise ValueError(f"precision is {precision!r}; expected an int >= 1")
    order = list(range(len(groups)))
    if sort_by == "tag":
        order.sort(key=lambda k: _rank(groups[k]))
    elif sort_by == "n_params":
        order.sort(key=lambda k: -_elements(groups[k]))
    total = sum(map(_elements, groups))
    head = ["tensors", "elements", "share", *_NUMBERS]
    rows = [["index", "tag", *head]]
    rows += [[str(k), _tag(groups[k]), *_row([groups[k]], total, precision)] for k in order]
    rows.append(["total", "", *_row(groups, total, precision)[:3]])
    text = _aligned(rows, right=range(2, len(rows[0])))
    by_tag: dict[str, list[Group]] = {}
    for k in order:
        by_tag.setdefault(_tag(groups[k]), []).append(groups[k])
    if len(by_tag) < len(groups):
        rows = [["tag", "groups", *head]]
        for tag, some in by_tag.items():
            rows.append([tag, str(len(some)), *_row(some, total, precision)])
        text += "\n\n" + _aligned(rows, right=range(1, len(rows[0])))
    return text if all(map(_is_stepped_so, groups)) else f"{text}\n\n{_NOTE}"


def _is_stepped_so(group: Group) -> bool:
    """Whether ``lr * lr_scale`` is the rate for sure: Cosmic's groups, which alone have a rung, are
    stepped with it, and those without a factor."""
    return "rung" in group or group.get("lr_scale") is None or group.get("lr") is None


def _rank(group: Group) -> tuple[bool, int]:
    """A group's place by its tag; by its role, below these, where it has none."""
    known: tuple[str, ...] = TAGS if group.get("tag") else get_args(Kind)
    word = _tag(group)
    return not group.get("tag"), known.index(word) if word in known else len(known)


def _row(groups: Sequence[Group], total: int, precision: int) -> list[str]:
    """Tensors, elements, their share of all, and the range of each number."""
    elements = sum(map(_elements, groups))
    share = f"{elements / total:.1%}" if total else _NONE
    numbers = [_range([_number(g, name) for g in groups], precision) for name in _NUMBERS]
    return [str(sum(len(g["params"]) for g in groups)), f"{elements:,}", share, *numbers]


def _number(group: Group, name: str) -> Any:
    """An option's number, numbers by part or role, or None where the group has none."""
    if name != "lr * lr_scale":
        value = group.get(name)
        return float(value) if isinstance(value, Tensor) else value
    lr, scale = _number(group, "lr"), _number(group, "lr_scale")
    if lr is None:
        return None
    if isinstance(scale, Mapping):
        return {part: lr * factor for part, factor in scale.items()}
    return lr * (1.0 if scale is None else scale)


def _range(values: Sequence[Any], precision: int) -> str:
    if all(isinstance(value, int | float) for value in values):
        ends = [f"{end:.{precision}g}" for end in (min(values), max(values))]
        return ends[0] if ends[0] == ends[1] else " to ".join(ends)
    shown = dict.fromkeys(_shown(value, precision) for value in values)
    return ", ".join(shown)


def _shown(value: Any, precision: int) -> str:
    if isinstance(value, Mapping):
        return " ".join(f"{part}:{factor:.{precision}g}" for part, factor in value.items())
    return _NONE if value is None else f"{value:.{precision}g}"


def _parts(parts: Any) -> str:
    """How many parts each tensor has, where all of the group have as many."""
    if parts is None or isinstance(parts, Mapping):
        return " in parts by name" if parts else ""
    return f" of {parts[1] if isinstance(parts[1], int) else len(parts[1])} parts"


def _options(group: Group) -> str:
    """What a group says beside what was found."""
    found = ("params", "param_names", "tag", "role", "parts")
    return ", ".join(f"{o} {_word(v)}" for o, v in group.items() if o not in found) or _NONE


def _word(value: Any) -> str:
    if isinstance(value, Mapping):
        return _shown(value, 4)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _tag(group: Group) -> str:
    return str(group.get("tag") or group.get("role") or _NONE)


def _elements(group: Group) -> int:
    return sum(param.numel() for param in group["params"])


def _aligned(rows: Sequence[Sequence[str]], right: Sequence[int]) -> str:
    widths = [max(len(row[k]) for row in rows if k < len(row)) for k in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            f"{cell:>{width}}" if k in right else f"{cell:<{width}}"
            for k, (cell, width) in enumerate(zip(row, widths, strict=False))
        ).rstrip()
        for row in rows
    )
