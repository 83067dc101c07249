"""What a caller says of a model's parameters, against what their modules' types say."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from fnmatch import fnmatchcase
from typing import Any, TypeAlias

from torch import nn

from ..state.members import listed
from ..state.roles import KINDS, Kind
from .uses import Use

__all__ = ["Overrides", "checked_overrides", "overridden", "plain_name"]

Overrides: TypeAlias = Mapping[str | type[nn.Module], str]

#: What wrappers put into the names of what they wrap.
_WRAPPERS = ("_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
#: Kinds that mean nothing for what has one dimension.
_OF_MATRICES = ("matrix", "convolution", "lora_a", "lora_b")


def checked_overrides(roles: object) -> dict[Any, Kind]:
    """The option ``roles``, if it is one.

    Raises:
        TypeError, ValueError: naming the entry and what was expected.
    """
    if roles is None:
        return {}
    if not isinstance(roles, Mapping):
        raise TypeError(
            f"roles is {roles!r}; expected a dict of patterns of names or module types to roles"
        )
    for key, kind in roles.items():
        if not (isinstance(key, str) or (isinstance(key, type) and issubclass(key, nn.Module))):
            raise TypeError(
                f"roles has the key {key!r}; expected a pattern of parameter names or a type of "
                "nn.Module"
            )
        if not isinstance(kind, str) or kind not in KINDS:
            raise ValueError(
                f"roles[{_shown(key)}] is {kind!r}; expected one of {', '.join(map(repr, KINDS))}"
            )
    return dict(roles)


def plain_name(name: str) -> str:
    """A parameter's name without what wrappers and parametrizations add to it."""
    parts = name.split(".")
    while parts and parts[0] in _WRAPPERS:
        parts = parts[1:]
    parts = [part for part in parts if part not in _WRAPPERS[2:] and part != "_orig_mod"]
    if len(parts) > 2 and parts[-3] == "parametrizations" and parts[-1] == "original":
        parts = [*parts[:-3], parts[-2]]
    return ".".join(parts)


def overridden(
    roles: Mapping[Any, Kind], named: Mapping[str, Any], found: Mapping[str, Collection[Use]]
) -> dict[str, Kind]:
    """The kinds that ``roles`` gives to parameters; of several entries the first that matches.

    Args:
        roles: as ``checked_overrides`` returned it.
        named: the trainable parameters.
        found: where each of them is used.

    Raises:
        ValueError: for an entry that matches nothing, and for a kind of matrices that is given to
            what has fewer than two dimensions.
    """
    out: dict[str, Kind] = {}
    for key, kind in roles.items():
        hit = [name for name in named if _matches(key, name, found.get(name, ()))]
        if not hit:
            raise ValueError(
                f"roles[{_shown(key)}] matches no parameter that requires grad; "
                + (f"names are such as {listed(list(named))}" if named else "there is none")
            )
        for name in hit:
            if out.setdefault(name, kind) == kind in _OF_MATRICES and named[name].ndim < 2:
                raise ValueError(
                    f"roles[{_shown(key)}] is {kind!r}, but {name!r}, which it matches, has shape "
                    f"{tuple(named[name].shape)}; expected two dimensions or more, or a pattern "
                    "that leaves it out"
                )
    return out


def _matches(key: str | type[nn.Module], name: str, uses: Collection[Use]) -> bool:
    if isinstance(key, type):
        return any(isinstance(use.module, key) for use in uses)
    names = {name, plain_name(name)}.union(*({use.name, plain_name(use.name)} for use in uses))
    return any(fnmatchcase(one, key) for one in names)


def _shown(key: object) -> str:
    return key.__name__ if isinstance(key, type) else repr(key)
