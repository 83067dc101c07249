"""Parts of a parameter that are stepped as tensors of their own: a group's option ``parts``.

A parameter such as a fused projection is several matrices that lie side by side. Each part has its
own rung, state, gate and factor on the learning rate; its entries of ``optimizer.state`` begin with
its name and a slash.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import accumulate
from typing import Any, NamedTuple, TypeAlias

from torch import Tensor
from torch.nn.parameter import is_lazy

from .groups import Group, name_of, placed_params
from .names import plain_name
from .roles import ROLES

__all__ = [
    "Parts",
    "Slice",
    "check_parts",
    "check_patterns",
    "cut_for",
    "described",
    "part_names",
    "slices_of",
]

#: How many equal parts there are, or how long each one is, or that by their names.
Sizes: TypeAlias = int | Sequence[int] | Mapping[str, int]
#: A dimension, and the parts along it.
Cut: TypeAlias = tuple[int, Sizes]
#: A group's option: of each of its tensors, or by names of parameters and patterns of such, where
#: None leaves a tensor whole.
Parts: TypeAlias = Cut | Mapping[str, Cut | None]

#: Between a part's name and the entry of a state.
SEPARATOR = "/"
_NAME = re.compile(r"[\w-]+")
#: The part of a row's index that says which part it is: each has random numbers of its own.
_INDEX_BITS = 20
_MOST = 1 << (32 - _INDEX_BITS)


class Slice(NamedTuple):
    """A part of a parameter.

    Attributes:
        name: among the parts of its parameter.
        number: its place among them.
        dimension: along which they lie.
        start: of the part along it.
        size: of the part along it.
    """

    name: str
    number: int
    dimension: int
    start: int
    size: int

    @property
    def prefix(self) -> str:
        """What the part's entries begin with in its parameter's state."""
        return self.name + SEPARATOR

    def of(self, tensor: Tensor) -> Tensor:
        """The part of a tensor of the parameter's shape, in the same memory."""
        return tensor.narrow(self.dimension, self.start, self.size)

    def row_index(self, of_param: int) -> int:
        """The index of the part's row: the parameter's own for the first one."""
        return (of_param + (self.number << _INDEX_BITS)) % 2**32


def check_parts(group: Group, where: str) -> None:
    """Raise ValueError, naming the place, unless a group's ``parts`` has one of its forms."""
    parts = group["parts"]
    for key, cut in parts.items() if isinstance(parts, Mapping) else [("", parts)]:
        at = f"{where}['parts']" + (f"[{key!r}]" if isinstance(parts, Mapping) else "")
        if not isinstance(key, str) or not (cut is None or _is_cut(cut)):
            raise ValueError(
                f"{at} is {cut!r}; expected None or a dimension, 0 or 1, and along it how many "
                "equal parts there are, or their sizes, such as (0, (768, 768, 768)) or "
                "(0, {'q': 768, 'k': 256, 'v': 256}); or a dict of such by parameter name"
            )
        if wrong := [
            name for name in part_names(cut) if not _NAME.fullmatch(name) or name in ROLES
        ]:
            raise ValueError(
                f"{at} has a part named {wrong[0]!r}; expected letters, digits, '_' and '-', and "
                f"none of {', '.join(map(repr, ROLES))}, which are roles"
            )


def check_patterns(groups: Sequence[Group]) -> None:
    """Raise ValueError if a name in an option ``parts`` matches no parameter of any group that has
    it: one that is given to the whole optimizer is in every group."""
    asked: dict[str, int] = {}
    for index, group in enumerate(groups):
        for pattern in group["parts"] if isinstance(group["parts"], Mapping) else ():
            asked.setdefault(pattern, index)
    if not asked:
        return
    names = list(_named(groups))
    for pattern, index in asked.items():
        having = {g for g, group in enumerate(groups) if pattern in _patterns(group)}
        known = [name for g, name in names if g in having]
        if not any(_matches(name, pattern) for name in known):
            shown = ", ".join(map(repr, known[:3])) + (", ..." if len(known) > 3 else "")
            raise ValueError(
                f"param_groups[{index}]['parts'] has {pattern!r}, which matches no parameter of "
                f"that group; expected a name or a pattern (as of fnmatch) of {shown or 'some'}"
            )


