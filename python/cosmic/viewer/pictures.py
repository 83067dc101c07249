"""What of a run becomes which curve or area."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from .charts import Mark, Series, Stack, area_chart, line_chart
from .log import Allocation, GateEvent, GroupRow, Run
from .markup import element, escaped
from .scales import MOST_POINTS, Point, plain, sized
from .style import CURVES, look_of_role

__all__ = ["LOW_GATE", "bytes_picture", "gate_picture", "loss_picture", "rate_picture", "role_name"]

_Item = TypeVar("_Item")

LOW_GATE = 0.5  # events tell of gates that fall below it and come back
FAR_ABOVE = 3  # times the state: a budget's line that high would leave the state flat
_ROLES = ("table", "matrix", "vector")


def loss_picture(run: Run) -> str:
    """Every curve of losses, training's first; steps that were skipped are marked below."""
    if not run.losses:
        write = 'log.write("loss", step=step, loss=loss.item())'
        return _note(f"The log has no losses; training code writes them by {write}.")
    curves = sorted(run.losses, key=lambda curve: curve.held_out)
    several = len({curve.held_out for curve in curves}) < len(curves)
    series = []
    for curve, look in zip(curves, CURVES, strict=False):
        name = "validation" if curve.held_out else "training"
        name += f" ({curve.event}: {curve.field})" if several else ""
        series.append(Series(name, sorted(run.losses[curve].items()), look))
    marks = [Mark(s.step, None, "skipped", f"step {plain(s.step)} skipped") for s in run.skipped]
    drawn = line_chart("Loss", series, run.last_step, marks=_fewer(marks))
    if run.skipped:
        drawn += _note("Marks below are steps that were skipped.")
    if run.losses_without_number:
        drawn += _note(
            f"Losses that were not finite, and are left out: {run.losses_without_number:,}."
        )
    return drawn + _left_out(len(curves))


def rate_picture(run: Run) -> str:
    """The learning rate of every group; groups that always have the same share a curve."""
    series = _by_group(run, lambda group: group.lr)
    if not series:
        return _note("The log has no steps.")
    return _few(run, "Learning rate", series)


def gate_picture(run: Run) -> str:
    """The mean and the least factor of every group, and the events of single tensors."""
    means = _by_group(run, lambda group: group.gate, "mean of ")
    least = _by_group(run, lambda group: group.gate_min, "least of ")
    if not run.gates and all(y == 1.0 for one in (*means, *least) for _, y in one.points):
        return _note("No gate has acted: all factors are 1.")
    drawn = _few(
        run,
        "Gates",
        [*least, *means],
        bounds=(0.0, 1.05 * max(1.0, *_factors([*least, *means], run.gates))),
        marks=_fewer([*map(_gate_mark, run.gates)]),
    )
    if run.gates:
        drawn += _note(
            f"Full marks: a tensor's factor falls below {LOW_GATE}; hollow ones: it is back. "
            f"{len(run.gates):,} such events."
        )
    return drawn


def bytes_picture(run: Run) -> str:
    """Bytes of state by role, on each other, and the budget; by steps alone in a log without
    allocations."""
    if not run.allocations:
        points = [(s, row.state_bytes) for s, row in sorted(run.steps.items())]
        known = [(step, nbytes) for step, nbytes in points if nbytes is not None]
        if not known:
            return _note("The log has no allocations.")
        series = [Series("state, in bytes", known, CURVES[0])]
        return line_chart("Bytes of state", series, run.last_step)
    taken = _fewer(_latest(run.allocations))
    roles = sorted({role for a in taken for role in a.by_role}, key=_order_of_role)
    stacks = [
        Stack(role_name(role), [a.by_role.get(role, 0) for a in taken], look_of_role(role))
        for role in roles
    ]
    budgets = [(a.step, a.budget) for a in taken if a.budget is not None]
    highest = max(sum(a.by_role.values()) for a in taken)
    fits = budgets and min(budget for _, budget in budgets) <= FAR_ABOVE * max(highest, 1)
    limit = Series("budget", budgets, "limit", steps=True) if fits else None
    drawn = area_chart(
        "Bytes of state by role", [a.step for a in taken], stacks, run.last_step, limit=limit
    )
    if budgets and not fits:
        drawn += _note(f"The budget, {sized(budgets[-1][1])}, is far above the picture.")
    return drawn


def role_name(role: str) -> str:
    """A role as the page calls it: where nothing asks for one there is none."""
    return role or "no role"


def _by_group(run: Run, of: Callable[[GroupRow], float | None], title: str = "") -> list[Series]:
    """A curve for every group; groups with equal ones share it."""
    curves: dict[int, list[Point]] = {}
    for step, row in sorted(run.steps.items()):
        for index, group in enumerate(row.groups):
            value = of(group)
            if value is not None:
                curves.setdefault(index, []).append((step, value))
    shared: dict[tuple[Point, ...], list[int]] = {}
    for index, points in sorted(curves.items()):
        shared.setdefault(tuple(points), []).append(index)
    return [
        Series(title + _groups_name(run, indices), points, CURVES[0])
        for points, indices in shared.items()
    ]


def _groups_name(run: Run, indices: Sequence[int]) -> str:
    if len(indices) > 1:
        return "groups " + ", ".join(map(str, indices))
    groups = run.header.get("groups")
    group = groups[indices[0]] if isinstance(groups, list) and indices[0] < len(groups) else None
    given = (group.get("name") or group.get("role")) if isinstance(group, dict) else None
    return f"group {indices[0]}" + (f" ({given})" if given else "")


def _few(
    run: Run,
    name: str,
    series: Sequence[Series],
    *,
    bounds: tuple[float, float] | None = None,
    marks: Sequence[Mark] = (),
) -> str:
    """As many curves as there are looks."""
    looking = [one._replace(look=look) for one, look in zip(series, CURVES, strict=False)]
    drawn = line_chart(name, looking, run.last_step, bounds=bounds, marks=marks)
    return drawn + _left_out(len(series))


def _left_out(curves: int) -> str:
    return (
        _note(f"{curves - len(CURVES)} more curves are not shown.") if curves > len(CURVES) else ""
    )


def _gate_mark(event: GateEvent) -> Mark:
    low = event.factor < LOW_GATE
    text = f"step {plain(event.step)}: {event.name}, {plain(event.factor)}"
    return Mark(event.step, max(event.factor, 0.0), "low" if low else "back", text)


def _factors(series: Iterable[Series], events: Iterable[GateEvent]) -> list[float]:
    """All that are drawn; gates of norms may lengthen an update."""
    drawn = [y for one in series for _, y in one.points]
    return [y for y in (*drawn, *(event.factor for event in events)) if math.isfinite(y)]


def _latest(allocations: Iterable[Allocation]) -> list[Allocation]:
    """By step; what came later for one takes the earlier's place."""
    by_step = {allocation.step: allocation for allocation in allocations}
    return [by_step[step] for step in sorted(by_step)]


def _fewer(items: list[_Item]) -> list[_Item]:
    """At most so many as a picture shows, evenly, with the last."""
    count = len(items)
    if count <= MOST_POINTS:
        return items
    return [items[(n + 1) * count // MOST_POINTS - 1] for n in range(MOST_POINTS)]


def _order_of_role(role: str) -> tuple[int, str]:
    return (_ROLES.index(role) if role in _ROLES else len(_ROLES), role)


def _note(text: str) -> str:
    return element("p", escaped(text), class_="note")
