"""The compiled core against the reference: equal to the bit, on every ISA of this machine."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from conftest import Runner
from helpers import SIZES, UNUSUAL
from reference.options import Options
from reference.sums import ITEM
from trajectories import Case, Outcome, run_cosmic, run_reference


def options(**changes: Any) -> Options:
    return Options(**{**UNUSUAL, **changes})


def rungs(**changes: Any) -> dict[str, Options]:
    """Every rung of float32 arithmetic, by a name to read."""
    dtypes = ("fp32", "bf16", "bf16+fp32", "fp32+bf16")
    found = {f"tier{t}": options(tier=t, **changes) for t in (0, 1)}
    for dtype in dtypes:
        found[dtype] = options(state_dtype=dtype, **changes)
        found[f"{dtype}+slow"] = options(state_dtype=dtype, beta_slow=0.99, **changes)
    return found


def cases() -> list[Case]:
    """What is compared; every row differs from a plain run in one or two things."""
    gate = {"gate": "snr", "c_min": 0.01}
    wild = (1e-3, 1e-2, 0.1, 1.0, 10.0)  # the gate is nearly closed
    mild = (1.0, 1.3, 0.8, 1.1) * 7 + (3.0,)  # it closes in part, for spread and for the jump
    ties = {"tier": 0, "betas": (0.0, 0.9), "weight_decay": 0.0}
    slow = {"beta_slow": 0.999, "alpha": 3.0, "slow_warmup": 4}
    f64 = {f"tier{t}": options(tier=t) for t in (0, 1, 2)} | {"slow": options(**slow)}
    mixes = list(product(("float32", "bfloat16", "float16"), repeat=2))
    return [
        *(Case(f"size-{n}-{key}", numel=n, options=rung, steps=3)
          for n in SIZES for key, rung in rungs().items()
          if key in ("tier0", "tier1", "bf16+slow")),
        *(Case(f"rung-{key}", options=rung, absent=(2,)) for key, rung in rungs().items()),
        *(Case(f"maximize-{key}", options=rung, steps=3)
          for key, rung in rungs(maximize=True).items()),
        *(Case(f"param-{p}-grad-{g}-{key}", dtype=p, grad_dtype=g, options=rung)
          for p, g in mixes for key, rung in rungs().items() if key in ("tier0", "tier1", "fp32")),
        *(Case(f"{dtype}-{key}", dtype=dtype, options=rung, steps=7)
          for dtype in ("float64", "complex128") for key, rung in f64.items()),
        *(Case(f"complex64-{key}", dtype="complex64", options=rung, steps=3)
          for key, rung in rungs().items()),
        *(Case(f"special-{key}", options=rung, special=True) for key, rung in rungs().items()),
        *(Case(f"special-{dtype}-{key}", dtype=dtype, options=rung, special=True)
          for dtype in ("bfloat16", "float16") for key, rung in rungs().items()
          if key in ("tier1", "bf16")),
        *(Case(f"gate-{name}-{key}", options=rung, pulse=pulse, steps=30, numel=150)
          for name, pulse in (("wild", wild), ("mild", mild))
          for key, rung in rungs(**gate).items() if key in ("tier0", "tier1", "fp32", "bf16+slow")),
        Case("gate-special", options=options(**gate), pulse=mild, steps=30, special=True),
        Case("gate-float64", dtype="float64", options=options(**gate), pulse=mild, steps=30),
        # half a unit of the last place of numbers from 1 to 2
        Case("ties-bfloat16", dtype="bfloat16", options=options(**ties, lr=2.0**-8)),
        Case("ties-float16", dtype="float16", options=options(**ties, lr=2.0**-11)),
        Case("seed-and-index", options=options(state_dtype="bf16"), seed=2**64 - 1, index=3),
        Case("slow-warm-up", options=options(**slow), steps=8),
        Case("slow-warm-up-beta1-0", options=options(betas=(0.0, 0.9), **slow), steps=6),
        Case("betas-0", options=options(betas=(0.0, 0.0))),
        Case("betas-0-tier1", options=options(betas=(0.0, 0.0), tier=1)),
        Case("eps-0", options=options(eps=0.0)),
        Case("decay-beyond-1", options=options(weight_decay=500.0)),
        Case("items-2-and-a-tail", numel=2 * ITEM + 77, options=options(tier=1), steps=2),
        Case("items-2-and-a-tail-bf16", numel=2 * ITEM + 77, options=options(state_dtype="bf16"),
             steps=2),
    ]  # fmt: skip


@cache
def expected(case: Case) -> Outcome:
    return run_reference(case)


def assert_same_bits(got: NDArray[Any], want: NDArray[Any], what: str) -> None:
    """Equal bits, except that one NaN is as good as another."""
    assert got.dtype == want.dtype and got.shape == want.shape, what
    nan = np.zeros(got.shape, bool)
    if np.issubdtype(got.dtype, np.floating):
        nan = np.isnan(want)
        assert np.array_equal(np.isnan(got), nan), f"{what}: NaN elsewhere"
    unsigned = np.dtype(f"u{got.dtype.itemsize}")
    differ = (got.view(unsigned) != want.view(unsigned)) & ~nan
    first = int(np.argmax(differ)) if differ.any() else 0
    assert not differ.any(), (
        f"{what}: {differ.sum()} elements differ, first [{first}]: {got[first]} != {want[first]}"
    )


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_core_equals_the_reference(case: Case, on_isa: Runner) -> None:
    got: Outcome = on_isa(run_cosmic, case)
    want = expected(case)

    assert got.arrays.keys() == want.arrays.keys()
    for key, array in want.arrays.items():
        assert_same_bits(got.arrays[key], array, key)
    for key, value in want.stats.items():  # means over the group: rounded once more
        np.testing.assert_allclose(got.stats[key], value, rtol=1e-14, err_msg=key)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")], ids=str)
@pytest.mark.parametrize("rung", rungs().values(), ids=rungs().keys())
def test_a_bad_element_spoils_itself_only(rung: Options, bad: float, on_isa: Runner) -> None:
    """All other elements have the bits that they have without the bad one."""
    case = Case("clean", numel=133, steps=1, options=rung)
    clean = on_isa(run_cosmic, case).arrays
    spoiled = on_isa(run_cosmic, replace(case, poison=bad)).arrays
    for key, array in clean.items():
        if array.size == case.numel:
            unsigned = f"u{array.itemsize}"
            changed = np.flatnonzero(array.view(unsigned) != spoiled[key].view(unsigned))
            assert set(changed) <= {129}, key


@pytest.mark.parametrize("tier", [0, 1, 2])
def test_the_poison_of_the_test_above_is_felt(tier: int) -> None:
    case = Case("poisoned", steps=1, options=options(tier=tier), poison=float("nan"))
    assert np.isnan(run_cosmic(case).arrays["param"][129])