def slices_of(group: Group, name: str, param: Tensor) -> tuple[Slice, ...]:
    """The parts that a group's option cuts a parameter of this name into; none where it is whole,
    or a lazy module's that has no shape yet.

    Raises:
        ValueError: if they do not fit its shape.
    """
    cut = cut_for(group["parts"], name)
    if cut is None or is_lazy(param):
        return ()
    dimension, shape = cut[0], tuple(param.shape)
    if dimension >= len(shape):
        raise ValueError(
            f"it is of shape {shape}, and its group's parts lie along dimension {dimension}, which "
            "it does not have"
        )
    sizes = _sizes(cut, shape)
    if sum(sizes) != shape[dimension]:
        raise ValueError(
            f"it is of shape {shape}, and its group's parts add up to {sum(sizes)} along dimension "
            f"{dimension}, expected {shape[dimension]}"
        )
    starts = accumulate(sizes[:-1], initial=0)
    places = zip(_names(cut), starts, sizes, strict=True)
    return tuple(Slice(own, k, dimension, at, n) for k, (own, at, n) in enumerate(places))


def cut_for(parts: Any, name: str) -> Any:
    """What a group's option ``parts`` says of a parameter of this name: the first pattern that
    matches; None: it is whole."""
    if not isinstance(parts, Mapping):
        return parts
    return next((cut for pattern, cut in parts.items() if _matches(name, pattern)), None)


def part_names(parts: Any) -> set[str]:
    """Names of the parts that a group's option, once checked, speaks of."""
    cuts = parts.values() if isinstance(parts, Mapping) else [parts]
    return {name for cut in cuts if cut is not None for name in _names(cut)}


def described(slices: Sequence[Slice]) -> str:
    """Parts for a message, such as ``q 768, k 256, v 256 along dimension 0``."""
    if not slices:
        return "none"
    sizes = ", ".join(f"{part.name} {part.size}" for part in slices)
    return f"{sizes} along dimension {slices[0].dimension}"


def _is_cut(cut: Any) -> bool:
    if not isinstance(cut, tuple | list) or len(cut) != 2:
        return False
    dimension, sizes = cut
    if type(dimension) is not int or dimension not in (0, 1):
        return False
    if type(sizes) is int:
        return 0 < sizes <= _MOST
    if isinstance(sizes, Mapping):
        names, sizes = list(sizes), list(sizes.values())
        if not all(isinstance(name, str) for name in names):
            return False
    if not isinstance(sizes, tuple | list) or not 0 < len(sizes) <= _MOST:
        return False
    return all(type(size) is int and size > 0 for size in sizes)


def _names(cut: Any) -> list[str]:
    sizes = cut[1]
    if isinstance(sizes, Mapping):
        return list(sizes)
    return [str(k) for k in range(sizes if isinstance(sizes, int) else len(sizes))]


def _sizes(cut: Any, shape: tuple[int, ...]) -> list[int]:
    dimension, sizes = cut
    if isinstance(sizes, Mapping):
        return list(sizes.values())
    if not isinstance(sizes, int):
        return list(sizes)
    size, rest = divmod(shape[dimension], sizes)
    if rest or not size:
        raise ValueError(
            f"it is of shape {shape}, and {shape[dimension]} along dimension {dimension} are not "
            f"{sizes} equal parts; give their sizes in its group's parts"
        )
    return [size] * sizes


def _matches(name: str, pattern: str) -> bool:
    """A pattern may be of a name as it is, or of it without what wrappers add."""
    names = (name, plain_name(name))
    return any(one == pattern or fnmatchcase(one, pattern) for one in names)


def _patterns(group: Group) -> Mapping[str, Any]:
    parts = group["parts"]
    return parts if isinstance(parts, Mapping) else {}


def _named(groups: Sequence[Group]) -> Iterator[tuple[int, str]]:
    """Every parameter's group and its name, or its number as text."""
    for index, (g, k, _) in enumerate(placed_params(groups)):
        yield g, name_of(groups[g], k) or str(index)
