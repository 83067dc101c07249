"""An event log, read: its runs, and of each what the page shows."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

__all__ = [
    "Allocation",
    "GateEvent",
    "GroupRow",
    "LogError",
    "LossCurve",
    "Run",
    "Skipped",
    "StepRow",
    "TensorRow",
    "TransitionRow",
    "number",
    "read_runs",
]

LOSSES = ("loss", "train_loss", "validation_loss")
MOST = 1e300  # sums and differences of what is larger overflow
LEAST = 1e-300  # a hundredth of what is smaller is 0


class LogError(Exception):
    """A file that cannot be shown. The message is one sentence."""


class LossCurve(NamedTuple):
    """Where a loss was written: the event's name and the field's."""

    event: str
    field: str

    @property
    def held_out(self) -> bool:
        """Whether it is of data that is not trained on, as the names say."""
        return self.field == "validation_loss" or self.event.lower().startswith(("val", "eval"))


class GroupRow(NamedTuple):
    """What a ``step`` event says of a parameter group."""

    lr: float | None
    gate: float | None
    gate_min: float | None


class StepRow(NamedTuple):
    """A ``step`` event."""

    state_bytes: float | None
    groups: tuple[GroupRow, ...]
    skipped: int
    nonfinite: int


class TransitionRow(NamedTuple):
    """A ``transition`` event."""

    step: float
    name: str
    before: str
    after: str
    why: str


class TensorRow(NamedTuple):
    """What an ``allocation`` event says of a parameter."""

    name: str
    role: str
    rung: str
    numel: int
    nbytes: int
    why: str


class Allocation(NamedTuple):
    """An ``allocation`` event without its tensors."""

    step: float
    budget: float | None
    by_role: dict[str, int]


class GateEvent(NamedTuple):
    """A ``gate`` event."""

    step: float
    name: str
    factor: float


class Skipped(NamedTuple):
    """A ``skipped`` event."""

    step: float
    parameters: tuple[str, ...]


@dataclass
class Run:
    """One run of a log. Steps are keys: what came later for one takes the earlier's place, as after
    a checkpoint was loaded."""

    header: dict[str, Any] = field(default_factory=dict)
    losses: dict[LossCurve, dict[float, float]] = field(default_factory=dict)
    losses_without_number: int = 0
    steps: dict[float, StepRow] = field(default_factory=dict)
    transitions: list[TransitionRow] = field(default_factory=list)
    allocations: list[Allocation] = field(default_factory=list)
    tensors: list[TensorRow] = field(default_factory=list)  # of the last allocation
    gates: list[GateEvent] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    times: tuple[float, float] | None = None  # of the first event and of the last
    passed_over: int = 0  # lines that are no events

    @property
    def last_step(self) -> float:
        """The last step that anything was written of."""
        written: list[float] = [step for points in self.losses.values() for step in points]
        written += self.steps
        written += [event.step for event in self.transitions]
        written += [event.step for event in self.allocations]
        written += [event.step for event in self.gates]
        written += [event.step for event in self.skipped]
        return max(written, default=0.0)

    def add(self, record: dict[str, Any]) -> None:
        """Take an event; one that lacks what it should have is passed over."""
        self._add_time(number(record["time"]))
        step = number(record.get("step"))
        if step is None:
            return
        self._add_losses(step, record)
        take = _TAKERS.get(record["event"])
        if take is not None:
            take(self, step, record)

    def _add_time(self, time: float | None) -> None:
        if time is not None:
            self.times = (self.times[0] if self.times else time, time)

    def _add_losses(self, step: float, record: dict[str, Any]) -> None:
        for name in LOSSES:
            if name in record:
                value = number(record[name])
                if value is not None:
                    curve = LossCurve(record["event"], name)
                    self.losses.setdefault(curve, {})[step] = value
                elif record[name] is None:  # what JSON has for NaN and infinities
                    self.losses_without_number += 1


def read_runs(path: Path) -> list[Run]:
    """All runs of a log, in order; a line that is no event, such as the last one of a run that was
    killed, is passed over.

    Raises:
        LogError: for a file that cannot be read, is empty, or holds no events.
    """
    runs: list[Run] = []
    waiting = 0  # lines before the first event
    for record in _records(path):
        if record is None and runs:
            runs[-1].passed_over += 1
        elif record is None:
            waiting += 1
        else:
            if not runs or _is_header(record):
                runs.append(Run())
            if _is_header(record):
                runs[-1].header = record
            runs[-1].add(record)
    if not runs:
        raise LogError(
            f"{path} is no event log: none of its lines is an event of cosmic.logging.EventLog"
            if waiting
            else f"{path} is empty: no event has been written to it"
        )
    runs[0].passed_over += waiting
    return runs


def number(value: object) -> float | None:
    """A number that can be drawn, or None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if not -MOST < value < MOST:  # nor is NaN
        return None
    return float(value) if abs(value) > LEAST else 0.0


