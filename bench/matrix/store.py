"""Finished trainings of bench/matrix_rule.py on disk, for several processes at once."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from matrix.training import Result, Run
from shared.lines import Lines


class Store:
    """Results by run, in a file of JSON lines that any number of processes read and lengthen.

    The last line of a run counts. A line is written at once, at the end of the file; one that was
    broken off is passed over.
    """

    def __init__(self, path: Path) -> None:
        self._lines = Lines(path)
        self._results: dict[str, Result] = {}

    def get(self, run: Run) -> Result | None:
        """The result of a finished run, this process's or another's."""
        self._catch_up()
        return self._results.get(_text(run.key))

    def put(self, run: Run, result: Result) -> None:
        """Keep a result."""
        self._lines.append({"key": run.key, "result": asdict(result)})

    def forget(self, task: str, optimizer: str) -> None:
        """Drop the results of an optimizer on a task, for all processes and later calls."""
        self._lines.append({"task": task, "optimizer": optimizer})

    def _catch_up(self) -> None:
        for content in self._lines.new():
            self._take(content)

    def _take(self, content: dict[str, Any]) -> None:
        if "key" in content:
            content["result"]["curve"] = [(s, loss) for s, loss in content["result"]["curve"]]
            self._results[_text(content["key"])] = Result(**content["result"])
            return
        for text in list(self._results):
            key = json.loads(text)
            if all(key[name] == content[name] for name in ("task", "optimizer")):
                del self._results[text]


def _text(key: dict[str, Any]) -> str:
    return json.dumps(key, sort_keys=True)
