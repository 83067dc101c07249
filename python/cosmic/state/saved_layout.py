"""Where the entries of a shard's state lie in a checkpoint's tensors."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from math import prod

from torch import Tensor

from .. import _core
from .geometries import geometry_of_whole
from .members import Member
from .shard_tensors import Sizes, as_saved, cut_dims, part_of, table_box
from .shards import local_of

__all__ = ["Layout"]


@dataclass(frozen=True)
class Layout:
    """A shard of a parameter, or of a part of one, in rows of the parameter's first dimension.

    Attributes:
        row: the parameter or part.
        carrying: rows that have elements of it: all of the parameter's, but for parts along them.
        first: of these the number of the first one whose row of tables is here; ``rows`` of such
            are, from ``skipped`` on among those of the tables.
        by_rows: whether nothing but rows is cut, and each lies together in memory.
        whole_blocks: whether the elements of each row that are here are whole blocks.
        laid: along which dimension the part is laid into the parameter's shape, since the parameter
            is cut there; None: its own shape is cut as well.
    """

    row: Member
    carrying: int
    first: int
    rows: int
    skipped: int
    by_rows: bool
    whole_blocks: bool
    laid: int | None

    @classmethod
    def of(cls, row: Member) -> Layout:
        begin, size = 0, _rows(row.param)
        if row.part is not None and row.part.dimension == 0:
            begin, size = row.part.start, row.part.size
        start, here = table_box(row.param)
        first = min(max(start, begin), begin + size)
        last = min(max(start + here, first), begin + size)
        whole, cut = row.whole, cut_dims(row.param)
        in_order = _core.walk_order(tuple(whole.shape), whole.stride(), "the parameter") is None
        along = None if row.part is None else row.part.dimension
        return cls(
            row, size, first - begin, last - first, first - start if last > first else 0,
            in_order and cut <= {0}, in_order and _has_whole_blocks(row, cut),
            along if along == 0 or along in cut else None,
        )  # fmt: skip

    def formed_as(self, other: Layout) -> Layout:
        """With the other's forms of entries."""
        return replace(
            self, by_rows=other.by_rows, whole_blocks=other.whole_blocks, laid=other.laid
        )

    def cannot_cut(self, saved: Layout) -> bool:
        """Whether entries of that layout say nothing of what is here but as a whole: rows of codes
        or of a part, where rows are cut."""
        return (
            (saved.by_rows and not self.by_rows)
            or (saved.whole_blocks and not self.whole_blocks)
            or (saved.laid is None and self.laid is not None)
        )

    @property
    def box(self) -> object:
        """Which elements are here: where the shard begins, and its shape."""
        shard, shape = self.row.shard, tuple(self.row.whole.shape)
        return ((0,) * len(shape), shape) if shard is None else (shard.start, shard.local)

    @property
    def rows_here(self) -> int:
        """Rows of the shard."""
        return _rows(self.row.tensor)

    @property
    def row_numel(self) -> int:
        """Real elements of a row of the whole tensor."""
        return _row_numel(self.row.whole)

    @cached_property
    def matrix(self) -> tuple[int, int]:
        """Of the matrix whose means are kept, how many rows each row is, and its columns."""
        rows, columns = geometry_of_whole(self.row.whole, self.row.shards).matrix or (0, 0)
        return rows // max(self.carrying, 1), columns

    @property
    def whole_shape(self) -> Sizes:
        """Of a tensor of one number an element, in a checkpoint."""
        shape = list(self.row.whole.shape)
        if self.laid is not None:
            shape[self.laid] = self.row.param.shape[self.laid]
        return (*shape, 2) if self.row.param.is_complex() else tuple(shape)

    # ---- to a checkpoint ----------------------------------------------------------------------

    def elements(self, value: Tensor) -> Tensor:
        """One number an element."""
        return as_saved(self._laid(value, self.laid), self.row.param, self.whole_shape)

    def by_row(self, value: Tensor, width: int) -> Tensor:
        """So many numbers, in all shards together, for each row."""
        of_whole = self.row_numel or 1
        local = width * _row_numel(self.row.tensor) // of_whole
        here = self._laid(value.view(self.rows_here, local), 0 if self.laid == 0 else None)
        return as_saved(here, self.row.param, (_rows(self.row.param), width))

    def table(self, rows: Tensor) -> Tensor:
        """A row of a table for each row that carries."""
        _, here = table_box(self.row.param)
        if here != self.rows:
            laid = rows.new_zeros(here, rows.shape[1])
            laid[self.skipped : self.skipped + self.rows] = rows
            rows = laid
        shape = (_rows(self.row.param), rows.shape[1])
        return as_saved(rows, self.row.param, shape, table=True)

    # ---- out of a checkpoint: tensors of their own --------------------------------------------

    def elements_of(self, value: object, key: str) -> Tensor:
        here = part_of(value, self.row.param, self.whole_shape, key)
        return self._unlaid(here, self.laid).clone()

    def by_row_of(self, value: object, width: int, key: str) -> Tensor:
        here = part_of(value, self.row.param, (_rows(self.row.param), width), key)
        return self._unlaid(here, 0 if self.laid == 0 else None).flatten().clone()

    def table_of(self, value: object, width: int, key: str) -> Tensor:
        """The rows that are here and carry."""
        shape = (_rows(self.row.param), width)
        here = part_of(value, self.row.param, shape, key, table=True)
        return here[self.skipped : self.skipped + self.rows].clone()

    # ---- parts --------------------------------------------------------------------------------

    def _laid(self, value: Tensor, along: int | None) -> Tensor:
        """A part in its place of what is here of the parameter; zeros elsewhere."""
        if along is None or self.row.part_here is None:
            return value
        shape = list(value.shape)
        shape[along] = local_of(self.row.param).shape[along]
        out = value.new_zeros(shape)
        out.narrow(*self.row.part_here).copy_(value)
        return out

    def _unlaid(self, value: Tensor, along: int | None) -> Tensor:
        at = self.row.part_here
        return value if along is None or at is None else value.narrow(*at)


def _rows(tensor: Tensor) -> int:
    return tensor.shape[0] if tensor.dim() else 1


def _row_numel(tensor: Tensor) -> int:
    return prod(tensor.shape[1:]) * (2 if tensor.is_complex() else 1)


def _has_whole_blocks(row: Member, cut: frozenset[int]) -> bool:
    """Whether every row of every shard has whole blocks: of the same size, if rows are cut."""
    numel, shape = _row_numel(row.whole), row.whole.shape
    if len(shape) < 2 or numel % _core.BLOCK or not numel:
        return False
    if cut <= {0}:
        return True
    here = {shard.local[1] for shard in row.shards}
    in_columns = len(shape) == 2 and cut <= {0, 1} and (row.part is None or row.part.dimension == 0)
    return in_columns and len(here) == 1 and here.pop() % _core.BLOCK == 0
