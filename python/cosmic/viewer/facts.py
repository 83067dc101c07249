"""The head of the page: what ran, how long, and where it ended."""

from __future__ import annotations

from collections.abc import Iterator

from .log import Run
from .markup import element, escaped
from .scales import plain, sized

__all__ = ["ADAMW_BYTES", "facts"]

ADAMW_BYTES = 8  # two fp32 moments an element

_OF_HEADER = {
    "cosmic": "COSMIC", "torch": "torch", "python": "Python", "platform": "platform",
    "isa": "instruction set", "threads": "threads", "seed": "seed", "policy": "policy",
    "reallocate_every": "steps between looks", "nonfinite": "non-finite gradients",
}  # fmt: skip


def facts(run: Run) -> str:
    """A name and a value a fact; what the log does not say is left out."""
    told = (
        element("div", element("dt", escaped(name)) + element("dd", escaped(value)))
        for name, value in _facts(run)
    )
    return element("dl", "\n".join(told))


def _facts(run: Run) -> Iterator[tuple[str, str]]:
    for key, name in _OF_HEADER.items():
        if run.header.get(key) is not None:
            yield name, str(run.header[key])
    if run.header:
        yield "budget", _budget(run)
    yield "last step", plain(run.last_step)
    if run.times:
        yield "length", _duration(run.times[1] - run.times[0])
    for curve, points in run.losses.items():
        title = "last validation loss" if curve.held_out else "last loss"
        yield f"{title} ({curve.event})", plain(points[max(points)])
    if run.tensors:
        yield "state", _state(run)


def _budget(run: Run) -> str:
    asked = run.header.get("budget")
    resolved = run.allocations[-1].budget if run.allocations else None
    if resolved is not None:  # may have been changed since the header was written
        return f"{plain(resolved)} bytes" + (f" (first: {asked})" if asked is not None else "")
    return "none" if asked is None else str(asked)


def _state(run: Run) -> str:
    nbytes = sum(tensor.nbytes for tensor in run.tensors)
    adamw = ADAMW_BYTES * sum(tensor.numel for tensor in run.tensors)
    share = f", {nbytes / adamw:.2%} of AdamW's" if adamw else ""
    return f"{sized(nbytes)}{share}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(max(0, round(seconds)), 60)
    if minutes < 1:
        return f"{max(0.0, seconds):.1f} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"
