"""Gates of norms: how far a tensor moves beside its own size, exactly and by the step before."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from cosmic import Cosmic
from helpers import bits, digest, give_gradients, normal, parameter, parameters, same_bits
from reference.options import Options
from trajectories import Case, run_cosmic, run_reference

GATES: dict[str, dict[str, Any]] = {
    "trust": {"gate": "trust"},
    "agc": {"gate": "agc", "agc_clip": 0.1},
    "clip_update": {"clip_update": 0.1},
    "trust+agc": {"gate": "trust+agc", "agc_clip": 0.5, "trust_clip": 1.5},
    "snr+trust": {"gate": "snr+trust", "c_min": 0.2, "norm_decay": 0.9},
    "snr+agar+trust": {"gate": "snr+agar+trust", "clip_update": 0.9},
}
RUNGS: dict[str, dict[str, Any]] = {
    "tier0": {"tier": 0},
    "tier1": {"tier": 1},
    "tier1:factored": {"rung": "tier1:factored", "tier": None},
    "fp32": {"state_dtype": "fp32"},
    "q8": {"state_dtype": "q8"},
    "u4+factored": {"state_dtype": "u4+factored"},
}
#: Rungs of whole matrices, which the reference does not step.
MATRICES: dict[str, dict[str, Any]] = {
    "tier2:muon:m1": {"matrix_rule": "muon", "role": "matrix", "matrix_state_dtype": "m1"},
    "tier1:muon": {"matrix_rule": "muon", "role": "matrix", "matrix_state_dtype": "none"},
}
#: What float64 parameters may have: their state is float64 always.
DOUBLES = [("float64", rung) for rung in ("tier0", "tier1", "fp32")]
exact_or_lagged = pytest.mark.parametrize("exact", [False, True], ids=["lagged", "exact"])


def rms(x: Tensor) -> float:
    return float(x.detach().double().square().mean().sqrt())


def one(param: nn.Parameter, **options: Any) -> Cosmic:
    return Cosmic([("w", param)], **{"min_compress_size": 0, "state_dtype": "fp32", **options})


def feed(optimizer: Cosmic, seed: int, scale: float = 1.0) -> None:
    give_gradients(optimizer.param_groups[0]["params"], seed, scale)
    optimizer.step()


def factor(optimizer: Cosmic) -> float:
    return optimizer.gate_factors()["w"]


# ---- against the reference -----------------------------------------------------------------------


@exact_or_lagged
@pytest.mark.parametrize(("dtype", "rung"), [*(("float32", rung) for rung in RUNGS), *DOUBLES])
@pytest.mark.parametrize("gate", GATES)
def test_fifty_steps_have_the_reference_s_bits(
    gate: str, dtype: str, rung: str, exact: bool
) -> None:
    asked = {**GATES[gate], **RUNGS[rung], "lr": 0.01, "weight_decay": 0.1, "min_compress_size": 0}
    options = Options(**asked, exact=exact)
    case = Case("", (9, 31), dtype, steps=50, absent=(7,), options=options)
    got, want = run_cosmic(case).arrays, run_reference(case).arrays
    assert got.keys() == want.keys()
    for key, array in want.items():
        np.testing.assert_array_equal(got[key], array, key)


# ---- how long a step is --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "rung"), [*(("float32", rung) for rung in (*RUNGS, *MATRICES)), *DOUBLES]
)
def test_under_exact_trust_a_step_is_lr_times_the_tensor(dtype: str, rung: str) -> None:
    options = {**RUNGS, **MATRICES}[rung]
    param = parameter(3, 40, 33, dtype=getattr(torch, dtype))
    optimizer = one(param, gate="trust", trust_clip=1e9, exact=True, lr=1e-3, **options)
    near = 1e-6 if dtype == "float64" else 3e-5  # the rounding of a parameter beside its step
    for step in range(12):
        before = param.detach().clone()
        feed(optimizer, step, scale=10.0 ** (step % 5 - 2))
        moved = rms(param.detach().double() - before.double())
        assert moved == pytest.approx(1e-3 * rms(before), rel=near)
        assert optimizer.stats()[0]["update_rms"] == pytest.approx(rms(before), rel=1e-5)


@pytest.mark.parametrize("rung", [*RUNGS, *MATRICES])
@given(power=st.integers(-20, 20))
@settings(max_examples=12, deadline=None)
def test_the_loss_s_scale_changes_no_bit(rung: str, power: int) -> None:
    def run(scale: float) -> str:
        param = parameter(4, 12, 33)
        rung_options = {**RUNGS, **MATRICES}[rung]
        optimizer = one(param, gate="trust", exact=True, eps=0.0, lr=0.01, **rung_options)
        for step in range(5):
            feed(optimizer, step, scale)
        return bits(param).numpy().tobytes().hex()

    assert run(2.0**power) == run(1.0)


@exact_or_lagged
@pytest.mark.parametrize("rung", [*RUNGS, *MATRICES])
def test_a_tensor_of_zeros_moves_by_a_bounded_step(rung: str, exact: bool) -> None:
    for gate, most in (("trust", 1.0), ("agc", 0.5)):
        param = nn.Parameter(torch.zeros(12, 40))
        options = {**RUNGS, **MATRICES}[rung]
        optimizer = one(
            param, gate=gate, agc_clip=0.5, param_floor=0.01, exact=exact, lr=0.1, **options
        )
        feed(optimizer, 0, scale=1e-5)
        assert rms(param) == pytest.approx(0.1 * 0.01 * most, rel=1e-5)
        assert rms(param) <= 0.1 * 0.01 * 10.0


@pytest.mark.parametrize("gate", ["trust", "agc", "clip_update", "trust+agc", "snr+trust"])
@pytest.mark.parametrize("rung", [*RUNGS, *MATRICES])
def test_the_first_step_of_a_lagged_gate_is_the_exact_one(rung: str, gate: str) -> None:
    found = []
    for exact in (False, True):
        param = parameter(5, 12, 40)
        optimizer = one(param, exact=exact, lr=0.1, **{**RUNGS, **MATRICES}[rung], **GATES[gate])
        feed(optimizer, 0)
        found.append((bits(param).tolist(), optimizer.gate_factors()))
    assert found[0] == found[1]
    assert found[0][1]["w"] != 1.0


@pytest.mark.parametrize("rung", ["tier0", "tier1", "fp32"])
def test_lagged_comes_to_exact_where_updates_vary_slowly(rung: str) -> None:
    params = [parameter(6, 300, dtype=torch.float64) for _ in range(2)]
    pair = [
        one(p, gate="trust", exact=exact, lr=1e-3, **RUNGS[rung])
        for p, exact in zip(params, (False, True), strict=True)
    ]
    slope, start = normal(7, 300, dtype=torch.float64), params[0].detach().clone()
    for step in range(60):
        for p, optimizer in zip(params, pair, strict=True):
            p.grad = slope * (2.0 + math.cos(step / 100))
            optimizer.step()
        if step > 5:
            assert factor(pair[0]) == pytest.approx(factor(pair[1]), rel=1e-3)
    apart = rms(params[0] - params[1])
    assert apart < 1e-3 * rms(params[1] - start)


def test_weight_decay_is_not_gated() -> None:
    """Beside two twins, one without a decay and one without a gate."""
    param, plain = parameter(8, 300, dtype=torch.float64), parameter(8, 300, dtype=torch.float64)
    start = param.detach().clone()
    optimizer = one(param, gate="agc", agc_clip=1e-3, exact=True, lr=0.1, weight_decay=0.5)
    undecayed = one(plain, gate="agc", agc_clip=1e-3, exact=True, lr=0.1)
    feed(optimizer, 0)
    feed(undecayed, 0)
    torch.testing.assert_close(param - plain, -0.1 * 0.5 * start, rtol=1e-12, atol=1e-12)


# ---- what is not remembered ----------------------------------------------------------------------


@exact_or_lagged
@pytest.mark.parametrize("bad", [0.0, float("nan")], ids=str)
def test_a_first_step_without_an_update_leaves_nothing(bad: float, exact: bool) -> None:
    param, twin = parameter(9, 300), parameter(9, 300)
    optimizer = one(param, gate="trust", exact=exact, lr=0.1, tier=0, nonfinite="propagate")
    param.grad = torch.full((300,), bad)
    if bad == 0:
        optimizer.step()
    else:
        with pytest.warns(RuntimeWarning, match="infinite or NaN"):
            optimizer.step()
    assert factor(optimizer) == 1.0
    assert float(optimizer.state[param]["gate_norms"][1]) == 0.0
    with torch.no_grad():
        param.copy_(twin)
    fresh = one(twin, gate="trust", exact=exact, lr=0.1, tier=0)
    feed(optimizer, 1)
    feed(fresh, 1)
    assert same_bits(param, twin) and factor(optimizer) == factor(fresh) != 1.0


@exact_or_lagged
@pytest.mark.parametrize("bad", [0.0, float("nan")], ids=str)
def test_a_later_one_leaves_what_was_known(bad: float, exact: bool) -> None:
    param = parameter(9, 300)
    optimizer = one(param, gate="trust", exact=exact, lr=1e-3, tier=0, norm_decay=0.5)
    feed(optimizer, 0)
    known = float(optimizer.state[param]["gate_norms"][1])
    before = factor(optimizer)
    param.grad = torch.zeros(300)
    param.grad[5] = bad
    if bad == 0:
        optimizer.step()
    else:
        with pytest.warns(RuntimeWarning, match="infinite or NaN"):
            optimizer.step()
    assert float(optimizer.state[param]["gate_norms"][1]) == known
    assert factor(optimizer) == pytest.approx(before, rel=0.02)  # the last that was known acts
    with torch.no_grad():
        param[5] = 1.0
    feed(optimizer, 2)
    ratio = rms(param) / math.sqrt(known)
    assert factor(optimizer) == pytest.approx(ratio, rel=0.02)


# ---- several together ----------------------------------------------------------------------------


@exact_or_lagged
@pytest.mark.parametrize(
    ("names", "other"),
    [("trust+agc", "agc+trust"), ("snr+trust+agc", "agc+trust+snr"), ("agar+trust", "trust+agar")],
)
def test_the_order_of_names_changes_no_bit(names: str, other: str, exact: bool) -> None:
    found = set()
    for gate in (names, other):
        optimizer = Cosmic(parameters((33, 20), (7,)), gate=gate, agc_clip=0.5, exact=exact)
        for step in range(24):
            feed(optimizer, step, scale=1.0 + step % 3)
        found.add(digest(optimizer))
    assert len(found) == 1


@exact_or_lagged
def test_the_factor_of_several_is_their_product(exact: bool) -> None:
    """Each as it is alone: none sees what another does to the update."""
    options = {"agc_clip": 0.3, "exact": exact, "lr": 0.0}  # nothing moves apart
    alone = [
        one(parameter(2, 300), **options, **gate)
        for gate in ({"gate": "trust"}, {"gate": "agc"}, {"clip_update": 0.2})
    ]
    together = one(parameter(2, 300), **options, gate="trust+agc", clip_update=0.2)
    for step in range(8):
        for optimizer in (*alone, together):
            feed(optimizer, step)
        factors = [factor(optimizer) for optimizer in alone]
        assert all(c != 1.0 for c in factors)
        assert factor(together) == factors[0] * factors[1] * factors[2]


@exact_or_lagged
def test_an_average_of_the_squared_update_is_kept(exact: bool) -> None:
    param = parameter(2, 300, dtype=torch.float64)
    optimizer = one(param, gate="trust", norm_decay=0.75, exact=exact, lr=1e-3, tier=2)
    kept = seen = 0.0
    for step in range(10):
        before = rms(param)
        feed(optimizer, step, scale=10.0 ** (step % 3))
        u = (optimizer.stats()[0]["update_rms"] / factor(optimizer)) ** 2
        used = kept if kept and not exact else u if not kept else 0.75 * kept + 0.25 * u
        assert factor(optimizer) == pytest.approx(min(10.0, before / math.sqrt(used)), rel=1e-9)
        kept = 0.75 * kept + 0.25 * u if kept else u
        seen = max(seen, abs(u / kept - 1))
        assert float(optimizer.state[param]["gate_norms"][1]) == pytest.approx(kept, rel=1e-9)
    assert seen > 0.05  # the average is not the last one


def test_exact_trust_measures_the_update_with_the_focus_of_agar() -> None:
    """The focus scales coordinates, which only the update has."""
    param = parameter(3, 40, 33, dtype=torch.float64)
    optimizer = one(
        param, gate="trust+agar", robustness=0.0, rel_floor=0.0, trust_clip=1e9, exact=True, lr=0.01
    )
    for step in range(5):
        before = param.detach().clone()
        feed(optimizer, step)
        assert rms(param - before) == pytest.approx(0.01 * rms(before), rel=1e-6)


# ---- bounds --------------------------------------------------------------------------------------

positive = st.floats(1e-6, 1e6)


@exact_or_lagged
@given(
    size=positive, scale=positive, least=st.floats(0, 2), wide=positive, floor=st.floats(0, 10),
    seed=st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_a_factor_stays_within_its_bounds(
    exact: bool, size: float, scale: float, least: float, wide: float, floor: float, seed: int
) -> None:
    bounds: dict[str, dict[str, Any]] = {
        "trust": {"gate": "trust", "trust_min": least, "trust_clip": least + wide},
        "agc": {"gate": "agc", "agc_clip": wide},
        "clip": {"clip_update": wide},
    }
    for name, gate in bounds.items():
        param = nn.Parameter(normal(seed, 50) * size)
        optimizer = one(param, exact=exact, param_floor=floor, lr=0.01, **gate)
        for step in range(3):
            feed(optimizer, step, scale ** (step % 2))
            low, high = (least, least + wide) if name == "trust" else (0.0, 1.0)
            assert low <= factor(optimizer) <= high
        if exact and name == "clip":
            assert optimizer.stats()[0]["update_rms"] <= wide * (1 + 1e-6)
