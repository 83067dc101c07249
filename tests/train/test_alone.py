"""What needs a process of its own: missing packages, its peak of memory, and to be killed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What ``alone.py`` reports."""
    folder, script = tmp_path_factory.mktemp("alone"), Path(__file__).with_name("alone.py")
    command = [sys.executable, str(script), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def test_it_runs_without_the_demo_packages(found: Any) -> None:
    """Of which only drawing needs one, and says which extra brings it."""
    said = "save_results=True needs matplotlib: pip install 'cosmic-optim["
    assert found["packages"].startswith(said)


def test_saving_does_not_copy_the_weights(found: Any) -> None:
    assert found["saving"]["file"] > 160e6
    assert found["saving"]["growth"] < 16e6


def test_kills_at_random_moments_lose_nothing(found: Any) -> None:
    assert found["kills"]["kills"] == 12
    assert found["kills"]["before_the_first"] < 12, "some were killed later than that"
