"""Structured event logs: one JSON object a line."""

from __future__ import annotations

import json
import math
import os
import platform
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from . import _core
from .capital.named import policy_named
from .optimizer import Cosmic, Listener
from .threads import thread_count

__all__ = ["EventLog"]

#: A gate event is written when a tensor's factor falls below this, and when it is back.
GATE_THRESHOLD = 0.5


class EventLog:
    """Writes what an optimizer does as JSON lines.

    ``EventLog("run.jsonl").attach(optimizer)`` is all there is to do. Every line has ``event`` and
    ``time`` (seconds since the epoch):

    - ``run``: versions, ISA, threads, seed and configuration, once, when attached;
    - ``step``: step, state_bytes and, for each group, lr and what ``optimizer.stats()`` says;
    - ``transition``: step, name, before, after (rungs) and why of a parameter that changed its rung
      in the step that follows that many;
    - ``allocation``: step (as of a transition), budget (bytes, or null), state_bytes and tensors, a
      list of what ``optimizer.tiers()`` says: name, role, rung, numel, nbytes, why. At the first
      step after attaching, and whenever a new plan has changed any of that;
    - ``option``: step, controller, group, option, before, after, when a controller has moved it;
    - ``gate``: step, name, factor, when it falls below 0.5 and when it is back;
    - ``skipped``: a step left out for non-finite gradients;
    - any event of your own, by ``write``: ``log.write("loss", step=step, loss=loss.item())``.

    ``cosmic report run.jsonl`` makes a page of it, with curves of the losses that you write.

    Args:
        path: file to write; appended to if it is there, after a line that a run which was killed
            has left broken. Its folder must exist.
        every: write a ``step`` line every so many steps.
    """

    def __init__(self, path: str | os.PathLike[str], *, every: int = 1) -> None:
        if not isinstance(every, int) or every < 1:
            raise ValueError(f"every is {every!r}; expected an int, 1 or more")
        broken = _ends_within_a_line(Path(path))
        self._file = Path(path).open("a", encoding="utf-8")  # noqa: SIM115 (closed by close)
        if broken:
            self._file.write("\n")
        self._every = every
        self._attached: list[tuple[Cosmic, Listener]] = []

    def attach(self, optimizer: Cosmic) -> EventLog:
        """Log ``optimizer`` from now on; returns the log itself."""
        if not isinstance(optimizer, Cosmic):
            raise TypeError(f"expected a Cosmic optimizer, got {type(optimizer).__name__}")
        low_gates: set[str] = set()

        def listen(event: str, fields: dict[str, Any]) -> None:
            if event == "step":
                self._write_gates(optimizer, fields["step"], low_gates)
                self._write_step(optimizer, fields["step"])
            else:
                self.write(event, **fields)

        self.write("run", **_run_header(optimizer))
        self._attached.append((optimizer, listen))
        optimizer.add_listener(listen)
        return self

    def write(self, event: str, **fields: Any) -> None:
        """Write one line. Numbers that JSON lacks (NaN, infinities) are written as null."""
        record = _jsonable({"event": event, "time": time.time(), **fields})
        self._file.write(json.dumps(record, allow_nan=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Detach and close the file."""
        for optimizer, listen in self._attached:
            optimizer.remove_listener(listen)
        self._attached.clear()
        self._file.close()

    def __del__(self) -> None:
        if file := getattr(self, "_file", None):
            file.close()  # every line has been flushed: a log that nobody closes is whole

    def __enter__(self) -> EventLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _write_step(self, optimizer: Cosmic, step: int) -> None:
        if step % self._every == 0:
            groups = [
                {"lr": float(group["lr"]), **stats}
                for group, stats in zip(optimizer.param_groups, optimizer.stats(), strict=True)
            ]
            self.write("step", step=step, state_bytes=optimizer.state_bytes(), groups=groups)

    def _write_gates(self, optimizer: Cosmic, step: int, low_gates: set[str]) -> None:
        for name, factor in optimizer.gate_factors().items():
            low = factor < GATE_THRESHOLD
            if low != (name in low_gates):
                (low_gates.add if low else low_gates.discard)(name)
                self.write("gate", step=step, name=name, factor=factor)


def _ends_within_a_line(path: Path) -> bool:
    """Whether a run that was killed has left a line without an end, which would swallow ours."""
    if not path.is_file() or path.stat().st_size == 0:
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(item) for item in value]
    if isinstance(value, torch.Tensor):
        return _jsonable(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, str | int | bool | None) else str(value)


def _run_header(optimizer: Cosmic) -> dict[str, Any]:
    info = _core.build_info()
    return {
        "cosmic": info["version"],
        "torch": torch.__version__,
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "isa": info["isa"],
        "threads": thread_count(),
        "seed": optimizer.seed,
        "budget": optimizer.budget,
        "policy": policy_named(optimizer.policy).name,
        "reallocate_every": optimizer.reallocate_every,
        "nonfinite": optimizer.nonfinite,
        "groups": [
            {key: value for key, value in group.items() if key not in ("params", "param_names")}
            for group in optimizer.param_groups
        ],
    }
