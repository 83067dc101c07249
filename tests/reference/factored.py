"""``factored``, ``rowmean``, ``colmean``: a matrix's second moment as means.

``factored`` keeps means of rows and of columns (Adafactor, Shazeer & Stern, arXiv 1804.04235): v of
(i, j) is about ``row[i] column[j] / mean(row)``. The other two keep one of them and hold the other
vector at one (SlimAdam, arXiv 2503.01843).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .codec import Array, Planes
from .matrix import Matrix

ONE = np.float32(1)
LARGEST = np.float32(2.0**96)  # sums of what is smaller stay finite
KEPT = {"factored": ("_row", "_col"), "rowmean": ("_row",), "colmean": ("_col",)}


@dataclass(frozen=True)
class Factored:
    matrix: Matrix
    name: str = "factored"
    update_units: bool = False

    def empty(self) -> Planes:
        sizes = {"_row": self.matrix.rows, "_col": self.matrix.columns}
        return {plane: np.zeros(sizes[plane], np.float32) for plane in KEPT[self.name]}

    def unit(self, planes: Planes, denominators: Array) -> Array:
        return denominators

    def roots(self, planes: Planes, factor: np.float32 = ONE) -> Array:
        """sqrt(row) times the factor, times sqrt(column); the rows over their mean first where both
        are kept."""
        scale = 1.0
        if self.name == "factored":
            total = 0.0
            for row in planes["_row"]:
                total += float(row)
            mean = total / self.matrix.rows
            scale = 1.0 / mean if mean > 0 else 0.0
        row, column = np.ones(self.matrix.rows, np.float32), np.ones(1, np.float32)
        if "_row" in planes:
            row = np.sqrt((planes["_row"].astype(np.float64) * scale).astype(np.float32))
        if "_col" in planes:
            column = np.sqrt(planes["_col"])
        return np.broadcast_to((row * factor)[:, None] * column, self.matrix.shape).reshape(-1)

    def unit_roots(self, planes: Planes, decay: Array) -> tuple[Array, np.float32]:
        """A row's number takes the root of the decay, or, of next to none, that of 2^-48."""
        factor = np.sqrt(np.maximum(np.float32(decay), np.float32(2.0**-48)))
        return self.roots(planes, factor), np.float32(1) / factor

    def decode(self, planes: Planes, decay: Array) -> Array:
        roots, _ = self.unit_roots(planes, decay)
        return np.asarray(roots * roots)

    def levels(self, planes: Planes, decay: Array) -> tuple[Array, Array] | None:
        return None

    def encode(
        self, old: Planes, decayed: Array, values: Array, keys: NDArray[np.uint64]
    ) -> Planes:
        # an element whose new v is huge or NaN counts as if its gradient were zero
        counted = np.where(values < LARGEST, values, decayed)
        rows, columns = self.matrix.sums(counted)
        means = {"_row": rows / self.matrix.columns, "_col": columns / self.matrix.rows}
        return {plane: means[plane].astype(np.float32) for plane in KEPT[self.name]}
