"""Finished trainings of bench/noise.py on disk, and what trains those that are missing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tqdm import tqdm

from noisy.optimizers import version
from noisy.tasks import TASKS, train

Result = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """One training."""

    task: str
    optimizer: str
    lr: float
    weight_decay: float
    seed: int

    @property
    def key(self) -> str:
        """All that the result depends on; a run whose key has a result is not trained again."""
        task = asdict(TASKS[self.task])
        for tuning in ("lrs", "decays", "common", "tuning_seeds"):
            del task[tuning]
        return json.dumps(
            asdict(self) | {"version": version(self.optimizer), "setting": task}, sort_keys=True
        )


def measure(run: Run) -> Result:
    """The figures of `tasks.train`."""
    return train(run.task, run.optimizer, run.lr, run.weight_decay, run.seed)


class Store:
    """Results by run, in memory and in a file of JSON lines that a later call continues."""

    def __init__(self, path: Path) -> None:
        self._path = path
        text = path.read_text() if path.exists() else ""
        whole, _, half = text.rpartition("\n")
        if half:  # what a call that was broken off has left
            path.write_text(f"{whole}\n" if whole else "")
        lines = map(json.loads, whole.splitlines())
        self._results: dict[str, Result] = {line["key"]: line["result"] for line in lines}

    def __getitem__(self, run: Run) -> Result:
        return self._results[run.key]

    def finish(self, runs: Sequence[Run], jobs: int, title: str) -> None:
        """Train what has no result yet, `jobs` at the same time, each in one thread."""
        todo = [run for run in dict.fromkeys(runs) if run.key not in self._results]
        if not todo:
            return
        context = get_context("spawn")  # forking is unsafe once torch has started threads
        with ProcessPoolExecutor(jobs, mp_context=context) as pool:
            waiting = {pool.submit(measure, run): run for run in todo}
            for future in tqdm(as_completed(waiting), title, len(todo), unit="run"):
                self._keep(waiting[future], future.result())

    def _keep(self, run: Run, result: Result) -> None:
        self._results[run.key] = result
        with self._path.open("a") as file:
            file.write(json.dumps({"key": run.key, "result": result}) + "\n")
