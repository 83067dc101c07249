"""Tables of a checkpoint: what a shard keeps as a whole, laid across its rows so that rows can be
cut anew and still say what they come from.

All functions are of plain tensors: the rows of a table that are here.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .. import _core

__all__ = ["Carried", "Segments", "numbers_of", "numbers_table", "raw_of", "raw_table", "raw_width"]

#: A column mean is carried by so many rows at least, if there are as many: of so many shards each
#: has all of its own back.
_COPIES = 128
_TAG_BYTES = 16


# ---- numbers ----------------------------------------------------------------------------------


def numbers_table(numbers: Tensor, rows: int) -> Tensor:
    """A tensor of a few numbers, in each row."""
    return numbers.detach().reshape(1, -1).repeat(rows, 1)


def numbers_of(table: Tensor, fresh: Tensor) -> Tensor:
    """The numbers that rows carry: where they differ, which those of several shards may, the means;
    ``fresh`` where there are no rows."""
    if not len(table):
        return fresh.clone()
    same = (table == table[0]).all(dim=0)
    means = table.to(torch.float64).mean(dim=0).to(table.dtype)
    return torch.where(same, table[0], means).reshape(fresh.shape)


# ---- means of columns -------------------------------------------------------------------------


class Segments(NamedTuple):
    """How means of columns are carried: row ``i`` has the segment ``i mod parts`` of its shard's,
    then their mean, then how many rows the shard has.

    Attributes:
        columns: how many there are.
        parts: how many segments.
    """

    columns: int
    parts: int

    @classmethod
    def of(cls, rows: int, columns: int) -> Segments:
        """Of a tensor of so many rows in all."""
        return cls(columns, max(1, min(rows // _COPIES, columns)))

    @property
    def length(self) -> int:
        return -(-self.columns // self.parts)

    @property
    def width(self) -> int:
        return self.length + 2

    def lanes(self, first: int, rows: int) -> Tensor:
        """The segment of each row from ``first`` on."""
        return torch.arange(first, first + rows, device="cpu") % self.parts

    def table(self, means: Tensor, first: int, rows: int, of_rows: int) -> Tensor:
        """The rows from ``first`` on, of a shard of ``of_rows`` rows with these column means."""
        padded = means.new_zeros(self.parts * self.length)
        padded[: self.columns] = means
        about = torch.tensor([float(means.double().mean()), float(of_rows)], device="cpu")
        segments = padded.view(self.parts, self.length)[self.lanes(first, rows)]
        return torch.cat([segments, about.to(means.dtype).expand(rows, 2)], dim=1)

    def means(self, table: Tensor, first: int, row_means: Tensor | None, of_rows: int) -> Tensor:
        """The column means of the rows that are here.

        ``row_means`` r and column means c of a shard say ``r_i c_j / mean(c)`` of an element, so
        that of rows from several shards the column means are the means of that over the rows: of
        each segment over those that carry it. What no row carries is taken to be as large as the
        others on average; and all together are made as large as the means of the rows are, on
        average. Rows that are just what one shard had say what it had.

        Args:
            row_means: of the rows that are here; None where there are no such.
            of_rows: how many there are; under sums over all ranks those of all.
        """
        if not len(table):
            return table.new_zeros(self.columns)
        carried = Carried.of(table, self.lanes(first, len(table)), self.parts)
        agrees = carried.agrees(of_rows)
        found = (carried.first if agrees else carried.merged(row_means)).flatten()[: self.columns]
        there = carried.there.repeat_interleave(self.length)[: self.columns]
        found = torch.where(there, found, found[there].mean())
        if row_means is not None and not agrees and float(found.mean()) > 0:
            found = found * (row_means.double().mean() / found.mean())
        return found.to(table.dtype)


class Carried(NamedTuple):
    """What rows of a table carry of column means.

    Attributes:
        rows: the segment of each.
        lanes: which one it is.
        shard_mean: the mean of all its shard's.
        shard_rows: rows of its shard.
        first: the first copy of each segment; zeros where there is none.
        there: which segments there are.
    """

    rows: Tensor
    lanes: Tensor
    shard_mean: Tensor
    shard_rows: Tensor
    first: Tensor
    there: Tensor

    @classmethod
    def of(cls, table: Tensor, lanes: Tensor, parts: int) -> Carried:
        rows = table[:, :-2]
        first, there = rows.new_zeros(parts, rows.shape[1]), torch.zeros(parts, dtype=torch.bool)
        near = min(parts, len(rows))  # lanes go round: the first rows have one each
        first[lanes[:near]], there[lanes[:near]] = rows[:near], True
        return cls(rows, lanes, table[:, -2], table[:, -1], first, there)

    def agrees(self, of_rows: int) -> bool:
        """Whether all is one shard's, of so many rows."""
        one = bool((self.shard_rows == self.shard_rows.new_tensor(float(of_rows))).all())
        return one and torch.equal(self.rows, self.first[self.lanes])

    def merged(self, row_means: Tensor | None) -> Tensor:
        """Means over the rows, in double."""
        weights = torch.ones(len(self.rows), dtype=torch.float64, device="cpu")
        if row_means is not None:
            ratios = row_means.double().view(len(self.rows), -1).mean(dim=1) / self.shard_mean
            weights = torch.where(self.shard_mean > 0, ratios, weights)
        sums = torch.zeros(self.first.shape, dtype=torch.float64, device="cpu")
        sums.index_add_(0, self.lanes, self.rows.double() * weights[:, None])
        total = torch.zeros(len(self.first), dtype=torch.float64, device="cpu")
        total.index_add_(0, self.lanes, weights)
        return sums / total.clamp(min=1e-300)[:, None]


# ---- bytes of a shard -------------------------------------------------------------------------


def raw_width(block_bytes: float, rows: int, row_numel: int) -> int:
    """Bytes of a row of a table that carries so many bytes for each block of 128 elements of any
    shard that has a block of elements, or one of 128 shards."""
    least = max(1, min(-(-_core.BLOCK // max(row_numel, 1)), rows // _COPIES))
    blocks = row_numel / _core.BLOCK + 1 / least
    return int(-(-(_TAG_BYTES + block_bytes * blocks * least) // least)) + 1


def raw_table(planes: Sequence[Tensor], tag: object, rows: int, width: int) -> Tensor:
    """The bytes of a shard's planes, after a tag, across its rows; zeros where they do not fit."""
    out = torch.zeros(rows * width, dtype=torch.uint8, device="cpu")
    parts = [_tag(tag), *(plane.detach().reshape(-1).view(torch.uint8) for plane in planes)]
    if (size := sum(map(len, parts))) <= len(out):
        torch.cat(parts, out=out[:size])
    return out.view(rows, width)


def raw_of(table: Tensor, tag: object, planes: Sequence[Tensor]) -> bool:
    """Whether the rows that are here carry a shard's bytes under this tag; they are put into the
    planes then."""
    flat, at = table.reshape(-1), _TAG_BYTES
    fits = at + sum(plane.nbytes for plane in planes) <= len(flat)
    if not fits or not torch.equal(flat[:at], _tag(tag)):
        return False
    for plane in planes:
        into = plane.reshape(-1).view(torch.uint8)
        into.copy_(flat[at : at + len(into)])
        at += len(into)
    return True


def _tag(tag: object) -> Tensor:
    text = repr(tag).encode()
    numbers = [zlib.crc32(text), zlib.adler32(text) + 1]
    return torch.tensor(numbers, dtype=torch.int64, device="cpu").view(torch.uint8)
