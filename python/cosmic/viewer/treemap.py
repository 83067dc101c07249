"""An allocation as a treemap: a box a tensor, as large as its bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .log import TensorRow
from .markup import element, escaped
from .scales import sized

__all__ = ["Box", "squarified", "treemap"]

WIDTH, HEIGHT = 760, 320
MOST_BOXES = 400  # the smallest ones share one
LETTER = 6.3  # pixels, of the page's font for pictures


class Box(NamedTuple):
    """Where a value lies."""

    x: float
    y: float
    width: float
    height: float


def treemap(name: str, tensors: Sequence[TensorRow], looks: dict[str, str]) -> str:
    """The picture of those that hold anything; ``looks``: a class of the page's style by role."""
    held = sorted((t for t in tensors if t.nbytes > 0), key=lambda tensor: -tensor.nbytes)
    shown, rest = held[:MOST_BOXES], held[MOST_BOXES:]
    sizes = [float(t.nbytes) for t in shown]
    if rest:  # its place is the last one, whatever its size
        sizes.append(float(sum(t.nbytes for t in rest)))
    boxes = squarified(sizes, Box(0, 0, WIDTH, HEIGHT))
    drawn = [
        _drawn(box, tensor.name, f"{tensor.rung}, {sized(tensor.nbytes)}", looks[tensor.role])
        for tensor, box in zip(shown, boxes, strict=False)
    ]
    if rest:
        drawn.append(_drawn(boxes[-1], f"{len(rest):,} smaller ones", sized(sizes[-1]), "other"))
    view = f"0 0 {WIDTH} {HEIGHT}"
    return element(
        "svg", "\n".join(drawn), class_="treemap", role="img", aria_label=name, viewBox=view
    )


def squarified(sizes: Sequence[float], place: Box) -> list[Box]:
    """Boxes with areas in these proportions that fill a place, each as near to a square as rows
    allow (Bruls, Huizing and van Wijk, 2000). Sizes are above 0 and go down."""
    boxes: list[Box] = []
    left, first = sum(sizes), 0
    while first < len(sizes):
        scale = place.width * place.height / left
        side = min(place.width, place.height)
        end = first + 1
        while end < len(sizes) and _worst(sizes[first : end + 1], side, scale) <= _worst(
            sizes[first:end], side, scale
        ):
            end += 1
        row = sizes[first:end]
        laid, place = _laid(row, sum(row) / left if end < len(sizes) else 1.0, place)
        boxes += laid
        left, first = left - sum(row), end
    return boxes


def _worst(row: Sequence[float], side: float, scale: float) -> float:
    """How far the box that is least square in a row is from one."""
    area = sum(row) * scale
    return max(
        side * side * max(row) * scale / (area * area),
        area * area / (side * side * min(row) * scale),
    )


def _laid(row: Sequence[float], share: float, place: Box) -> tuple[list[Box], Box]:
    """A row along the shorter side of a place, which takes a share of it, and what is left."""
    x, y, width, height = place
    upright = width >= height
    thick, boxes, along = (width if upright else height) * share, [], 0.0
    for size in row:
        length = (height if upright else width) * size / sum(row)
        box = Box(x, y + along, thick, length) if upright else Box(x + along, y, length, thick)
        boxes.append(box)
        along += length
    if upright:
        return boxes, Box(x + thick, y, width - thick, height)
    return boxes, Box(x, y + thick, width, height - thick)


def _drawn(box: Box, name: str, what: str, look: str) -> str:
    x, y, width, height = (f"{value:.2f}" for value in box)
    drawn = element("title", escaped(f"{name}: {what}"))
    drawn += element("rect", class_=look, x=x, y=y, width=width, height=height)
    letters = int((box.width - 10) / LETTER)
    for line, text in enumerate((name, what)):
        if letters >= 4 and box.height >= 20 + 15 * line:
            cut = text if len(text) <= letters else text[: letters - 1] + "…"
            label = {"x": f"{box.x + 5:.2f}", "y": f"{box.y + 15 + 15 * line:.2f}"}
            drawn += element("text", escaped(cut), class_=f"on-{look}", **label)
    return element("g", drawn)
