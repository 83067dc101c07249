"""What of a run becomes a table."""

from __future__ import annotations

from collections import defaultdict

from .charts import legend
from .log import Run
from .markup import element, escaped, table
from .pictures import LOW_GATE, role_name
from .scales import plain, sized
from .style import look_of_role
from .treemap import treemap

__all__ = ["allocation_section", "gate_table", "skipped_section", "transition_table"]

MOST_NAMES = 5  # of a skipped step


def transition_table(run: Run) -> str:
    """Step, name, rungs before and after, and why; all tensors' first rungs among them."""
    if not run.transitions:
        return _note("No tensor has changed its rung.")
    head = ("step", "name", "before", "after", "why")
    rows = ((plain(t.step), t.name, t.before or "-", t.after, t.why) for t in run.transitions)
    return table("transitions", head, rows, "step")


def allocation_section(run: Run) -> str:
    """What each tensor holds at the end: a treemap and a table."""
    if not run.tensors:
        return _note("The log has no allocations.")
    nbytes = sum(t.nbytes for t in run.tensors)
    without = sum(t.nbytes == 0 for t in run.tensors)
    said = f"Since step {plain(run.allocations[-1].step)}: {sized(nbytes)}"
    said += f" in {len(run.tensors):,} tensors" + (
        f", {without:,} of them without" if without else ""
    )
    head = ("name", "role", "rung", "elements", "bytes", "bits/element", "why")
    rows = (
        (
            t.name, role_name(t.role), t.rung, f"{t.numel:,}", f"{t.nbytes:,}",
            f"{8 * t.nbytes / t.numel:.3f}" if t.numel else "0", t.why,
        )
        for t in run.tensors
    )  # fmt: skip
    return (
        _note(f"{said}.")
        + _map(run)
        + table("allocation", head, rows, "elements,bytes,bits/element")
    )


def gate_table(run: Run) -> str:
    """How often each tensor's gate fell low, and how far."""
    low: dict[str, list[float]] = defaultdict(list)
    for event in run.gates:
        if event.factor < LOW_GATE:
            low[event.name].append(event.factor)
    if not low:
        return ""
    rows = ((name, f"{len(found):,}", plain(min(found))) for name, found in low.items())
    return table("gates", ("name", "times low", "least factor"), rows, "times low,least factor")


def skipped_section(run: Run) -> str:
    """Counts, and the steps that were left out."""
    last = run.steps[max(run.steps)] if run.steps else None
    skipped = max(len(run.skipped), last.skipped if last else 0)
    nonfinite = last.nonfinite if last else 0
    said = element(
        "p",
        f'Skipped steps: <b id="skipped-steps">{skipped:,}</b>. Non-finite elements of gradients: '
        f'<b id="nonfinite-gradients">{nonfinite:,}</b>.',
    )
    if not run.skipped:
        return said
    rows = ((plain(s.step), _names(s.parameters)) for s in run.skipped)
    return said + table(
        "skipped", ("after step", "gradients that were not finite"), rows, "after step"
    )


def _map(run: Run) -> str:
    roles = dict.fromkeys(t.role for t in run.tensors if t.nbytes)
    if not roles:
        return ""
    looks = {role: look_of_role(role) for role in roles}
    drawn = treemap("Bytes of state by tensor", run.tensors, looks)
    return drawn + legend([(role_name(role), look, "area") for role, look in looks.items()])


def _names(parameters: tuple[str, ...]) -> str:
    more = len(parameters) - MOST_NAMES
    return ", ".join(parameters[:MOST_NAMES]) + (f" and {more:,} more" if more > 0 else "")


def _note(text: str) -> str:
    return element("p", escaped(text), class_="note")
