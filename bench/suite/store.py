"""Finished trainings on disk, for several processes at once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from shared.lines import Lines
from suite.training import Result, Run, train


class Store:
    """Results by run, in a file of JSON lines that any number of processes read and lengthen.

    Args:
        looks: at the held-out data during a training, as of `train`.
    """

    def __init__(self, path: Path, looks: Sequence[float] = ()) -> None:
        self._looks = looks
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lines = Lines(path)
        self._results: dict[str, Result] = {}

    def get(self, run: Run) -> Result | None:
        """The result of a finished run, this process's or another's."""
        self._catch_up()
        return self._results.get(_text(run.key))

    def finish(self, run: Run) -> Result:
        """The result of a run, trained if there is none yet."""
        result = self.get(run)
        if result is None:
            result = train(run, self._looks)
            self._lines.append({"key": run.key, "result": asdict(result)})
            print(
                f"{run.task} {run.optimizer} rate {run.rate:g} matrix {run.matrix:g} "
                f"vector {run.vector:g} seed {run.seed}: {result.loss:.4f} "
                f"in {result.seconds:.0f} s",
                flush=True,
            )
        return result

    def _catch_up(self) -> None:
        for content in self._lines.new():
            self._results[_text(content["key"])] = Result(**content["result"])


def _text(key: dict[str, Any]) -> str:
    return json.dumps(key, sort_keys=True)
