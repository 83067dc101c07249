"""Curves and areas over steps, as SVG."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple, TypeAlias

from .markup import element, escaped
from .scales import Point, Scale, plain, sized, spread, thinned, ticks

__all__ = ["Mark", "Series", "Stack", "area_chart", "legend", "line_chart"]

Shown: TypeAlias = Callable[[float], str]  # a value as text

WIDTH, HEIGHT = 760, 250
LEFT, RIGHT, TOP, BOTTOM = 72, 744, 12, 214
MOST_DOTS = 40  # of a curve: with more they would hide it
SWATCH = 'class="swatch" viewBox="0 0 26 12" width="26" height="12" aria-hidden="true"'


class Series(NamedTuple):
    """A curve, and how it looks: ``look`` is a class of the page's style. ``steps``: it keeps its
    value until the next point."""

    name: str
    points: Sequence[Point]
    look: str
    steps: bool = False


class Mark(NamedTuple):
    """A sign at a place of a chart, with what it says when pointed at."""

    x: float
    y: float | None  # None: at the bottom
    sign: str  # "low", "back" or "skipped": what it is drawn as
    text: str


class Stack(NamedTuple):
    """What lies on what, from below: a value at each of the areas' steps."""

    name: str
    values: Sequence[float]
    look: str


def line_chart(
    name: str,
    series: Sequence[Series],
    last_step: float,
    *,
    bounds: tuple[float, float] | None = None,
    marks: Sequence[Mark] = (),
) -> str:
    """Curves over steps 0 to the last, with a legend; ``bounds``: of the values, if not theirs."""
    low, high = bounds or spread([y for s in series for _, y in s.points])
    x, y = _across(last_step), Scale(low, high, BOTTOM, TOP)
    drawn = [_axes(x, y, plain)]
    drawn += [_curve(one, x, y, plain) for one in series]
    drawn += [_sign(mark, x, y) for mark in marks]
    return _svg(name, drawn, x) + legend([(s.name, s.look, "line") for s in series])


def area_chart(
    name: str,
    steps: Sequence[float],
    stacks: Sequence[Stack],
    last_step: float,
    *,
    limit: Series | None = None,
) -> str:
    """Areas on each other; each keeps its height until the next step. ``limit``: a line."""
    tops = [0.0] * len(steps)
    edges = [tops]
    for stack in stacks:
        tops = [top + value for top, value in zip(tops, stack.values, strict=True)]
        edges.append(tops)
    shown = [limit] if limit else []
    highest = max([1.0, *tops, *(value for s in shown for _, value in s.points)])
    x, y = _across(last_step), Scale(0.0, highest * 1.08, BOTTOM, TOP)
    drawn = [_axes(x, y, sized)]
    for stack, (below, above) in zip(stacks, pairwise(edges), strict=True):
        along = [*_stairs(steps, above, last_step), *reversed(_stairs(steps, below, last_step))]
        area = element("path", class_=stack.look, d=_path(along, x, y) + "Z")
        values = list(zip(steps, stack.values, strict=True))
        drawn.append(element("g", area, class_="series", **_told(stack.name, values, sized, True)))
    drawn += [_curve(one, x, y, sized, last_step) for one in shown]
    entries = [(s.name, s.look, "area") for s in reversed(stacks)]
    return _svg(name, drawn, x) + legend([*entries, *((s.name, s.look, "line") for s in shown)])


def legend(entries: Sequence[tuple[str, str, str]]) -> str:
    """Names beside their looks, as ``"line"`` or ``"area"``."""
    items = []
    for name, look, kind in entries:
        line = element("path", class_=look, d="M1 6H25")
        box = element("rect", class_=look, x=4, y=1, width=18, height=10)
        sample = line if kind == "line" else box
        items.append(element("li", f"<svg {SWATCH}>{sample}</svg>{escaped(name)}"))
    return element("ul", "".join(items), class_="legend")


def _across(last_step: float) -> Scale:
    return Scale(0.0, max(last_step, 1.0), LEFT, RIGHT)


def _svg(name: str, drawn: Sequence[str], x: Scale) -> str:
    """The picture; what the script needs to find steps under the pointer comes along."""
    hair = element("path", class_="hair", d=f"M0 {TOP}V{BOTTOM}")
    return element(
        "svg", "\n".join((*drawn, hair)), class_="chart", role="img", aria_label=name,
        viewBox=f"0 0 {WIDTH} {HEIGHT}", data_left=LEFT, data_right=RIGHT, data_last=x.high,
        data_width=WIDTH,
    )  # fmt: skip


def _axes(x: Scale, y: Scale, shown: Shown) -> str:
    out = []
    for value in ticks(y.low, y.high):
        at = _at(y(value))
        out.append(element("path", class_="grid", d=f"M{LEFT} {at}H{RIGHT}"))
        out.append(_label(shown(value), LEFT - 8, at, "end", 4))
    for value in ticks(x.low, x.high, about=8):
        at = _at(x(value))
        out.append(element("path", class_="tick", d=f"M{at} {BOTTOM}v5"))
        out.append(_label(plain(value), at, BOTTOM, "middle", 18))
    out.append(element("path", class_="axis", d=f"M{LEFT} {BOTTOM}H{RIGHT}"))
    out.append(_label("step", RIGHT, BOTTOM, "end", 32))
    return "".join(out)


def _label(text: str, x: object, y: object, anchor: str, below: int) -> str:
    return element("text", escaped(text), x=x, y=y, dy=below, text_anchor=anchor)


def _curve(one: Series, x: Scale, y: Scale, shown: Shown, last_step: float | None = None) -> str:
    """``last_step``: how far the last value goes on."""
    points = thinned(one.points)
    along = points
    if one.steps and points:
        steps, values = [a for a, _ in points], [b for _, b in points]
        along = _stairs(steps, values, steps[-1] if last_step is None else last_step)
    drawn = element("path", class_=one.look, d=_path(along, x, y)) if along else ""
    if len(points) <= MOST_DOTS and not one.steps:
        drawn += "".join(
            element("circle", class_=one.look, cx=_at(x(a)), cy=_at(y(b)), r=2.5) for a, b in points
        )
    return element("g", drawn, class_="series", **_told(one.name, points, shown, one.steps))


def _sign(mark: Mark, x: Scale, y: Scale) -> str:
    left, top = _at(x(mark.x)), _at(BOTTOM if mark.y is None else y(mark.y))
    shapes = {"low": "l-4-7h8z", "back": "l-4 7h8z", "skipped": "v-12"}
    drawn = element("title", escaped(mark.text))
    return element("path", drawn, class_=f"mark {mark.sign}", d=f"M{left} {top}{shapes[mark.sign]}")


def _told(name: str, points: Sequence[Point], shown: Shown, steps: bool) -> dict[str, object]:
    """What the script says of a curve at the step under the pointer."""
    values = ";".join(f"{a:.12g}={shown(b)}" for a, b in points)
    return {"data_name": name, "data_points": values, "data_steps": int(steps)}


def _stairs(steps: Sequence[float], values: Sequence[float], last_step: float) -> list[Point]:
    """The corners of what keeps its value until the next step."""
    ends = [*steps[1:], max(last_step, steps[-1])] if steps else []
    return [
        (step, value)
        for start, end, value in zip(steps, ends, values, strict=True)
        for step in (start, end)
    ]


def _path(points: Sequence[Point], x: Scale, y: Scale) -> str:
    return "M" + "L".join(f"{_at(x(a))} {_at(y(b))}" for a, b in points)


def _at(place: float) -> str:
    """A coordinate: tenths are enough."""
    return f"{place:.1f}".removesuffix(".0")
