"""Finished runs on disk, and what runs those that are not: processes, several at a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from training_run import Run

ONE_THREAD = {"OMP_NUM_THREADS": "1", "TORCHINDUCTOR_COMPILE_THREADS": "1", "HF_HUB_OFFLINE": "1"}

Result = dict[str, Any]


class Store:
    """Results by run, in memory and in a file of JSON lines that a later call continues.

    Attributes:
        failed: why a variant does not run here; it is left out from then on, and tried again by
            the next call.
    """

    def __init__(self, path: Path, tokens: Path) -> None:
        self.failed: dict[str, str] = {}
        self._path, self._tokens = path, tokens
        self._lock = threading.Lock()
        text = path.read_text() if path.exists() else ""
        whole, _, half = text.rpartition("\n")
        if half:  # what a call that was broken off has left
            path.write_text(f"{whole}\n" if whole else "")
        self._results = dict(_parsed(line) for line in whole.splitlines())

    def get(self, run: Run) -> Result | None:
        """The result of a finished run."""
        return self._results.get(_text(run.key))

    def finish(self, runs: Sequence[Run], jobs: int) -> None:
        """Run those that have no result yet, at most `jobs` at the same time."""
        todo = [run for run in runs if self.get(run) is None]
        start = time.perf_counter()
        done = 0

        def work(run: Run) -> None:
            nonlocal done
            if run.variant in self.failed:
                return
            outcome = run_in_process(run, self._tokens)
            with self._lock:
                done += 1
                left = (time.perf_counter() - start) / done * (len(todo) - done)
                self._note(run, outcome, f"{done}/{len(todo)}, {left / 60:.0f} min left")

        with ThreadPoolExecutor(jobs) as pool:
            list(pool.map(work, todo))

    def _note(self, run: Run, outcome: Result | str, progress: str) -> None:
        at = f"lr {run.config.lr:g}, factor {run.factor:g}, seed {run.config.seed}"
        if isinstance(outcome, str):
            self.failed.setdefault(run.variant, outcome)
            print(f"[{progress}] {run.variant}, {at}: fails here: {outcome}", flush=True)
            return
        self._results[_text(run.key)] = outcome
        with self._path.open("a") as file:
            file.write(json.dumps({"key": run.key, "result": outcome}) + "\n")
        loss, seconds = outcome["validation_loss"], outcome["seconds"]
        print(f"[{progress}] {run.variant}, {at}: {loss:.4f} in {seconds:.0f} s", flush=True)


def run_in_process(run: Run, tokens: Path) -> Result | str:
    """The result; or, if the process failed, the last line that it wrote."""
    with tempfile.TemporaryDirectory() as temporary:
        job, out = Path(temporary, "run.json"), Path(temporary, "result.json")
        run.save(job)
        script = Path(__file__).parents[1] / "training_run.py"
        process = subprocess.run(
            [sys.executable, str(script), str(job), str(tokens), str(out)],
            env=os.environ | ONE_THREAD,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        if process.returncode == 0:
            result: Result = json.loads(out.read_text())
            return result
        lines = process.stderr.strip().splitlines() or ["no message"]
        return f"{lines[-1]} (exit status {process.returncode})"


def _parsed(line: str) -> tuple[str, Result]:
    content = json.loads(line)
    return _text(content["key"]), content["result"]


def _text(key: dict[str, Any]) -> str:
    return json.dumps(key, sort_keys=True)
