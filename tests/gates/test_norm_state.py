"""What gates of norms keep of a tensor, what it costs, and what becomes of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cosmic import Cosmic, estimate_memory
from cosmic.presets import CASMO, Muon, TurboAdam
from helpers import (
    digest,
    give_gradients,
    normal,
    parameter,
    parameters,
    refused,
    same_bits,
    take_steps,
    through_a_file,
)

SHAPES = [(300,), (33, 40), (5,)]
KEY = "gate_norms"
NORMS = ({"gate": "trust"}, {"gate": "trust+agc"}, {"clip_update": 0.5},
         {"gate": "trust", "exact": True})  # fmt: skip


def made(**options: Any) -> Cosmic:
    return Cosmic(parameters(*SHAPES), **{"min_compress_size": 0, **options})


def first(optimizer: Cosmic) -> nn.Parameter:
    param = optimizer.param_groups[0]["params"][0]
    assert isinstance(param, nn.Parameter)
    return param


def kept(optimizer: Cosmic) -> Tensor:
    found = optimizer.state[first(optimizer)][KEY]
    assert isinstance(found, Tensor)
    return found


# ---- bytes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("tier", [0, 1, 2])
@pytest.mark.parametrize("norms", NORMS, ids=str)
def test_sixteen_bytes_a_tensor(norms: dict[str, Any], tier: int) -> None:
    """However many of them there are, as they share their numbers."""
    plain, gated = made(tier=tier), made(tier=tier, **norms)
    for optimizer in (plain, gated):
        take_steps(optimizer, 0, 2)
    assert gated.state_bytes() == plain.state_bytes() + 16 * len(SHAPES)
    assert kept(gated).dtype == torch.float64 and kept(gated).shape == (2,)
    p = first(gated).detach().double()
    assert float(kept(gated)[0]) == pytest.approx(float(p.square().mean()), rel=0.02)


def test_beside_other_gates() -> None:
    optimizer = made(gate="trust+snr+agar")
    take_steps(optimizer, 0, 2)
    assert {key for key in optimizer.state[first(optimizer)] if key.startswith("gate_")} == {
        "gate_snr", "gate_agar", KEY,
    }  # fmt: skip


@pytest.mark.parametrize("budget", ["3%", "20%", 16 * len(SHAPES)])
def test_a_budget_pays_for_them_first(budget: int | str) -> None:
    optimizer = Cosmic(parameters(*SHAPES), budget=budget, gate="trust+agc", reallocate_every=3)
    for step in range(8):
        take_steps(optimizer, step, step + 1)
        limit = optimizer.budget_bytes()
        assert limit is not None and 16 * len(SHAPES) <= optimizer.state_bytes() <= limit


def test_a_budget_below_them_is_refused() -> None:
    optimizer = Cosmic(parameters(*SHAPES), budget=16 * len(SHAPES) - 1, gate="trust")
    give_gradients(optimizer.param_groups[0]["params"], 0)
    with refused(optimizer, ValueError, "give a budget of at least"):
        optimizer.step()


@pytest.mark.parametrize("options", [{"gate": "trust+agc"}, {"clip_update": 1.0}], ids=str)
@pytest.mark.parametrize("budget", [None, "30%"])
def test_the_estimate_knows_them(budget: str | None, options: dict[str, Any]) -> None:
    model = nn.Sequential(nn.Linear(40, 64), nn.Linear(64, 5))
    estimate = estimate_memory(model, budget, **options)
    optimizer = Cosmic(model.named_parameters(), budget=budget, **options)
    take_steps(optimizer, 0, 1)
    assert estimate.state_bytes == optimizer.state_bytes()


# ---- saved, loaded, changed ----------------------------------------------------------------------


@pytest.mark.parametrize("norms", NORMS, ids=str)
def test_a_checkpoint_goes_on_with_the_same_bits(norms: dict[str, Any]) -> None:
    optimizer, through = made(**norms, norm_decay=0.5), made(**norms, norm_decay=0.5)
    for one in (optimizer, through):
        take_steps(one, 0, 4)
    saved = through_a_file(through.state_dict())
    loaded = Cosmic([nn.Parameter(p.detach().clone()) for p in through.param_groups[0]["params"]])
    loaded.load_state_dict(saved)
    for one in (optimizer, loaded):
        take_steps(one, 4, 8)
    assert digest(loaded) == digest(optimizer)
    assert loaded.gate_factors() == optimizer.gate_factors()


def test_numbers_stay_from_gate_to_gate_and_go_with_the_last() -> None:
    """trust, agc and clip_update keep the same; who takes one up later starts by measuring."""
    optimizer, twin = made(gate="trust", agc_clip=0.5), made(gate="trust+agc", agc_clip=0.5)
    group = optimizer.param_groups[0]
    for one in (optimizer, twin):
        take_steps(one, 0, 3)
    before = kept(optimizer).clone()
    give_gradients(group["params"], 3)
    group["gate"] = "agc"
    optimizer.step()
    r_p, r_u = (float(x) ** 0.5 for x in before)
    assert optimizer.gate_factors()["0"] == min(1.0, 0.5 * r_p / r_u)  # by the step before

    group["gate"] = None
    take_steps(optimizer, 4, 5)
    assert not any(KEY in state for state in optimizer.state.values())
    assert optimizer.gate_factors() == {}

    group["gate"] = "trust"
    p = first(optimizer)
    start = p.detach().double()
    take_steps(optimizer, 5, 6)
    moved = (p.detach().double() - start).square().mean().sqrt()
    size = start.square().mean().sqrt()
    assert float(moved / size) == pytest.approx(group["lr"], rel=1e-3)


def test_an_option_that_implies_a_gate_comes_and_goes() -> None:
    optimizer = made()
    group = optimizer.param_groups[0]
    for most, has in ((None, False), (0.1, True), (None, False), (0.2, True)):
        group["clip_update"] = most
        take_steps(optimizer, 0, 1)
        assert (KEY in optimizer.state[first(optimizer)]) == has
        assert bool(optimizer.gate_factors()) == has
        if most is not None:
            assert optimizer.stats()[0]["update_rms"] <= most * (1 + 1e-6)


def test_from_lagged_to_exact_and_back() -> None:
    """A step without an update leaves what was known, whichever way it came to be known."""
    optimizer = made(gate="trust", state_dtype="fp32", exact=True)
    group, p = optimizer.param_groups[0], first(optimizer)
    take_steps(optimizer, 0, 2)
    known = kept(optimizer).clone()
    optimizer.reset(p)
    p.grad = torch.zeros_like(p)
    optimizer.step()
    assert float(kept(optimizer)[1]) == 0.0
    take_steps(optimizer, 2, 3)
    group["exact"] = False
    take_steps(optimizer, 3, 5)
    assert float(kept(optimizer)[1]) > 0 and not same_bits(kept(optimizer), known)


# ---- reports -------------------------------------------------------------------------------------


def test_statistics_are_of_factors_above_one_too() -> None:
    """A mean by elements, the least, and the update as it went."""
    params = [nn.Parameter(normal(0, 300) * 5), nn.Parameter(normal(1, 100) * 2)]
    optimizer = Cosmic([("a", params[0]), ("b", params[1])], gate="trust", trust_clip=99.0, tier=0)
    take_steps(optimizer, 0, 1)
    factors, (stats,) = optimizer.gate_factors(), optimizer.stats()
    assert factors["a"] > factors["b"] > 1.0
    assert stats["gate"] == pytest.approx((300 * factors["a"] + 100 * factors["b"]) / 400)
    assert stats["gate_min"] == factors["b"]
    squares = sum(float(p.detach().double().square().sum()) for p in params)
    assert stats["update_rms"] == pytest.approx((squares / 400) ** 0.5, rel=0.01)


# ---- presets -------------------------------------------------------------------------------------


@pytest.mark.parametrize("exact", [True, False], ids=["exact", "lagged"])
def test_casmo_composes_with_clip_update_alone(exact: bool) -> None:
    """As an option of a group; other names beside its own gate are refused."""
    groups = [{"params": parameters((33, 40)), "clip_update": 0.05}]
    plain, clipped = CASMO(parameters((33, 40)), exact=exact), CASMO(groups, exact=exact)
    for step in range(6):
        for optimizer in (plain, clipped):
            take_steps(optimizer, step, step + 1)
        (own,), (both,) = plain.stats(), clipped.stats()
        assert both["gate"] < 0.3 * own["gate"]
        if exact or step == 0:
            u = own["update_rms"] / own["gate"]
            assert both["gate"] == pytest.approx(own["gate"] * 0.05 / u, rel=1e-5)
    with pytest.raises(ValueError, match=r"\['gate'\] is 'trust'; expected 'calibrated_agar'"):
        CASMO([{"params": parameters((3,)), "gate": "trust"}])


@pytest.mark.parametrize("kind", [TurboAdam, Muon])
def test_other_presets_take_gates_as_options_of_a_group(kind: Any) -> None:
    param = parameter(0, 64, 72)
    group = {"params": [param], "gate": "trust", "exact": True, "trust_clip": 1e9}
    optimizer = kind([group], lr=1e-3, weight_decay=0.0)
    for step in range(3):
        before = param.detach().double().clone()
        take_steps(optimizer, step, step + 1)
        moved = (param.detach().double() - before).square().sum().sqrt()
        assert float(moved / before.square().sum().sqrt()) == pytest.approx(1e-3, rel=1e-4)


def test_a_copy_of_numbers_is_no_alias() -> None:
    optimizer = made(gate="trust")
    take_steps(optimizer, 0, 1)
    saved = optimizer.state_dict()["state"][0][KEY].clone()
    take_steps(optimizer, 1, 2)
    assert not same_bits(saved, kept(optimizer))
