"""A rule, a gate and a codec that the package does not have: `toy/` is all that they take."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
TOY = Path(__file__).parent / "toy"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package with the parts of `toy/`, for the baseline's instruction set alone."""
    folder = tmp_path_factory.mktemp("more_parts")
    command = [
        sys.executable, "-m", "pip", "install", "--quiet", "--no-build-isolation", "--no-deps",
        "--no-index", "--target", str(folder / "package"), "-C", f"build-dir={folder / 'build'}",
        "-C", f"cmake.define.COSMIC_MORE_PARTS={TOY}", "-C", "cmake.define.COSMIC_ISAS=",
        str(ROOT),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "package"


@pytest.fixture(scope="module")
def found(built: Path) -> dict[str, Any]:
    """What `trainings.py` sees, in a process of its own, which has that package."""
    # -S: an editable install would come before the path
    path = os.pathsep.join([str(built), *sys.path])
    environment = {**os.environ, "PYTHONPATH": path, "COSMIC_ISA": "scalar"}
    done = subprocess.run(
        [sys.executable, "-S", "-W", "error", str(Path(__file__).parent / "trainings.py")],
        capture_output=True, text=True, check=False, env=environment, cwd=built,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    seen: dict[str, Any] = json.loads(done.stdout)
    return seen


def test_the_package_knows_them(built: Path, found: dict[str, Any]) -> None:
    assert Path(found["package"]).is_relative_to(built)
    assert found["rungs"] == [
        "float clamped fp32 none fp32", "float clamped u4 none v4",
        "float adam f16 none fp32", "float softsign f16 none fp32",
        "float adam f16 none factored", "float softsign f16 none factored",
    ]  # fmt: skip
    assert found["defaults"] == {"clamp": 0.25, "quiet_least": 0.1}


def test_the_self_test_steps_them_too(found: dict[str, Any]) -> None:
    assert found["combinations"] == found["combinations without"] + 6


@pytest.mark.parametrize("rung", ["fp32+fp32", "u4+v4"])
def test_the_rule_holds_updates_within_its_option(rung: str, found: dict[str, Any]) -> None:
    """Adam's first update is a sign: half of what it may be is what is seen."""
    seen = found["clamped"][rung]
    assert seen["first"] == pytest.approx(0.5 * 0.125, rel=1e-5)
    assert seen["loss"] < 0.1 * seen["loss at first"]


def test_the_rule_is_its_formula(found: dict[str, Any]) -> None:
    assert found["formula"] == pytest.approx(found["by formula"], rel=1e-4, abs=1e-6)


def test_the_codec_keeps_halves_in_place_of_floats(found: dict[str, Any]) -> None:
    seen = found["f16"]
    assert seen["dtype"] == "torch.float16" and seen["saved"] == seen["half"] * 2
    assert seen["bytes"] == 2 * 64 * 64 + 4 * 64 * 64 + 8
    assert seen["resumed"] == seen["went on"]
    assert seen["loss"] < 0.1 * seen["loss at first"]


def test_the_gate_acts_by_what_its_probe_saw(found: dict[str, Any]) -> None:
    """Gradients have 1/4, 1/2, 1 and no elements other than zero; the least factor is 0.125."""
    shares = [0.25, 0.5, 1.0, 0.0]
    assert found["quiet"]["lagged"] == [1.0, *shares[:-1]]  # it begins at 1
    assert found["quiet"]["exact"] == [max(share, 0.125) for share in shares]
    assert found["quiet"]["param rms"] == pytest.approx(found["quiet"]["rms of the parameter"])


def test_the_gate_s_option_is_checked_by_its_name(found: dict[str, Any]) -> None:
    assert "['quiet_least'] is 2; expected a number in [0, 1]" in found["refused"]
