"""What a model's parameters are: their roles and tags, found and as the caller overrides them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ..state.members import listed
from ..state.roles import KINDS, Kind
from .heads import heads_of, input_embeddings_of
from .kinds import kind_of, most_cautious
from .overrides import Overrides, checked_overrides, overridden
from .tag_words import TAGS, Tag
from .tags import agreed, role_of, tag_of
from .uses import Use, type_name, uses

__all__ = ["Findings", "find"]


@dataclass(frozen=True)
class Findings:
    """What is known of a model's trainable parameters, by their names, in the model's order.

    Attributes:
        named: the parameters.
        uses: where each is used.
        roles: the role of each.
        tags: the tag of each; none where nobody asked for tags.
    """

    named: Mapping[str, Tensor]
    uses: Mapping[str, list[Use]]
    roles: Mapping[str, Kind]
    tags: Mapping[str, Tag]


def find(
    model: nn.Module, roles: Overrides | None, tags: bool | Overrides, strict: bool
) -> Findings:
    """Roles and tags of a model's parameters; ``param_groups`` has arguments and errors."""
    given: dict[str, Kind] = {} if roles is None else checked_overrides(roles, "roles", KINDS)
    said = {} if isinstance(tags, bool) else checked_overrides(tags, "tags", TAGS)
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    _refuse_without_shape(named)
    found = _used(model, named)
    heads, tables = heads_of(model), input_embeddings_of(model)
    kinds = {name: _kinds(used, heads, tables) for name, used in found.items()}
    by_types = {name: most_cautious(kinds[name]) if kinds[name] else None for name in named}
    told_tags: dict[str, Tag] = overridden(said, "tags", named, found)
    told: dict[str, Kind] = {
        name: role_of(tag, named[name], by_types[name] or "other")
        for name, tag in told_tags.items()
    }
    told.update(overridden(given, "roles", named, found))
    _refuse_flat(name for name, p in named.items() if _is_flat(p) and name not in told)
    out = {name: told.get(name) or by_types[name] or "other" for name in named}
    if tags is False:
        return Findings(named, found, out, {})
    every: dict[str, Tag] = {}
    for name, role in out.items():
        # where it has another role than the one that holds, what it does is beside the point
        places = [
            use
            for use, kind in zip(found[name], kinds[name], strict=False)
            if name in told or kind == role
        ]
        own = agreed((tag_of(use, role, heads) for use in places), role)
        every[name] = told_tags.get(name, own)
    if strict:
        unknown = [n for n, tag in every.items() if tag == "other" and n not in told_tags]
        _refuse_unexplained(unknown, named, found)
    return Findings(named, found, out, every)


def _used(model: nn.Module, named: Mapping[str, Tensor]) -> dict[str, list[Use]]:
    """Where each parameter is used; one of a model that names other parameters than its modules
    have, nowhere."""
    names = {id(param): name for name, param in named.items()}
    out: dict[str, list[Use]] = {name: [] for name in named}
    for use in uses(model):
        if id(use.param) in names:
            out[names[id(use.param)]].append(use)
    return out


def _kinds(used: list[Use], heads: Collection[int], tables: Collection[int]) -> list[Kind]:
    """The role at each use; of a flat parameter there is none."""
    return [kind_of(use, heads, tables) for use in used if not _is_flat(use.param)]


def _refuse_without_shape(named: Mapping[str, Tensor]) -> None:
    lazy = [name for name, param in named.items() if is_lazy(param)]
    if lazy:
        raise ValueError(
            f"the model has parameters of lazy modules that have no shape yet: {listed(lazy)}; run "
            "a batch through it first"
        )


def _is_flat(param: Tensor) -> bool:
    return type(param).__name__ == "FlatParameter"


def _refuse_flat(names: Iterable[str]) -> None:
    flat = list(names)
    if flat:
        raise ValueError(
            f"{listed(flat)} of FSDP holds tensors of many roles; wrap with use_orig_params=True, "
            "or shard by fully_shard(), which leaves each parameter its own"
        )


def _refuse_unexplained(
    names: list[str], named: Mapping[str, Tensor], found: Mapping[str, list[Use]]
) -> None:
    """Names of a stack of blocks, which differ in numbers alone, are told as one pattern."""
    patterns: dict[str, list[str]] = {}
    for name in names:
        patterns.setdefault(re.sub(r"(?<![^.])\d+(?![^.])", "*", name), []).append(name)
    if patterns:
        told = []
        for pattern, some in patterns.items():
            types = dict.fromkeys(type_name(use.module) for use in found[some[0]])
            where = f" of {', '.join(types)}" if types else ""
            told.append(f"{pattern!r} ({len(some)}, {tuple(named[some[0]].shape)}{where})")
        raise ValueError(
            f"strict: no rule says what {len(names)} parameters do: {'; '.join(told)}. Say it by "
            f"tags={{{next(iter(patterns))!r}: ...}}, if need be with the tag 'other'"
        )
