"""Roles: what a tensor is to the model, found without its name.

``"table"``: an embedding or an output head, most of whose rows see little of any one gradient.
``"matrix"``: any other tensor of two dimensions or more, or of 65,536 elements. ``"vector"``: the
rest (norms, biases).

The first guess is the shape's: a table is many times longer than it is wide. From then on the
gradients decide: a tensor is a table where few rows (or columns) carry most of the gradient, so
that their effective share (see ``cpp/plan/participation.h``) is small. On small language models,
untrained and trained, that share was 0.05 to 0.07 for embeddings and heads, 0.23 to 0.97 for hidden
matrices.

Neither is asked where a group says what its tensors are (option ``role``): its words are finer, as
``cosmic.param_groups`` finds them in a model's modules, and each of them is one of the three here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor

from ..rungs import Geometry

__all__ = [
    "KINDS",
    "ROLES",
    "Kind",
    "Role",
    "check_role",
    "given_role",
    "guessed_role",
    "is_hidden_matrix",
    "matrix_by_shape",
    "observed_role",
]  # fmt: skip

Role = Literal["table", "matrix", "vector"]
ROLES: tuple[Role, ...] = ("table", "matrix", "vector")

Kind = Literal[
    "embedding", "position", "head", "matrix", "convolution", "lora_a", "lora_b", "norm", "bias",
    "vector", "other",
]  # fmt: skip
#: What a group's option ``role`` can be, and the role that a budget spends by; None: as without the
#: option. Positions are no tables by the measure of gradients, which reach all rows of a batch's
#: length, and momentum for them has not paid (docs/budget.md); what "other" is nobody knows.
KINDS: Mapping[str, Role | None] = {
    "embedding": "table", "head": "table", "matrix": "matrix", "convolution": "matrix",
    "lora_a": "matrix", "lora_b": "matrix", "norm": "vector", "bias": "vector", "vector": "vector",
    "position": None, "other": None,
}  # fmt: skip

_LONG, _ASPECT = 512, 8  # a table's longer side, and how many times its shorter one
_LARGE = 65536  # elements; a model's norms and biases have fewer
_BECOMES, _REMAINS = 0.12, 0.18  # effective share below which a tensor is a table; apart, so that
# noise near the border does not move a tensor to and fro
#: Words in names of embeddings and heads.
_NO_MATRIX = re.compile(
    r"(?:^|[._])(?:\w*emb\w*|wte|wpe|pos\w*|\w*head|score|classifier)(?:[._]|$)"
)
_SIDE = 8  # the least side of a hidden matrix that has a direction worth speaking of
_SMALL_ASPECT = 4  # of a matrix shorter than a table is long: see `matrix_by_shape`


def check_role(role: object, where: str) -> None:
    """Raise ValueError, naming the place, unless a group's option ``role`` is None or a kind."""
    if role is not None and not (isinstance(role, str) and role in KINDS):
        raise ValueError(
            f"{where}['role'] is {role!r}; expected None or {', '.join(map(repr, KINDS))}"
        )


def given_role(group: Mapping[str, Any]) -> Role | None:
    """The role that a group's option says its tensors have; None where shape and gradients do."""
    kind = group.get("role")
    return KINDS.get(kind) if isinstance(kind, str) else None


def is_hidden_matrix(
    param: Tensor, geometry: Geometry, name: str, group: Mapping[str, Any]
) -> bool:
    """Whether a rule for hidden matrices is to step a tensor: the group's ``role`` says so of two
    dimensions or of a convolution's kernel, or, where it says nothing, the shape, and no word of
    the name against it."""
    kind = group.get("role")
    if kind is not None:
        # a stack of matrices, such as of experts, would be taken for one
        return kind == "convolution" or (kind == "matrix" and param.dim() == 2)
    return matrix_by_shape(geometry, param.dim()) and not _NO_MATRIX.search(name.lower())


def matrix_by_shape(geometry: Geometry, ndim: int) -> bool:
    """Whether a tensor that nobody has given a role may be taken for a hidden matrix.

    For rules that ruin what is none, such as an embedding: doubt means no. Three dimensions or more
    are no matrix here, as they may be a kernel, a stack of experts or a position table with a batch
    of one; nor is a side of less than 8.

    What is 512 long or longer and 8 times as long as wide is a table (``guessed_role``). Below that
    length 256 x 64 may be an embedding of bytes or a layer that widens by 4, and both are common:
    what is 4 times as long as wide is none there. Squarer tables, such as 1024 positions of 768
    numbers, no shape can tell: whoever has such groups gives them a ``role``.

    Args:
        geometry: of the tensor.
        ndim: its dimensions.
    """
    if ndim != 2 or geometry.shape is None or guessed_role(geometry) != "matrix":
        return False
    long, short = max(geometry.shape), min(geometry.shape)
    return short >= _SIDE and (long >= _LONG or long < _SMALL_ASPECT * short)


def guessed_role(geometry: Geometry) -> Role:
    """The role that a tensor's shape suggests, before any gradient."""
    if geometry.shape is None:
        return "vector" if geometry.numel < _LARGE else "matrix"
    long, short = max(geometry.shape), min(geometry.shape)
    return "table" if long >= _LONG and long >= _ASPECT * short else "matrix"


def observed_role(held: Role, participation: tuple[float, float]) -> Role:
    """The role after a look at a gradient; the held one if there was nothing to see.

    Args:
        held: the role so far.
        participation: effective share of rows and of columns, as from ``_core.participation``.
    """
    share = min(participation)
    if held == "vector" or share == 0:
        return held
    return "table" if share < (_REMAINS if held == "table" else _BECOMES) else "matrix"
