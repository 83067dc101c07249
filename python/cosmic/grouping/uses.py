"""Where a model's parameters are used: by which module, under which names above it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, TypeAlias

from torch import Tensor, nn

__all__ = ["Path", "Place", "Use", "in_stack", "paths", "type_name", "uses"]


class Place(NamedTuple):
    """A module, and what the one above calls it; the model itself has no name."""

    name: str
    module: nn.Module


#: From the model down to a module.
Path: TypeAlias = tuple[Place, ...]

_LISTS = (nn.ParameterList, nn.ParameterDict)


@dataclass(frozen=True)
class Use:
    """A parameter where a module uses it.

    Attributes:
        name: with the names of all modules above, as in ``state_dict()``.
        param: the parameter.
        path: to the module that uses it: the parametrized one, and the one that has the list.
        own: what that module calls it.
    """

    name: str
    param: Tensor
    path: Path
    own: str

    @property
    def module(self) -> nn.Module:
        return self.path[-1].module


def paths(model: nn.Module) -> Iterator[Path]:
    """Every module by every way that leads to it, in the order of ``named_parameters``; a module
    that is below itself ends the way."""

    def below(path: Path) -> Iterator[Path]:
        yield path
        for name, child in path[-1].module._modules.items():
            if child is not None and not any(child is place.module for place in path):
                yield from below((*path, Place(name, child)))

    yield from below((Place("", model),))


def uses(model: nn.Module) -> Iterator[Use]:
    """Every use of every parameter: one that is shared has several."""
    for path in paths(model):
        names = [place.name for place in path[1:]]
        for own, param in path[-1].module._parameters.items():
            if param is not None:
                yield Use(".".join([*names, own]), param, *_user(path, own))


def _user(path: Path, own: str) -> tuple[Path, str]:
    """Who uses what the last module holds, and under which name."""
    if len(path) > 2 and path[-2].name == "parametrizations" and own.startswith("original"):
        return path[:-2], path[-1].name
    while len(path) > 1 and isinstance(path[-1].module, _LISTS):
        path, own = path[:-1], path[-1].name
    return path, own


def type_name(module: nn.Module) -> str:
    """The name of a module's class; of a scripted one, what it was before."""
    return str(getattr(module, "original_name", None) or type(module).__name__)


def in_stack(path: Path) -> bool:
    """Whether a module is part of a stack of blocks: below an ``nn.ModuleList``, or a sequence with
    several blocks of one type."""
    return any(_is_stack(above.module, place.module) for above, place in pairwise(path))


def _is_stack(above: nn.Module, block: nn.Module) -> bool:
    if isinstance(above, nn.ModuleList):
        return True
    if not isinstance(above, nn.Sequential) or not block._modules:
        return False
    return sum(type(other) is type(block) for other in above) > 1
