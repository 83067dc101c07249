"""Which instruction sets there are, and how one of them is asked for: once a process."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cosmic import _core, backends
from fresh_processes import Program, outputs_of

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
CONFIGURED = """
told(backends.available)
told(backends.configure, "scalar")
told(backends.selected)
told(os.environ.get, "COSMIC_ISA")
told(backends.configure, "scalar")
"""
SELECTED = "told(backends.selected)\n"
TO_SCALAR = 'told(backends.configure, "scalar")\n'
BEST = backends.available()[0]

#: What processes of their own do, and the ISA that their environment names, by name.
PROGRAMS: dict[str, tuple[str, str | None]] = {
    "selected": (SELECTED, None),
    "selected as named": (SELECTED, "scalar"),
    "configured": (CONFIGURED, None),
    "before what there is not": (TO_SCALAR + SELECTED, "mmx"),
    "after what there is not": (SELECTED + TO_SCALAR, "mmx"),
    "late": (STEP + TO_SCALAR + 'told(os.environ.get, "COSMIC_ISA")', None),
    "late, named": (STEP + TO_SCALAR + 'told(os.environ.get, "COSMIC_ISA")', BEST),
    **{f"step {isa}": (f"told(backends.configure, {isa!r})" + STEP, None)
       for isa in backends.available()},
}  # fmt: skip


@pytest.fixture(scope="module")
def said() -> dict[str, list[Any]]:
    """What each of the processes says."""
    programs = [
        Program(PROGRAM % source, {"COSMIC_ISA": isa} if isa else {})
        for source, isa in PROGRAMS.values()
    ]
    return dict(zip(PROGRAMS, map(json.loads, outputs_of(programs)), strict=True))


def test_available_are_those_of_the_build_best_first() -> None:
    assert backends.available() == _core.build_info()["isa_available"]
    assert backends.available()[-1] == "scalar"


def test_selected_is_the_best_or_the_one_that_the_variable_names(said: dict[str, Any]) -> None:
    assert said["selected"] == [BEST]
    assert said["selected as named"] == ["scalar"]


def test_configure_settles_the_process_and_those_that_it_starts(said: dict[str, Any]) -> None:
    assert said["configured"] == [backends.available(), None, "scalar", "scalar", None]


def test_it_comes_before_a_variable_that_names_what_there_is_not(said: dict[str, Any]) -> None:
    assert said["before what there is not"] == [None, "scalar"]
    first, second = said["after what there is not"]
    assert first == second
    assert "environment variable COSMIC_ISA: ISA 'mmx' is not available here" in first


@pytest.mark.skipif(BEST == "scalar", reason="there is nothing to choose here")
@pytest.mark.parametrize(("name", "isa"), [("late", None), ("late, named", BEST)])
def test_it_is_too_late_once_something_has_run(
    name: str, isa: str | None, said: dict[str, Any]
) -> None:
    _, message, variable = said[name]
    assert message.startswith(
        f"RuntimeError: isa is 'scalar', but this process uses {BEST!r} already; call "
        "cosmic.backends.configure('scalar') before"
    )
    assert variable == isa


def test_a_choice_changes_no_bit(said: dict[str, Any]) -> None:
    assert len({said[f"step {isa}"][1] for isa in backends.available()}) == 1


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
