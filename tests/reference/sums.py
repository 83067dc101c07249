"""Sums in a fixed order, which no ISA and no thread count can change.

A tensor is cut into items of whole blocks, 128 of them where nothing else is said. Inside an item
each of 16 lanes adds up its own elements in the arithmetic type; lanes and then items are added up
in float64, in order.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

LANES = 16
BLOCK = 128
ITEM = 128 * BLOCK


def lane_sums(groups: NDArray[Any]) -> NDArray[Any]:
    """Sums over the next to last axis, one element after the other."""
    sums: NDArray[Any] = np.add.accumulate(groups, axis=-2)[..., -1, :]
    return sums


def across_lanes(lanes: NDArray[Any]) -> NDArray[Any]:
    """Sums over the last axis of 16: lanes 8 apart, then 4, 2 and 1."""
    for apart in (8, 4, 2, 1):
        lanes = lanes[..., :apart] + lanes[..., apart : 2 * apart]
    return lanes[..., 0]


def block_sum(values: NDArray[Any], item_size: int = ITEM) -> float:
    """As ``ordered_sum``, but that a lane adds up its elements of each block by themselves first:
    so are squares added up that a step does not need, but a gate asks for."""
    total = 0.0
    for first in range(0, values.size, item_size):
        item = values[first : first + item_size]
        blocks = np.zeros((-(-item.size // BLOCK), BLOCK // LANES, LANES), item.dtype)
        blocks.reshape(-1)[: item.size] = item
        item_total = 0.0
        for lane in lane_sums(lane_sums(blocks)):
            item_total += float(lane)
        total += item_total
    return total


def ordered_sum(values: NDArray[Any], item_size: int = ITEM) -> float:
    total = 0.0
    for first in range(0, values.size, item_size):
        item = values[first : first + item_size]
        groups = np.zeros((-(-item.size // LANES), LANES), item.dtype)
        groups.reshape(-1)[: item.size] = item
        item_total = 0.0
        for lane in lane_sums(groups):
            item_total += float(lane)
        total += item_total
    return total
