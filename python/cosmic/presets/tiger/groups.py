"""Keys of a group that Tiger reads and that become Cosmic's when the group comes in."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ...state.groups import name_of
from ...state.roles import ROLES
from .literal import COMPAT
from .options import is_number, one_of
from .unused import check_unused, unused_in

__all__ = ["KEYS", "take_in"]

_CUTS = ("qkv_rules", "block_trust_chunks")
_KEYS = ("block_tag", *_CUTS, "qkv_trust_split", "qkv_lr_scales")
#: Keys of a group that are no arguments.
KEYS = ("lr_scale", *_KEYS)
_THIRDS = ("q", "k", "v")


def take_in(group: dict[str, Any], where: str, compat: str | None) -> None:
    """Replace Tiger's keys of a group by Cosmic's ``tag``, ``parts`` and ``lr_scale``.

    Its rules for slices are keyed by ``id(parameter)``, which no checkpoint outlives, or here by
    the parameter itself; ``parts`` are keyed by name, or cover all tensors of the group.

    Raises:
        ValueError, TypeError: for a rule of no parameter of the group, for parameters that have no
            names to be told apart by, for a value out of range, and for parts under ``compat``.
    """
    check_unused(group, f"{where}: ")
    for name in unused_in(group):
        del group[name]
    given = {key: group[key] for key in _KEYS if key in group}
    if not given:
        return
    sliced = _sliced(group, given, where)
    scales = _scales(group, given.get("qkv_lr_scales"), bool(sliced), where)
    chunks = _chunked(group, given.get("block_trust_chunks", 0), where)
    _check_one_cut(group, [name for name, cut in zip(_CUTS, (sliced, chunks), strict=True) if cut],
                   where, compat)  # fmt: skip
    if parts := sliced or chunks:
        group["parts"] = _by_name(group, parts, where)
    if scales:
        group["lr_scale"] = scales
    if "block_tag" in given:
        group.setdefault("tag", given["block_tag"])
    for key in given:
        del group[key]


def _check_one_cut(
    group: Mapping[str, Any], cuts: Sequence[str], where: str, compat: str | None
) -> None:
    if cuts and compat:
        raise ValueError(
            f"{where} has {cuts[0]}; expected none under compat={COMPAT!r}, whose factors are of "
            "whole tensors"
        )
    both = [*cuts, *(["parts"] if group.get("parts") is not None else [])]
    if cuts and len(both) > 1:
        raise ValueError(
            f"{where} has {both[0]} and {both[1]}; expected one of them: a parameter is cut in one "
            "way"
        )


def _params(group: Mapping[str, Any]) -> list[Tensor]:
    params = group["params"]
    return [params] if isinstance(params, Tensor) else list(params)


def _sliced(
    group: Mapping[str, Any], given: Mapping[str, Any], where: str
) -> dict[int, tuple[int, dict[str, int]]]:
    """Queries, keys and values of the parameters that have a rule, by position in the group."""
    rules, split = given.get("qkv_rules"), given.get("qkv_trust_split")
    if rules is not None and not isinstance(rules, Mapping):
        raise TypeError(
            f"{where}: qkv_rules is {rules!r}; expected a dict of (dimension, 3) by parameter"
        )
    if not one_of(None, True, False)(split):
        raise ValueError(f"{where}: qkv_trust_split is {split!r}; expected True or False")
    if split and not rules:
        raise ValueError(
            f"{where}: qkv_trust_split is True without qkv_rules; expected a dict of "
            "(dimension, 3) by parameter, which says what to split"
        )
    if not rules or split is False:
        return {}
    params = _params(group)
    places = {id(param): k for k, param in enumerate(params)}
    out = {}
    for key, rule in rules.items():
        place = places.get(id(key) if isinstance(key, Tensor) else key)
        if place is None:
            named = (
                f"a tensor of shape {tuple(key.shape)}, which is" if isinstance(key, Tensor)
                else f"{key!r}, the id of"
            )  # fmt: skip
            raise ValueError(
                f"{where}: qkv_rules has {named} no parameter of the group; ids do not "
                "outlive a process: give Cosmic's option parts, by name"
            )
        out[place] = _thirds(params[place], rule, where)
    return out


def _thirds(param: Tensor, rule: Any, where: str) -> tuple[int, dict[str, int]]:
    try:
        dimension, count = rule
        size = param.shape[dimension]
    except (TypeError, ValueError, IndexError):
        dimension, count, size = None, None, 1
    if count != 3 or size % 3:
        raise ValueError(
            f"{where}: qkv_rules has {rule!r} for a parameter of shape {tuple(param.shape)}; "
            "expected a dimension that 3 divides, and 3. Sizes that differ are Cosmic's option "
            "parts: (0, {'q': 768, 'k': 256, 'v': 256})"
        )
    return dimension % param.dim(), dict.fromkeys(_THIRDS, size // 3)


def _chunked(group: Mapping[str, Any], count: Any, where: str) -> dict[int, tuple[int, int]]:
    """Equal blocks of rows of the matrices that can be cut so, by position in the group."""
    if type(count) is not int or count < 0:
        raise ValueError(f"{where}: block_trust_chunks is {count!r}; expected an int >= 0")
    if count < 2:
        return {}
    params = _params(group)
    matrices = [k for k, p in enumerate(params) if p.dim() == 2]
    cut = [k for k in matrices if params[k].shape[0] and params[k].shape[0] % count == 0]
    whole = [f"{name_of(dict(group), k) or k} {tuple(params[k].shape)}"
             for k in matrices if k not in cut]  # fmt: skip
    if not cut:
        raise ValueError(
            f"{where}: block_trust_chunks is {count}; expected a number that divides the rows of "
            f"the group's matrices, {', '.join(whole) or 'of which there are none'}"
        )
    if whole:
        warnings.warn(
            f"{where}: block_trust_chunks is {count} and does not divide the rows of "
            f"{', '.join(whole)}: not cut",
            UserWarning,
            stacklevel=2,
        )
    return {k: (0, count) for k in cut}


def _by_name(group: Mapping[str, Any], parts: Mapping[int, Any], where: str) -> Any:
    """``parts`` of the parameters at these positions: one for all, or a dict by name."""
    places: Sequence[int] = range(len(_params(group)))
    first = next(iter(parts.values()))
    if all(parts.get(k) == first for k in places):
        return first
    names = {k: name_of(dict(group), k) for k in parts}
    if None in names.values():
        raise ValueError(
            f"{where}: only some of its parameters are cut alike, and they have no names; give "
            "named parameters (model.named_parameters()), or a group of its own to each kind"
        )
    return {names[k]: cut for k, cut in parts.items()}


def _scales(
    group: Mapping[str, Any], scales: Any, cut: bool, where: str
) -> dict[str, float] | None:
    """Factors on the learning rate by part, which multiply the group's own, given by role."""
    if scales is None:
        return None
    by_name = isinstance(scales, Mapping) and set(scales) == set(_THIRDS)
    numbers = [scales[k] for k in _THIRDS] if by_name else scales
    if (
        not isinstance(numbers, list | tuple)
        or len(numbers) != 3
        or not all(is_number(x) and x >= 0 for x in numbers)
    ):
        raise ValueError(
            f"{where}: qkv_lr_scales is {scales!r}; expected three numbers >= 0: of queries, keys "
            "and values, or a dict of them by 'q', 'k' and 'v'"
        )
    if not cut:
        raise ValueError(
            f"{where} has qkv_lr_scales, and none of its parameters is cut; expected qkv_rules "
            "beside them, and qkv_trust_split not False"
        )
    whole = group.get("lr_scale")
    if whole is not None and not is_number(whole):
        raise ValueError(
            f"{where} has lr_scale {whole!r} and qkv_lr_scales; expected one number for lr_scale, "
            "by which the slices' are multiplied"
        )
    out = dict(zip(_THIRDS, map(float, numbers), strict=True))
    return out if whole is None else {**out, **dict.fromkeys(map(str, ROLES), float(whole))}
