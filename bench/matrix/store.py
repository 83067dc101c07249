"""Finished trainings of bench/matrix_rule.py on disk, for several processes at once."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from matrix.training import Result, Run


class Store:
    """Results by run, in a file of JSON lines that any number of processes read and lengthen.

    The last line of a run counts. A line is written at once, at the end of the file; one that was
    broken off is passed over.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._read = path, 0
        self._results: dict[str, Result] = {}

    def get(self, run: Run) -> Result | None:
        """The result of a finished run, this process's or another's."""
        self._catch_up()
        return self._results.get(_text(run.key))

    def put(self, run: Run, result: Result) -> None:
        """Keep a result."""
        self._append({"key": run.key, "result": asdict(result)})

    def forget(self, task: str, optimizer: str) -> None:
        """Drop the results of an optimizer on a task, for all processes and later calls."""
        self._append({"task": task, "optimizer": optimizer})

    def _append(self, content: dict[str, Any]) -> None:
        line = (json.dumps(content) + "\n").encode()
        file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(file, line)
        finally:
            os.close(file)

    def _catch_up(self) -> None:
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._read)
            whole, newline, _ = file.read().rpartition(b"\n")
        self._read += len(whole) + len(newline)
        for line in whole.splitlines():
            self._take(line)

    def _take(self, line: bytes) -> None:
        try:
            content = json.loads(line)
        except ValueError:
            return
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
