"""Sums in a fixed order, which no ISA and no thread count can change.

A tensor is cut into items of 128 blocks of 128 elements. Inside an item each of 16 lanes adds up
its own elements in the arithmetic type; lanes and then items are added up in float64, in order.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

LANES = 16
ITEM = 128 * 128


def ordered_sum(values: NDArray[Any]) -> float:
    total = 0.0
    for first in range(0, values.size, ITEM):
        item = values[first : first + ITEM]
        rows = np.zeros((-(-item.size // LANES), LANES), item.dtype)
        rows.reshape(-1)[: item.size] = item
        lanes = np.zeros(LANES, item.dtype)
        for row in rows:
            lanes = lanes + row
        item_total = 0.0
        for lane in lanes:
            item_total += float(lane)
        total += item_total
    return total
