"""From numbers to places on a picture, to ticks beside it and to text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

__all__ = ["MOST_POINTS", "Point", "Scale", "plain", "sized", "spread", "thinned", "ticks"]

Point: TypeAlias = tuple[float, float]

#: Of a curve: more than a picture has pixels for would only make the page long.
MOST_POINTS = 500
_UNITS = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


class Scale(NamedTuple):
    """Maps ``low`` to ``start`` and ``high`` to ``end``, and the rest in between."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def spread(values: Sequence[float], *, margin: float = 0.05) -> tuple[float, float]:
    """A range that holds all values, with some room, and is not empty."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    room = (high - low) * margin
    if room <= 1e-9 * max(abs(low), abs(high)):  # alike, as far as ticks could tell
        room = abs(low) * 0.1 or 1.0
    return low - room, high + room


def ticks(low: float, high: float, *, about: int = 5) -> list[float]:
    """Round numbers between two, about so many."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def thinned(points: Sequence[Point], most: int = MOST_POINTS) -> list[Point]:
    """At most so many points: the first, the last, and of every stretch between the least and the
    greatest, so that no peak is lost."""
    if len(points) <= most:
        return list(points)
    inner = points[1:-1]
    stretches = max(1, (most - 2) // 2)
    kept = [points[0]]
    for stretch in range(stretches):
        part = inner[len(inner) * stretch // stretches : len(inner) * (stretch + 1) // stretches]
        ends = {min(part, key=lambda point: point[1]), max(part, key=lambda point: point[1])}
        kept += sorted(ends)
    return [*kept, points[-1]]


def plain(value: float) -> str:
    """A number as text: whole ones in full, others by four digits."""
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:.4g}"


def sized(nbytes: float) -> str:
    """Bytes as text; 1 MB is 10^6."""
    for size, unit in _UNITS:
        if abs(nbytes) >= size:
            return f"{nbytes / size:.4g} {unit}"
    return f"{plain(nbytes)} B"
