"""Checkpoints of every release load, and go on with the bits that they went on with then."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from cosmic import Cosmic, QuantizedTensor
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


#: Rows whose state is codes of a few bits, or rows and columns.
CODED = {
    "default", "q8", "u4+v4", "u1+rowmean", "u2+factored", "slow-average", "gate-agar", "gate-snr",
    "tier1-factored", "tier1-rowmean", "tier1-v4", "turboadam-costate", "turboadam-ustate",
    "budget", "budget-by-signal",
}  # fmt: skip
#: Rows whose bits changed on purpose since a release: their checkpoints load, and runs go on from
#: the same moments by the new arithmetic. By what went on differently, from a checkpoint or at all.
#: Since 0.1.0: another q8, zeros in blocks of v4, prices with the shape in them, other random bits
#: of codes, other products, updates without momentum at their whole length, another default policy.
CHANGED = {"0.1.0": {"goes on": CODED, "runs": CODED}}


def changed(file: Path, what: str) -> bool:
    return file.stem in CHANGED.get(file.parent.name, {}).get(what, set())


def test_every_optimizer_has_a_checkpoint() -> None:
    names = {file.stem for file in FILES if file.parent.name == VERSION}
    assert names == set(BY_NAME), "run tests/conformance/make_golden.py for a new row of the table"
    assert sum(file.stat().st_size for file in FILES) < 300_000 * len({f.parent for f in FILES})


@files
def test_a_checkpoint_goes_on_with_the_same_bits(file: Path) -> None:
    optimizer = loaded(file)
    run(optimizer, SAVED, LAST)
    assert (fingerprint(optimizer) == expected(file)) != changed(file, "goes on")


@files
def test_the_bits_depend_on_the_state_where_there_is_any(file: Path) -> None:
    """Without it the run would go on otherwise: the test above would notice if it were lost."""
    optimizer = loaded(file)
    optimizer.state.clear()
    run(optimizer, SAVED, LAST)
    assert (fingerprint(optimizer) == expected(file)) == (file.stem == "tier0")


@files
def test_a_run_of_today_reaches_the_same_bits(file: Path) -> None:
    """From the beginning: what is fixed is the arithmetic, too, not only what a file says."""
    optimizer = fresh(BY_NAME[file.stem])
    run(optimizer, 0, LAST)
    assert (fingerprint(optimizer) == expected(file)) != changed(file, "runs")


def test_a_checkpoint_with_the_old_q8_goes_on_from_its_moments() -> None:
    """Each moment is what its plain codec still decodes, and the run stays near one in float32."""
    file = GOLDEN / "0.1.0" / "q8.pt"
    saved = torch.load(file, weights_only=True)["optimizer"]["state"]
    optimizer, plain = loaded(file), fresh(BY_NAME["fp32"])
    run(plain, 0, SAVED)
    for index, p in enumerate(params_of(optimizer)):
        found = optimizer.moments(p)
        for moment, codec, key in (
            (found.exp_avg, "q8", "exp_avg"), (found.exp_avg_sq, "v8", "exp_avg_sq"),
        ):  # fmt: skip
            codes, scales = saved[index][key], saved[index][f"{key}_scale"]
            packed = QuantizedTensor(codes, scales, p.shape, torch.float32, 8, 128, codec)
            assert moment is not None and torch.equal(moment, packed.dequantize())
    run(optimizer, SAVED, LAST)
    run(plain, SAVED, LAST)
    for ours, theirs in zip(params_of(optimizer), params_of(plain), strict=True):
        assert (ours.float() - theirs.float()).abs().max() < 2e-3
    assert {tier.rung for tier in optimizer.tiers()} == {"tier2:q8+q8"}


@pytest.mark.parametrize("name", ["default", "fp32", "tier1", "gate-snr", "gate-agar", "bf16"])
def test_an_old_run_can_take_a_gate_of_norms(name: str) -> None:
    """It starts as a new one does, by measuring before its first step."""
    optimizer = loaded(GOLDEN / "0.1.0" / f"{name}.pt")
    for group in optimizer.param_groups:
        group["gate"] = "trust" if group["gate"] is None else f"{group['gate']}+trust"
    run(optimizer, SAVED, LAST - 1)
    for p in params_of(optimizer):
        mean_square = float(p.detach().double().square().mean())
        kept = optimizer.state[p]["gate_norms"]
        assert float(kept[0]) == pytest.approx(mean_square, rel=0.02) and float(kept[1]) > 0
    assert all(factor != 1.0 for factor in optimizer.gate_factors().values())