def _records(path: Path) -> Iterator[dict[str, Any] | None]:
    """The events of a file; None for a line that is none."""
    if path.is_dir():
        raise LogError(f"{path} is a folder; expected an event log")
    try:
        with path.open("rb") as file:
            for line in file:
                if line.strip():
                    yield _parsed(line)
    except FileNotFoundError:
        raise LogError(f"{path} does not exist") from None
    except OSError as error:
        raise LogError(f"{path} cannot be read: {error.strerror}") from error


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None
    known = isinstance(record, dict) and isinstance(record.get("event"), str) and "time" in record
    return record if known else None


def _is_header(record: dict[str, Any]) -> bool:
    return record["event"] == "run" and "cosmic" in record


def _take_step(run: Run, step: float, record: dict[str, Any]) -> None:
    groups = [group for group in _items(record.get("groups")) if isinstance(group, dict)]
    run.steps[step] = StepRow(
        number(record.get("state_bytes")),
        tuple(GroupRow(*(number(group.get(key)) for key in GroupRow._fields)) for group in groups),
        max((_count(group.get("skipped_steps")) for group in groups), default=0),
        max((_count(group.get("nonfinite_gradients")) for group in groups), default=0),
    )


def _take_transition(run: Run, step: float, record: dict[str, Any]) -> None:
    texts = (_text(record.get(key)) for key in ("name", "before", "after", "why"))
    run.transitions.append(TransitionRow(step, *texts))


def _take_allocation(run: Run, step: float, record: dict[str, Any]) -> None:
    rows = (row for row in _items(record.get("tensors")) if isinstance(row, dict))
    run.tensors = [_tensor(row) for row in rows]
    by_role: Counter[str] = Counter()
    for tensor in run.tensors:
        by_role[tensor.role] += tensor.nbytes
    run.allocations.append(Allocation(step, number(record.get("budget")), dict(by_role)))


def _tensor(row: dict[str, Any]) -> TensorRow:
    name, role, rung, why = (_text(row.get(key)) for key in ("name", "role", "rung", "why"))
    return TensorRow(name, role, rung, _count(row.get("numel")), _count(row.get("nbytes")), why)


def _take_gate(run: Run, step: float, record: dict[str, Any]) -> None:
    factor = number(record.get("factor"))
    if factor is not None:
        run.gates.append(GateEvent(step, _text(record.get("name")), factor))


def _take_skipped(run: Run, step: float, record: dict[str, Any]) -> None:
    names = tuple(_text(name) for name in _items(record.get("parameters")))
    run.skipped.append(Skipped(step, names))


_TAKERS = {
    "step": _take_step,
    "transition": _take_transition,
    "allocation": _take_allocation,
    "gate": _take_gate,
    "skipped": _take_skipped,
}


def _items(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _count(value: object) -> int:
    return int(number(value) or 0)
