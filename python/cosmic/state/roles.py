"""Roles: what a tensor is to the model, found without its name.

``"table"``: an embedding or an output head, most of whose rows see little of any one gradient.
``"matrix"``: any other tensor of two dimensions or more, or of 65,536 elements. ``"vector"``: the
rest (norms, biases).

The first guess is the shape's: a table is many times longer than it is wide. From then on the
gradients decide: a tensor is a table where few rows (or columns) carry most of the gradient, so
that their effective share (see ``cpp/plan/participation.h``) is small. On small language models,
untrained and trained, that share was 0.05 to 0.07 for embeddings and heads, 0.23 to 0.97 for hidden
matrices.
"""

from __future__ import annotations

from typing import Literal

from ..rungs import Geometry

__all__ = ["ROLES", "Role", "guessed_role", "observed_role"]

Role = Literal["table", "matrix", "vector"]
ROLES: tuple[Role, ...] = ("table", "matrix", "vector")

_LONG, _ASPECT = 512, 8  # a table's longer side, and how many times its shorter one
_LARGE = 65536  # elements; a model's norms and biases have fewer
_BECOMES, _REMAINS = 0.12, 0.18  # effective share below which a tensor is a table; apart, so that
# noise near the border does not move a tensor to and fro


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
