"""Which instruction sets there are, and how one of them is asked for: once a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from cosmic import _core, backends

PROGRAM = """
import json, os
import torch
from cosmic import Cosmic, backends

said = []
def told(call, *args):
    try:
        said.append(call(*args))
    except (RuntimeError, ValueError) as error:
        said.append(f"{type(error).__name__}: {error}")

%s
print(json.dumps(said))
"""
STEP = """
param = torch.nn.Parameter(torch.arange(4096.0).reshape(64, 64))
optimizer = Cosmic([param])
param.grad = param.detach().sin()
optimizer.step()
told(lambda: float(param.detach().double().sum()).hex())
"""


def process(source: str, isa: str | None = None) -> list[Any]:
    """What a process of its own says."""
    environment = {k: v for k, v in os.environ.items() if k != "COSMIC_ISA"}
    if isa is not None:
        environment["COSMIC_ISA"] = isa
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM % source], env=environment, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    said: list[Any] = json.loads(ran.stdout)
    return said


def test_available_are_those_of_the_build_best_first() -> None:
    assert backends.available() == _core.build_info()["isa_available"]
    assert backends.available()[-1] == "scalar"


def test_selected_is_the_best_or_the_one_that_the_variable_names() -> None:
    assert process("told(backends.selected)") == [backends.available()[0]]
    assert process("told(backends.selected)", "scalar") == ["scalar"]


def test_configure_settles_the_process_and_those_that_it_starts() -> None:
    source = """
told(backends.available)
told(backends.configure, "scalar")
told(backends.selected)
told(os.environ.get, "COSMIC_ISA")
told(backends.configure, "scalar")
"""
    assert process(source) == [backends.available(), None, "scalar", "scalar", None]


def test_it_comes_before_a_variable_that_names_what_there_is_not() -> None:
    found = process('told(backends.configure, "scalar")\ntold(backends.selected)', "mmx")
    assert found == [None, "scalar"]
    first, second = process('told(backends.selected)\ntold(backends.configure, "scalar")', "mmx")
    assert first == second
    assert "environment variable COSMIC_ISA: ISA 'mmx' is not available here" in first


@pytest.mark.skipif(len(backends.available()) < 2, reason="there is nothing to choose here")
@pytest.mark.parametrize("isa", [None, backends.available()[0]])
def test_it_is_too_late_once_something_has_run(isa: str | None) -> None:
    used = backends.available()[0]
    source = STEP + 'told(backends.configure, "scalar")\ntold(os.environ.get, "COSMIC_ISA")'
    _, said, variable = process(source, isa)
    assert said.startswith(
        f"RuntimeError: isa is 'scalar', but this process uses {used!r} already; call "
        "cosmic.backends.configure('scalar') before"
    )
    assert variable == isa


def test_a_choice_changes_no_bit() -> None:
    sums = {process(f"told(backends.configure, {isa!r})" + STEP)[1] for isa in backends.available()}
    assert len(sums) == 1


@pytest.mark.parametrize("isa", ["mmx", "AVX2", "", None, 2])
def test_what_is_not_available_is_refused(isa: Any) -> None:
    with pytest.raises(ValueError, match=r"isa is .*expected one of .*'scalar'"):
        backends.configure(isa)


def test_diagnostics_are_facts_ready_for_json(
    monkeypatch: pytest.MonkeyPatch, set_threads: Any
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    set_threads(1)
    found = backends.diagnostics()
    assert json.loads(json.dumps(found)) == found
    assert found["isa"] == backends.selected()
    assert found["threads"] == 1 and found["forked"] is False
    assert found["environment"]["OMP_NUM_THREADS"] == "7"
    assert found["self_test"] is None
    build = _core.build_info()
    assert found["cosmic"] == build.pop("version")
    assert build.items() <= found.items()
