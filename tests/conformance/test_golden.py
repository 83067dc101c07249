"""Checkpoints of every release load, and go on with the bits that they went on with then."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from cosmic import Cosmic
from make_golden import GOLDEN, LAST, SAVED, VERSION, fingerprint, fresh, run
from optimizers import ROWS, params_of

BY_NAME = {row.name: row for row in ROWS}
FILES = sorted(GOLDEN.glob("*/*.pt"))

files = pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}-{file.stem}")


def loaded(file: Path) -> Cosmic:
    """As a user loads it."""
    saved = torch.load(file, weights_only=True)
    optimizer = fresh(BY_NAME[file.stem])
    with torch.no_grad():
        for p, value in zip(params_of(optimizer), saved["params"], strict=True):
            p.copy_(value)
    optimizer.load_state_dict(saved["optimizer"])
    return optimizer


def expected(file: Path) -> str:
    found: dict[str, str] = json.loads((file.parent / "bits.json").read_text())
    return found[file.stem]


def test_every_optimizer_has_a_checkpoint() -> None:
    names = {file.stem for file in FILES if file.parent.name == VERSION}
    assert names == set(BY_NAME), "run tests/conformance/make_golden.py for a new row of the table"
    assert sum(file.stat().st_size for file in FILES) < 300_000


@files
def test_a_checkpoint_goes_on_with_the_same_bits(file: Path) -> None:
    optimizer = loaded(file)
    run(optimizer, SAVED, LAST)
    assert fingerprint(optimizer) == expected(file)


@files
def test_the_bits_depend_on_the_state_where_there_is_any(file: Path) -> None:
    """Without it the run would go on otherwise: the test above would notice if it were lost."""
    optimizer = loaded(file)
    optimizer.state.clear()
    run(optimizer, SAVED, LAST)
    stateless = file.stem == "tier0"
    assert (fingerprint(optimizer) == expected(file)) == stateless


@files
def test_a_run_of_today_reaches_the_same_bits(file: Path) -> None:
    """From the beginning: what is fixed is the arithmetic, too, not only what a file says."""
    optimizer = fresh(BY_NAME[file.stem])
    run(optimizer, 0, LAST)
    assert fingerprint(optimizer) == expected(file)
