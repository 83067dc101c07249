"""What parts say of themselves, and that nothing else knows their names."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from cosmic import Cosmic, _core
from cosmic.parts import CODECS, GATES, RULES, Numbers

ROOT = Path(__file__).parents[2]
ROOMS = ("cpp/plan", "cpp/bindings", "python/cosmic/step", "python/cosmic/state")
DESIGN = (ROOT / "docs" / "design.md").read_text()

#: Without those that are ordinary words, or name how numbers are stored.
NAMES = [*GATES, *(name for name in RULES if name not in ("adam", "sign"))] + [
    name for name, codec in CODECS.items() if codec.numbers
]
KEPT = [
    numbers
    for numbers in (part.numbers for kind in (RULES, GATES, CODECS) for part in kind.values())
    if numbers
]


@pytest.mark.parametrize("room", ROOMS)
def test_no_code_names_a_part(room: str) -> None:
    files = [f for f in (ROOT / room).rglob("*") if f.suffix in (".h", ".cpp", ".py")]
    assert files
    named = re.compile(rf"\b({'|'.join(NAMES)})\b")
    found = [
        f"{file.name}: {line.strip()}"
        for file in files
        for line in file.read_text().splitlines()
        if named.search(line.split("//")[0].split("#")[0]) and "``" not in line
    ]
    assert found == []


@pytest.mark.parametrize("numbers", KEPT, ids=[numbers.key for numbers in KEPT])
def test_the_table_of_state_has_what_a_part_keeps(numbers: Numbers) -> None:
    row = next(line for line in DESIGN.splitlines() if line.startswith(f"| `{numbers.key}` |"))
    dtype = str(numbers.dtype).removeprefix("torch.")
    assert dtype in row and row.rstrip(" |").endswith(f" {numbers.nbytes}")


def test_every_option_of_a_part_has_a_default_in_its_range() -> None:
    parts = [part for kind in _core.parts().values() for part in kind.values()]
    options = [option for part in parts for option in part["options"]]
    assert {"beta_slow", "c_min", "m_step_factor"} <= {option["name"] for option in options}
    by_name: dict[str, object] = {}
    for option in options:  # the same for every part that has it
        assert by_name.setdefault(option["name"], option) == option


def test_the_optimizer_has_the_defaults_that_parts_say() -> None:
    given = inspect.signature(Cosmic).parameters
    parts = [part for kind in _core.parts().values() for part in kind.values()]
    options = {o["name"]: o["default"] for part in parts for o in part["options"]}
    own = {name: default for name, default in options.items() if name in given}
    assert set(own) == {
        "beta_slow", "alpha", "slow_warmup", "c_min", "robustness", "rel_floor", "momentum",
        "ns_steps", "matrix_every", "matrix_blocks", "blend", "kappa", "blend_to", "blend_steps",
        "blend_schedule", "trust_coefficient", "trust_min", "trust_clip", "agc_clip", "clip_update",
        "param_floor", "norm_decay", "norm_granularity",
    }  # fmt: skip
    assert {name: given[name].default for name in own} == own
