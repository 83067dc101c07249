"""The core's own training: one digest, on every ISA and for any number of threads."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch

from cosmic import _core

ISAS: list[str] = _core.build_info()["isa_available"]
FILE = Path(__file__).resolve().parents[1] / "wheels" / "digest.txt"
EXPECTED = dict(line.split() for line in FILE.read_text().splitlines()[1:])
#: rows, columns of each parameter; of one row those of norms and biases
EMBEDDINGS = [(64, 32), (32, 32)]
BLOCK = [(1, 32), (1, 32), (96, 32), (1, 96), (32, 32), (1, 32)]
BLOCK += [(1, 32), (1, 32), (128, 32), (1, 128), (32, 128), (1, 32)]
SHAPES = [*EMBEDDINGS, *BLOCK, *BLOCK, (1, 32), (1, 32), (64, 32)]
NORM_WEIGHTS = {2, 8, 14, 20, 26}


@pytest.mark.parametrize("accumulate", ["fp32", "fp64"])
def test_the_weights_are_those_of_every_machine(accumulate: str) -> None:
    assert _core.reference_training(accumulate, 2) == EXPECTED[accumulate]


@pytest.mark.parametrize("accumulate", ["fp32", "fp64"])
def test_neither_isa_nor_threads_change_them(accumulate: str) -> None:
    found = {
        _core.reference_training(accumulate, threads, isa, 5)
        for isa in ISAS
        for threads in (1, 2, 3, 7)
    }
    assert len(found) == 1


def test_exact_sums_of_any_number_of_threads_prove_those_in_double() -> None:
    assert {_core.reference_training("exact", threads) for threads in (1, 3)} == {EXPECTED["fp64"]}


def test_before_the_first_step_the_digest_is_that_of_the_initial_weights() -> None:
    expected = hashlib.sha256()
    for index, (rows, columns) in enumerate(SHAPES):
        weights = torch.full((rows, columns), 1.0 if index in NORM_WEIGHTS else 0.0)
        if rows > 1:
            _core.exact_normal(weights, 0.0, 0.125, index, 1)
        expected.update(weights.numpy().tobytes())
    assert _core.reference_training("fp32", 1, steps=0) == expected.hexdigest()


def test_how_products_are_summed_matters_and_must_be_known() -> None:
    assert EXPECTED["fp32"] != EXPECTED["fp64"]
    with pytest.raises(ValueError, match="must be 'fp32', 'fp64' or 'exact', not 'fp8'"):
        _core.reference_training("fp8", 1)
