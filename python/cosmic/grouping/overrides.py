"""What a caller says of a model's parameters, against what their modules' types say."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from fnmatch import fnmatchcase
from typing import Any, TypeAlias, TypeVar

from torch import nn

from ..state.members import listed
from ..state.names import plain_name
from .uses import Use

__all__ = ["Overrides", "checked_overrides", "overridden"]

Overrides: TypeAlias = Mapping[str | type[nn.Module], str]

#: A role or a tag.
Word = TypeVar("Word", bound=str)

#: Roles, and tags, that mean nothing for what has one dimension.
_OF_MATRICES = ("matrix", "convolution", "lora_a", "lora_b")


def checked_overrides(given: object, option: str, words: Collection[str]) -> dict[Any, Any]:
    """The option ``roles``, or ``tags``, if it is one.

    Args:
        option: its name.
        words: what it may say of a parameter.

    Raises:
        TypeError, ValueError: naming the entry and what was expected.
    """
    if not isinstance(given, Mapping):
        raise TypeError(
            f"{option} is {given!r}; expected a dict of patterns of names or module types to "
            f"{option}"
        )
    for key, word in given.items():
        if not (isinstance(key, str) or (isinstance(key, type) and issubclass(key, nn.Module))):
            raise TypeError(
                f"{option} has the key {key!r}; expected a pattern of parameter names or a type of "
                "nn.Module"
            )
        if not isinstance(word, str) or word not in words:
            raise ValueError(
                f"{option}[{_shown(key)}] is {word!r}; expected one of "
                f"{', '.join(map(repr, words))}"
            )
    return dict(given)


def overridden(
    given: Mapping[Any, Word],
    option: str,
    named: Mapping[str, Any],
    found: Mapping[str, Collection[Use]],
) -> dict[str, Word]:
    """What ``roles``, or ``tags``, says of parameters; of several entries the first that matches.

    Args:
        given: as ``checked_overrides`` returned it.
        named: the trainable parameters.
        found: where each of them is used.

    Raises:
        ValueError: for an entry that matches nothing, and for a role or tag of matrices that is
            given to what has fewer than two dimensions.
    """
    out: dict[str, Word] = {}
    for key, word in given.items():
        hit = [name for name in named if _matches(key, name, found.get(name, ()))]
        if not hit:
            raise ValueError(
                f"{option}[{_shown(key)}] matches no parameter that requires grad; "
                + (f"names are such as {listed(list(named))}" if named else "there is none")
            )
        for name in hit:
            if out.setdefault(name, word) == word in _OF_MATRICES and named[name].ndim < 2:
                raise ValueError(
                    f"{option}[{_shown(key)}] is {word!r}, but {name!r}, which it matches, has "
                    f"shape {tuple(named[name].shape)}; expected two dimensions or more, or a "
                    "pattern that leaves it out"
                )
    return out


def _matches(key: str | type[nn.Module], name: str, uses: Collection[Use]) -> bool:
    if isinstance(key, type):
        return any(isinstance(use.module, key) for use in uses)
    names = {name, plain_name(name)}.union(*({use.name, plain_name(use.name)} for use in uses))
    return any(fnmatchcase(one, key) for one in names)


def _shown(key: object) -> str:
    return key.__name__ if isinstance(key, type) else repr(key)
