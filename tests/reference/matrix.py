"""A tensor seen as a matrix: its shape, its work items, sums of its rows and columns in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .random_bits import BLOCK
from .sums import LANES, across_lanes, lane_sums

Array = NDArray[Any]


@dataclass(frozen=True)
class Matrix:
    rows: int
    columns: int

    @classmethod
    def of(cls, sizes: Sequence[int]) -> Matrix | None:
        """Of all ways to cut the dimensions (in the order of the walk) in two, the one with the
        fewest rows and columns together; at least 2 rows and 16 columns. None if there is none."""
        cuts = [cls(int(np.prod(sizes[:k])), int(np.prod(sizes[k:]))) for k in range(1, len(sizes))]
        fitting = [cut for cut in cuts if cut.rows >= 2 and cut.columns >= LANES]
        return min(fitting, key=lambda cut: cut.rows + cut.columns, default=None)

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows, self.columns

    @property
    def item(self) -> int:
        """Elements of a work item: a share of 4 to 32 by the number of rows, no less than usual."""
        blocks = -(-self.rows * self.columns // BLOCK)
        share = min(max(self.rows // 64, 4), 32)
        return max(-(-blocks // share), 128) * BLOCK

    def sums(self, values: Array) -> tuple[Array, Array]:
        """Sums of the rows and of the columns, of flat values. Within an item they are in float32,
        over the items in float64."""
        rows, columns = np.zeros(self.rows), np.zeros(self.columns)
        for first in range(0, values.size, self.item):
            item = values[first : first + self.item]
            self._add_rows(item, first, rows)
            self._add_columns(item, first, columns)
        return rows, columns

    def _add_rows(self, item: Array, first: int, sums: Array) -> None:
        """A lane adds up its elements of a row (all those 16 apart in memory), then lanes are
        added across."""
        last = first + item.size
        for row in range(first // self.columns, -(-last // self.columns)):
            start = max(row * self.columns, first)
            end = min((row + 1) * self.columns, last)
            lane = start % LANES
            groups = np.zeros((-(-(lane + end - start) // LANES), LANES), np.float32)
            groups.reshape(-1)[lane : lane + end - start] = item[start - first : end - first]
            sums[row] += float(across_lanes(lane_sums(groups)))

    def _add_columns(self, item: Array, first: int, sums: Array) -> None:
        """Sixteen elements at a time are added to sixteen columns; those that run over a row's end
        have sums of their own, behind the last column, which are added last."""
        groups = np.zeros((-(-item.size // LANES), LANES), np.float32)
        groups.reshape(-1)[: item.size] = item
        own = np.zeros(self.columns + LANES, np.float32)
        for k, group in enumerate(groups):
            column = (first + k * LANES) % self.columns
            own[column : column + LANES] += group
        sums += own[: self.columns]
        sums[:LANES] += own[self.columns :]


def keeps_columns(gradient: Array, matrix: Matrix) -> bool:
    """Whether ``rowmean`` becomes ``colmean``: where the sums of g^2 by columns vary more (variance
    over squared mean) than those by rows. All sums are in order, so that ties are broken alike."""
    g = gradient.astype(np.float64).reshape(matrix.shape)
    squares = np.where(np.isfinite(g), g * g, 0.0)

    def total(values: Array, axis: int = 0) -> Array:
        return np.asarray(np.add.accumulate(values, axis=axis).take(-1, axis=axis))

    def variation(sums: Array) -> float:
        mean, square = total(sums / sums.size), total(sums * sums / sums.size)
        return float(square / (mean * mean) - 1.0) if mean > 0 else 0.0

    return variation(total(squares, axis=0)) > variation(total(squares, axis=1))
