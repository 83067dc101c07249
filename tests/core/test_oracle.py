"""The compiled core against the reference: equal to the bit, on every ISA of this machine."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest

from conftest import Runner
from cosmic.rungs import combinations, without_momentum
from helpers import SIZES, UNUSUAL, with_slow_average
from reference.options import Options
from reference.storage import widen
from reference.sums import ITEM
from trajectories import Case, Outcome, assert_same_bits, run_cosmic, run_reference

#: Shapes by what they are made for: rows that are no multiple of 16 or of a block, the fewest
#: columns, more rows than columns and the reverse, three dimensions; rows that are one block, two,
#: and a block and a bit.
MATRICES = {
    "7x33": (7, 33), "131x17": (131, 17), "5x16": (5, 16), "40x300": (40, 300),
    "3x11x20": (3, 11, 20), "6x128": (6, 128), "5x256": (5, 256), "3x144": (3, 144),
}  # fmt: skip

#: Gradients by spread and pulse: numbers of a block that are all alike, or orders of magnitude
#: apart; so small that their squares are zero; zero; and so large that a block forgets the rest.
NUMBERS: dict[str, tuple[float, tuple[float, ...]]] = {
    "alike": (0.0, (1.0,)), "apart": (9.0, (1.0,)), "tiny": (1.0, (1e-30,)), "zero": (1.0, (0.0,)),
    "zero-later": (1.0, (1.0, 0.0, 0.0)), "huge": (1.0, (1e17, 1.0)),
}  # fmt: skip

#: Combinations such that every codec follows another and is followed by one.
CHANGES = (
    "fp32+fp32", "u4+factored", "q8+q8", "u2+v4", "bf16+rowmean", "u1+colmean", "bf16+bf16",
    "q8+v4", "fp32+fp32",
)  # fmt: skip
#: The same, of those that are compiled without a slow average alone.
CHANGES_WITHOUT_SLOW = (
    "fp32+fp32", "ustate+vlog4", "q8+q8", "costate+vlog2", "u4+factored", "ustate+v4",
    "costate+fp32", "fp32+vlog3", "ustate+fp32", "ustate+vlog8", "costate+vlog6", "fp32+fp32",
)  # fmt: skip

BOUNDS = {"c_min": 0.05, "robustness": 1.7, "rel_floor": 0.2}
AGAR = {"gate": "agar", **BOUNDS}

SLOW = {"beta_slow": 0.999, "alpha": 3.0, "slow_warmup": 4}


def options(**changes: Any) -> Options:
    """Codecs at every size, unless ``min_compress_size`` says otherwise."""
    return Options(**{**UNUSUAL, "min_compress_size": 0, **changes})


def state_dtypes() -> list[str]:
    return [f"{m}+{v}" for m, v in combinations()]


def rungs(**changes: Any) -> dict[str, Options]:
    """Every rung of float32 arithmetic, by a name to read."""
    found = {f"tier{t}": options(tier=t, **changes) for t in (0, 1)}
    for v in without_momentum():
        found[f"tier1:{v}"] = options(tier=None, rung=f"tier1:{v}", **changes)
    for dtype in state_dtypes():
        found[dtype] = options(state_dtype=dtype, **changes)
        if dtype in with_slow_average():
            found[f"{dtype}+slow"] = options(state_dtype=dtype, beta_slow=0.99, **changes)
    return found


def some(*names: str, **changes: Any) -> list[tuple[str, Options]]:
    found = rungs(**changes)
    return [(name, found[name]) for name in names]


def centered_rungs(**changes: Any) -> dict[str, Options]:
    """Every rung of gate "agar", by a name to read."""
    agar = {**AGAR, **changes}
    return {
        f"agar-{m}+{v}": options(state_dtype=f"{m}+{v}", **agar) for m, v in combinations("belief")
    }


#: Every codec of either moment, in as few combinations as that takes; the last with a slow average.
EVERY_CODEC = (
    "fp32+fp32", "bf16+bf16", "q8+q8", "u4+v4", "fp32+rowmean", "bf16+colmean", "u2+factored",
    "u1+v4+slow", "ustate+vlog4", "costate+vlog3", "fp32+vlog2", "fp32+vlog6", "fp32+vlog8",
    "tier1:fp32", "tier1:v4", "tier1:factored",
)  # fmt: skip

#: Rungs that one tensor holds one after the other, by what becomes of its second moment: kept as it
#: is, in another codec, given up for scalars or for nothing, and begun anew.
RUNG_CHANGES = (
    ("tier1:fp32", "tier2:fp32+fp32"), ("tier1:v4", "tier2:u2+v4"),
    ("tier1:factored", "tier2:u4+factored"), ("tier2:q8+colmean", "tier1:colmean"),
    ("tier2:u1+factored", "tier1:factored"), ("tier1:v4", "tier2:bf16+bf16"),
    ("tier1:factored", "tier2:u1+v4"), ("tier1:rowmean", "tier2:q8+q8"),
    ("tier2:u4+q8", "tier1:v4"), ("tier2:fp32+fp32", "tier1:factored"),
    ("tier1:v4", "tier1:fp32"), ("tier1:factored", "tier1:v4"),
    ("tier1:fp32", "tier1"), ("tier1:factored", "tier1"), ("tier2:u2+v4", "tier1"),
    ("tier1:v4", "tier0"), ("tier1", "tier1:v4"), ("tier0", "tier1:factored"),
    ("tier2:fp32+fp32", "tier0"), ("tier1", "tier2:u4+factored"), ("tier2:bf16+bf16", "tier1:fp32"),
)  # fmt: skip
#: The same, with codecs that know no slow average.
RUNG_CHANGES_WITHOUT_SLOW = (
    ("tier1:v4", "tier2:ustate+v4"), ("tier1:fp32", "tier2:costate+fp32"),
    ("tier1:factored", "tier2:ustate+vlog4"), ("tier2:ustate+vlog4", "tier1:v4"),
    ("tier2:costate+vlog4", "tier1"), ("tier1", "tier2:ustate+vlog2"),
    ("tier2:ustate+v4", "tier0"), ("tier0", "tier2:costate+vlog8"),
)  # fmt: skip


#: Changes of gate "agar" and of the rung below it: what becomes of a second moment about the first.
AGAR_CHANGES = (
    ("tier2:fp32+fp32", "gate=none"), ("tier2:u4+v4", "gate=none"), ("tier2:q8+q8", "gate=snr"),
    ("tier2:q8+q8", "tier2:u4+v4"), ("tier2:u4+factored", "tier1:factored"),
    ("tier2:u4+factored", "tier1"), ("tier2:u4+v4", "tier0"), ("tier1:v4", "tier2:u4+v4"),
    ("tier1:factored", "tier2:q8+factored"), ("tier1:fp32", "tier2:fp32+fp32"),
    ("tier1", "tier2:bf16+bf16"),
)  # fmt: skip


def agar_cases() -> list[Case]:
    """Gate "agar": rule ``belief``, focus and trust."""
    tall, wide = (131, 17), (7, 33)
    gates: dict[str, str | None] = {"snr": "snr", "none": None}
    bounds: dict[str, dict[str, Any]] = {
        "none": {"robustness": 0.0, "rel_floor": 1.0}, "all": {"c_min": 0.0, "rel_floor": 0.0},
        "trust-1": {"c_min": 1.0, "robustness": 1.0}, "robustness-3": {"robustness": 3.0},
    }  # fmt: skip
    few = [(key, centered_rungs()[f"agar-{key}"]) for key in ("fp32+fp32", "u4+v4", "q8+factored")]
    return [
        *(Case(f"{key}-{n}", shape=(n,), options=rung, steps=4)
          for n in SIZES for key, rung in centered_rungs().items()),
        *(Case(f"{key}-{name}", shape=shape, options=rung, steps=4)
          for name, shape in MATRICES.items() for key, rung in centered_rungs().items()
          if "factored" in key),
        *(Case(f"{key}-special", shape=(23, 31), options=rung, special=True, steps=5)
          for key, rung in centered_rungs().items()),
        *(Case(f"agar-{name}-{key}", shape=wide, options=rung, spread=spread, pulse=pulse)
          for name, (spread, pulse) in NUMBERS.items() for key, rung in few),
        *(Case(f"agar-{name}-{key}", shape=tall, options=replace(rung, **bound), steps=6)
          for name, bound in bounds.items() for key, rung in few),
        *(Case(f"agar-eps-0-{key}", shape=wide, options=replace(rung, eps=0.0), pulse=(0.0, 1.0))
          for key, rung in few),
        *(Case(f"agar-maximize-{key}", shape=tall, options=replace(rung, maximize=True))
          for key, rung in few),
        *(Case(f"agar-betas-0-{key}", shape=tall, options=replace(rung, betas=(0.0, 0.0)))
          for key, rung in few),
        *(Case(f"agar-{dtype}-{key}", shape=tall, dtype=dtype, options=rung, absent=(2,), index=3)
          for dtype in ("bfloat16", "float16", "complex64") for key, rung in few),
        *(Case(f"agar-{dtype}", dtype=dtype, options=few[0][1], steps=7)
          for dtype in ("float64", "complex128")),
        *(Case(f"agar-items-{key}", shape=(2 * ITEM + 77,), options=rung, steps=3)
          for key, rung in few),
        Case("agar-items-512x160", shape=(512, 160), options=few[2][1], steps=3),
        *(Case(f"agar-from-{before}-to-{after}-{'x'.join(map(str, shape))}", shape=shape, steps=7,
               change=(4, after), index=2, options=options(tier=None, rung=before, **AGAR))
          for shape in (tall, (300,)) for before, after in AGAR_CHANGES),
        *(Case(f"agar-after-{name}-{before}", shape=wide, steps=6, change=(3, "gate=agar"),
               options=replace(options(state_dtype=before, **AGAR), gate=gate))
          for name, gate in gates.items() for before in ("fp32", "bf16", "u4+v4", "q8+factored")),
        *(Case(f"agar-after-{name}-float64", dtype="float64", change=(3, "gate=agar"),
               options=options(gate=gate)) for name, gate in gates.items()),
        *(Case(f"agar-float64-to-{after}", dtype="float64", change=(3, after),
               options=options(**AGAR)) for after in ("gate=none", "tier1")),
    ]  # fmt: skip


def norm_cases() -> list[Case]:
    """Gates of norms, one and several, lagged and exact."""
    tall, wide = (131, 17), (7, 33)
    norms: dict[str, dict[str, Any]] = {
        "trust": {"gate": "trust"}, "agc": {"gate": "agc", "agc_clip": 0.7},
        "clip": {"clip_update": 0.6}, "bounds": {"gate": "trust", "trust_min": 2, "trust_clip": 3},
        "snr+trust": {"gate": "trust+snr", "c_min": 0.2, "norm_decay": 0.8},
        "all": {"gate": "snr+agar+trust+agc", "clip_update": 0.9, "agc_clip": 0.5, **BOUNDS},
    }  # fmt: skip
    every = [
        (f"{name}{'-exact' if exact else ''}", {**gate, "exact": exact})
        for name, gate in norms.items() for exact in (False, True)
    ]  # fmt: skip
    kinds = ("tier0", "tier1", "tier1:factored", "fp32+fp32", "u4+factored", "ustate+vlog4",
             "costate+vlog3")  # fmt: skip
    wild = (0.0, 1.0, 1e-3, 30.0, 1.0)
    return [
        *(Case(f"norms-{name}-{key}", shape=wide, options=rung, steps=24, pulse=wild, absent=(3,))
          for name, gate in every
          for key, rung in some(*(kinds[:3] if "all" in name else kinds), **gate)),
        *(Case(f"norms-{name}-agar-{key}", shape=tall, options=rung, steps=7, pulse=wild)
          for name, gate in every if "all" in name
          for key, rung in centered_rungs(**gate).items()),
        *(Case(f"norms-{name}-{n}-{key}", shape=(n,), options=rung, steps=3)
          for n in SIZES for name, gate in every[:2]
          for key, rung in some("tier0", "q8+v4", "bf16+bf16+slow", "tier1:v4", **gate)),
        *(Case(f"norms-{name}-special-{key}", shape=(23, 31), options=rung, special=True, steps=5)
          for name, gate in every[:2] for key, rung in some(*kinds, **gate)),
        *(Case(f"norms-{name}-{p}-grad-{g}-{key}", shape=tall, dtype=p, grad_dtype=g, options=rung)
          for name, gate in every[:2]
          for p, g in (("bfloat16", "float32"), ("float16", "float16"), ("float32", "bfloat16"))
          for key, rung in some("tier1", "u4+factored", **gate)),
        *(Case(f"norms-{name}-{dtype}-{tier}", dtype=dtype, options=options(tier=tier, **gate))
          for name, gate in every if "all" not in name
          for dtype in ("float64", "complex64") for tier in (0, 1, 2)),
        *(Case(f"norms-{name}-items-{key}", shape=(2 * ITEM + 77,), options=rung, steps=3)
          for name, gate in every[:2]
          for key, rung in some("tier1", "fp32+fp32", "u4+v4", "costate+vlog4", **gate)),
        *(Case(f"norms-{name}-items-512x160", shape=(512, 160), options=rung, steps=3)
          for name, gate in every[:2] for _, rung in some("u4+factored", **gate)),
        *(Case(f"norms-from-{before}-to-{after}-{exact}", shape=wide, change=(3, f"gate={after}"),
               steps=6, options=options(gate=before if before != "none" else None, exact=exact))
          for exact in (False, True)
          for before, after in (("trust", "agc"), ("agc", "none"), ("none", "trust"),
                                ("snr", "snr+trust"), ("agc+snr", "trust"))),
    ]  # fmt: skip


def cases() -> list[Case]:
    """What is compared; every row differs from a plain run in one or two things."""
    gate = {"gate": "snr", "c_min": 0.01}
    wild = (1e-3, 1e-2, 0.1, 1.0, 10.0)  # the gate is nearly closed
    mild = (1.0, 1.3, 0.8, 1.1) * 7 + (3.0,)  # it closes in part, for spread and for the jump
    ties = {"tier": 0, "betas": (0.0, 0.9), "weight_decay": 0.0, "stochastic_rounding": False}
    f64 = {f"tier{t}": options(tier=t) for t in (0, 1, 2)} | {"slow": options(**SLOW)}
    mixes = list(product(("float32", "bfloat16", "float16"), repeat=2))
    tall, wide = (131, 17), (7, 33)
    return [
        *(Case(f"size-{n}-{key}", shape=(n,), options=rung, steps=3)
          for n in SIZES for key, rung in some("tier0", "tier1", *EVERY_CODEC)),
        *(Case(f"rung-{key}", shape=tall, options=rung, absent=(2,))
          for key, rung in rungs().items()),
        *(Case(f"shape-{name}-{key}", shape=shape, options=rung, steps=4)
          for name, shape in MATRICES.items()
          for key, rung in some("u4+factored", "fp32+rowmean", "u2+colmean+slow", "u1+rowmean",
                                "tier1:factored", "tier1:rowmean", "tier1:colmean")),
        *(Case(f"maximize-{key}", shape=wide, options=rung, steps=3)
          for key, rung in some("tier0", "tier1", *EVERY_CODEC, maximize=True)),
        *(Case(f"param-{p}-grad-{g}-{key}", shape=tall, dtype=p, grad_dtype=g, options=rung)
          for p, g in mixes
          for key, rung in some("tier0", "tier1", "fp32+fp32", "u4+factored", "q8+v4+slow",
                                "ustate+vlog4", "costate+vlog6", "tier1:factored")),
        *(Case(f"to-nearest-{key}", shape=tall, dtype="bfloat16", options=rung)
          for key, rung in some("tier0", "tier1", "bf16+bf16", "u4+factored",
                                "tier1:v4", stochastic_rounding=False)),
        *(Case(f"master-{n}-{nearest}-{key}", shape=shape, dtype="bfloat16", grad_dtype=g,
               options=rung)
          for n, shape, g, nearest in (("300", (300,), "bfloat16", False),
                                       ("131x17", tall, "float32", True),
                                       ("131x17", tall, "bfloat16", False))
          for key, rung in some("tier0", "tier1", "fp32+fp32", "u4+factored", "q8+v4+slow",
                                "tier1:factored", master_bits=24,
                                stochastic_rounding=not nearest)),
        *(Case(f"master-special-{key}", shape=tall, dtype="bfloat16", options=rung, special=True)
          for key, rung in some("tier1", "u4+factored", master_bits=24)),
        *(Case(f"{dtype}-{key}", dtype=dtype, options=rung, steps=7)
          for dtype in ("float64", "complex128") for key, rung in f64.items()),
        *(Case(f"complex64-{key}", shape=(5, 31), dtype="complex64", options=rung, steps=3)
          for key, rung in some("tier0", "tier1", *EVERY_CODEC)),
        *(Case(f"special-{key}", shape=(23, 31), options=rung, special=True, steps=4)
          for key, rung in rungs().items()),
        *(Case(f"special-{dtype}-{key}", shape=tall, dtype=dtype, options=rung, special=True)
          for dtype in ("bfloat16", "float16")
          for key, rung in some("tier1", "bf16+bf16", "u4+factored", "u2+v4",
                                "tier1:rowmean")),
        *(Case(f"{name}-{key}", shape=wide, options=rung, spread=spread, pulse=pulse)
          for name, (spread, pulse) in NUMBERS.items() for key, rung in some(*EVERY_CODEC)),
        *(Case(f"gate-{name}-{key}", options=rung, pulse=pulse, steps=30, shape=(10, 17))
          for name, pulse in (("wild", wild), ("mild", mild))
          for key, rung in some("tier0", "tier1", "fp32+fp32", "bf16+bf16+slow", "u4+factored",
                                "u1+v4", "tier1:factored", "tier1:fp32", "ustate+vlog4",
                                "costate+vlog4", **gate)),
        Case("gate-special", options=options(state_dtype="fp32", **gate), pulse=mild, steps=30,
             special=True),
        Case("gate-float64", dtype="float64", options=options(**gate), pulse=mild, steps=30),
        # half a unit of the last place of numbers from 1 to 2
        Case("ties-bfloat16", dtype="bfloat16", options=options(**ties, lr=2.0**-8)),
        Case("ties-float16", dtype="float16", options=options(**ties, lr=2.0**-11)),
        *(Case(f"seed-and-index-{key}", shape=wide, options=rung, seed=2**64 - 1, index=3)
          for key, rung in some(*EVERY_CODEC)),
        Case("seed-and-index-bfloat16", dtype="bfloat16", seed=2**64 - 1, index=3,
             options=options(tier=0), absent=(0, 2)),
        *(Case(f"slow-warm-up-{dtype}", shape=wide, steps=8,
               options=options(state_dtype=dtype, **SLOW))
          for dtype in ("fp32", "u4+factored", "u1+v4")),
        Case("slow-warm-up-beta1-0", steps=6,
             options=options(betas=(0.0, 0.9), state_dtype="fp32", **SLOW)),
        *(Case(f"betas-0-{key}", shape=tall, options=rung)
          for key, rung in some("tier1", *EVERY_CODEC, betas=(0.0, 0.0))),
        *(Case(f"eps-0-{key}", shape=tall, options=rung)
          for key, rung in some(*EVERY_CODEC, eps=0.0)),
        *(Case(f"eps-0-zeros-{key}", shape=wide, options=rung, pulse=(0.0, 1.0))
          for key, rung in some(*EVERY_CODEC, eps=0.0)),
        # decoded from one codec and encoded in another
        *(Case(f"from-{before}-to-{after}-{beta_slow}", shape=tall, steps=4, change=(2, after),
               index=2, options=options(state_dtype=before, beta_slow=beta_slow))
          for beta_slow in (None, 0.99) for before, after in pairwise(CHANGES)),
        *(Case(f"from-{before}-to-{after}", shape=tall, steps=4, change=(2, after), index=2,
               options=options(state_dtype=before))
          for before, after in pairwise(CHANGES_WITHOUT_SLOW)),
        *(Case(f"from-{before}-to-{after}-{shape}", shape=shape, steps=6, change=(3, after),
               index=2, options=options(tier=None, rung=before))
          for shape in (tall, (300,)) for before, after in RUNG_CHANGES_WITHOUT_SLOW),
        # numbers of their own
        *(Case(f"step-factor-{factor}-{key}", shape=tall, options=rung)
          for factor in (0.3, 4.0)
          for key, rung in some("ustate+vlog4", "ustate+fp32", m_step_factor=factor)),
        *(Case(f"percentiles-{null}-{amp}-{key}", shape=(5000,), options=rung)
          for null, amp in ((0.0, 1.0), (1.0, 1.0), (0.0, 0.0), (0.5, 0.3), (0.29, 0.58))
          for key, rung in some("costate+vlog4", null_pct=null, amp_pct=amp)),
        *(Case(f"sizes-{sizes}-{key}", shape=(200,), options=rung)
          for sizes in ((0, 201), (201, 0), (200, 200), (201, 201))
          for key, rung in some("ustate+vlog4", "costate+vlog2", min_compress_size=sizes)),
        # in the middle of a run, with and without a slow average where there is a first moment
        *(Case(f"from-{before}-to-{after}-{beta_slow}-{shape}", shape=shape, steps=6,
               change=(3, after), index=2,
               options=options(tier=None, rung=before, beta_slow=beta_slow))
          for shape in (tall, (300,)) for beta_slow in (None, 0.99)
          for before, after in RUNG_CHANGES),
        *(Case(f"from-{before}-to-{after}-{dtype}", shape=wide, steps=5, change=(2, after),
               dtype=dtype, options=options(tier=None, rung=before))
          for dtype in ("bfloat16", "complex64")
          for before, after in (("tier1:factored", "tier2:u2+factored"), ("tier1:v4", "tier1"))),
        Case("from-float64-moments-to-a-scalar", dtype="float64", change=(3, "tier1"),
             options=options()),
        Case("from-bad-moments-to-a-scalar", shape=(23, 31), special=True, change=(2, "tier1"),
             options=options(state_dtype="fp32")),
        Case("decay-beyond-1", options=options(weight_decay=500.0)),
        # below min_compress_size all is kept, from it on it is compressed
        *(Case(f"{name}-to-compress", shape=shape, steps=2,
               options=options(state_dtype="u4+factored", min_compress_size=231))
          for name, shape in (("too-small", (10, 23)), ("large-enough", (7, 33)))),
        *(Case(f"items-2-and-a-tail-{key}", shape=(2 * ITEM + 77,), options=rung, steps=2)
          for key, rung in some("tier1", *EVERY_CODEC)),
        # items of a matrix: within a row and at the end of one, more rows than columns, the reverse
        *(Case(f"items-{rows}x{columns}-{key}", shape=(rows, columns), options=rung, steps=3)
          for rows, columns in ((300, 257), (3, 9001), (512, 160), (2100, 18))
          for key, rung in some("u4+factored", "bf16+rowmean", "fp32+colmean", "tier1:factored")),
        *agar_cases(),
        *norm_cases(),
    ]  # fmt: skip


@cache
def expected(case: Case) -> Outcome:
    return run_reference(case)


def test_cases_have_names_of_their_own() -> None:
    names = [case.name for case in cases()]
    assert len(set(names)) == len(names)


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
@pytest.mark.parametrize(
    "rung", [*rungs().values(), *centered_rungs().values()], ids=[*rungs(), *centered_rungs()]
)
def test_a_bad_element_spoils_itself_only(rung: Options, bad: float, on_isa: Runner) -> None:
    """All other elements have the bits that they have without the bad one, and codes that elements
    share stay good for the steps that follow."""
    case = Case("clean", shape=(7, 19), steps=1, options=rung)
    clean = on_isa(run_cosmic, case).arrays
    spoiled = on_isa(run_cosmic, replace(case, poison=bad)).arrays
    for key, array in clean.items():
        if array.size == case.numel and not key.startswith("decoded"):
            unsigned = f"u{array.itemsize}"
            changed = np.flatnonzero(array.view(unsigned) != spoiled[key].view(unsigned))
            assert set(changed) <= {129}, key

    later = on_isa(run_cosmic, replace(case, poison=bad, steps=4)).arrays
    assert set(np.flatnonzero(~np.isfinite(later["param"]))) <= {129}
    shared = [key for key in later if key.endswith(("_scale", "_mean", "_steps", "_row", "_col"))]
    for key in shared:
        planes = later[key]
        numbers = widen(planes, "bfloat16") if planes.dtype == np.uint16 else planes
        assert np.isfinite(numbers).all(), key


@pytest.mark.parametrize("tier", [0, 1, 2])
def test_the_poison_of_the_test_above_is_felt(tier: int) -> None:
    case = Case("poisoned", steps=1, options=options(tier=tier), poison=float("nan"))
    assert np.isnan(run_cosmic(case).arrays["param"][129])
