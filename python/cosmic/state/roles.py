"""Roles: what a tensor is to the model, found once, when the tensor gets its state.

``"table"``: an embedding or an output head, most of whose rows see little of any one gradient.
``"matrix"``: any other tensor of two dimensions or more, or of 65,536 elements. ``"vector"``: the
rest (norms, biases).

A group may say what its tensors are (option ``role``): its words are finer, as
``cosmic.param_groups`` finds them in a model's modules, and each of them is one of the three here.
Else names and the sides of all tensors together say it (``Structure``). Gradients do not: how many
rows of an embedding see one is a matter of how many tokens there are in a batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor

from ..rungs import Geometry
from .structure import Structure, sides_of

__all__ = [
    "KINDS",
    "ROLES",
    "Kind",
    "Role",
    "check_role",
    "given_role",
    "is_hidden_matrix",
    "possible_roles",
    "structural_role",
]  # fmt: skip

Role = Literal["table", "matrix", "vector"]
ROLES: tuple[Role, ...] = ("table", "matrix", "vector")

Kind = Literal[
    "embedding", "position", "head", "matrix", "convolution", "lora_a", "lora_b", "norm", "bias",
    "vector", "other",
]  # fmt: skip
#: What a group's option ``role`` can be, and the role that a budget spends by; None: as without the
#: option. Positions are no tables: gradients reach all rows of a batch's length, and momentum for
#: them has not paid (docs/budget.md); what "other" is nobody knows.
KINDS: Mapping[str, Role | None] = {
    "embedding": "table", "head": "table", "matrix": "matrix", "convolution": "matrix",
    "lora_a": "matrix", "lora_b": "matrix", "norm": "vector", "bias": "vector", "vector": "vector",
    "position": "matrix", "other": None,
}  # fmt: skip

_LARGE = 65536  # elements; a model's norms have fewer, and its biases have a matrix's rows
_SIDE = 8  # the least side of a hidden matrix that has a direction worth speaking of
_LONG = 512  # of a matrix of which the squarer shape alone tells that it is none of few words
_ASPECT, _SMALL_ASPECT = 8, 4  # how many times as long as wide, and below that length
#: What of two dimensions a rule for hidden matrices steps.
_MATRICES = ("matrix", "lora_a", "lora_b")


def check_role(role: object, where: str) -> None:
    """Raise ValueError, naming the place, unless a group's option ``role`` is None or a kind."""
    if role is not None and not (isinstance(role, str) and role in KINDS):
        raise ValueError(
            f"{where}['role'] is {role!r}; expected None or {', '.join(map(repr, KINDS))}"
        )


def given_role(group: Mapping[str, Any]) -> Role | None:
    """The role that a group's option says its tensors have; None where structure does."""
    kind = group.get("role")
    return KINDS.get(kind) if isinstance(kind, str) else None


def structural_role(param: Tensor, geometry: Geometry, name: str, structure: Structure) -> Role:
    """The role that a tensor's name says or else its sides among those of all tensors.

    Args:
        geometry: of the tensor.
        name: the user's, or the tensor's number as text.
        structure: of all parameters in the groups.
    """
    sides = sides_of(param)
    if len(sides) < 2:
        flat = geometry.numel >= _LARGE and not structure.is_bias(sides[0])
        return "matrix" if flat else "vector"
    if len(sides) > 2:  # a kernel
        return "matrix"
    word = structure.word(name, param)
    if word == "table":
        return "table"
    if word in ("position", "stacked"):
        return "matrix"
    return "table" if structure.is_table(sides[0], sides[1]) else "matrix"


def possible_roles(geometry: Geometry) -> tuple[Role, ...]:
    """The roles that a state of a tensor may hold; a long bias was a matrix in earlier releases."""
    if geometry.shape is not None:
        return ("table", "matrix")
    return ROLES if geometry.numel >= _LARGE else ("vector",)


def is_hidden_matrix(
    param: Tensor, geometry: Geometry, name: str, group: Mapping[str, Any], structure: Structure
) -> bool:
    """Whether a rule for hidden matrices is to step a tensor.

    The group's ``role`` says so of two dimensions or of a convolution's kernel. Where it says
    nothing, doubt means no, as such a rule ruins what is none, such as an embedding: three
    dimensions or more are no matrix here, as they may be a kernel, a stack of experts or a position
    table with a batch of one; nor is a side of less than 8, a length of more than 8 times the
    width, what structure takes for a table, and what names place beside one.

    Below a length of 512 what is 4 times as long as wide may be an embedding of bytes or a layer
    that widens by 4: it is one only where another layer takes, or gives, the longer side. What is
    as long as some layer is wide, such as positions, nothing can tell but its name: whoever has
    such a table gives it a ``role``.
    """
    kind = group.get("role")
    if kind is not None:
        # a stack of matrices, such as of experts, would be taken for one
        return kind == "convolution" or (kind in _MATRICES and param.dim() == 2)
    if param.dim() != 2 or geometry.shape is None or min(param.shape) < _SIDE:
        return False
    if structure.word(name, param) in ("position", "beside"):
        return False
    if structural_role(param, geometry, name, structure) != "matrix":
        return False
    long, short = max(param.shape), min(param.shape)
    clear = long >= _LONG or long < _SMALL_ASPECT * short or structure.is_handed_on(long)
    return clear and long <= _ASPECT * short
