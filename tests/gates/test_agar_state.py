"""State under gate "agar": its bytes under a budget, what a change of the gate carries over, and
checkpoints."""

from __future__ import annotations

import copy
import io
import pickle
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cosmic import Cosmic, Rung, estimate_memory
from cosmic.rungs import Geometry, combinations
from cosmic.state.building import decoded_moments
from cosmic.state.entries import rung_of
from helpers import UNUSUAL, digest, give_gradients, normal, parameters, same_bits, take_steps
from helpers import state_tensors as tensors_of

GATE = 8  # bytes: the mean share, in float64
SHAPES = ((300, 40), (64, 70), (5000,), (129,), (), (0, 3))
CENTERED = [f"{m}+{v}" for m, v in combinations("belief")]
#: What needs the rounding of a codec to be compared.
STATE_DTYPES = ("fp32", "bf16", "q8", "u4+v4", "u4+factored")


def nbytes(optimizer: Cosmic) -> int:
    return sum(t.numel() * t.element_size() for t in tensors_of(optimizer))


def agar(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float32, **options: Any) -> Cosmic:
    params = parameters(*(shapes or SHAPES), dtype=dtype)
    return Cosmic(params, **{**UNUSUAL, "gate": "agar", "min_compress_size": 0, **options})


def only(optimizer: Cosmic) -> tuple[nn.Parameter, dict[str, Any]]:
    (param,) = optimizer.param_groups[0]["params"]
    return param, optimizer.state[param]


def steady(optimizer: Cosmic, first: int, last: int) -> None:
    """Steps whose gradients are noise of 0.5 about a signal."""
    for step in range(first, last):
        for group in optimizer.param_groups:
            for k, p in enumerate(group["params"]):
                noise = normal(1000 * step + k, *p.shape, dtype=p.dtype, scale=0.5)
                p.grad = normal(77 + k, *p.shape, dtype=p.dtype) + noise
        optimizer.step()


def switch(optimizer: Cosmic, gate: str | None) -> None:
    """Take another gate in a step without gradients, in which nothing moves."""
    for group in optimizer.param_groups:
        group["gate"] = gate
        for p in group["params"]:
            p.grad = None
    optimizer.step()


def gates_of(state: dict[str, Any]) -> list[str]:
    """Keys of a gate's numbers."""
    return [key for key in state if key.startswith("gate")]


def moments(optimizer: Cosmic) -> tuple[Tensor, Tensor]:
    param, state = only(optimizer)
    found = decoded_moments(param, state, optimizer.param_groups[0])
    return found["exp_avg"].double().clone(), found["exp_avg_sq"].double().clone()


# ---- bytes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("rung", ["tier0", "tier1", "tier1:factored", "tier1:fp32"])
def test_without_a_first_moment_there_is_no_gate(rung: str) -> None:
    """To the bit and to the byte what the rung is without one."""
    optimizer, plain = agar(rung=rung), agar(rung=rung, gate=None)
    for each in (optimizer, plain):
        take_steps(each, 0, 3)
    assert digest(optimizer) == digest(plain)
    assert not any(gates_of(state) for state in optimizer.state.values())
    assert optimizer.gate_factors() == {}
    assert optimizer.stats()[0]["gate"] == 1.0
    assert optimizer.state_bytes() == nbytes(optimizer) == plain.state_bytes()


@pytest.mark.parametrize("state_dtype", CENTERED)
def test_full_history_takes_8_bytes_a_tensor_more(state_dtype: str) -> None:
    optimizer = agar(state_dtype=state_dtype)
    plain = agar(state_dtype=state_dtype, gate=None)
    for each in (optimizer, plain):
        take_steps(each, 0, 2)
    assert optimizer.state_bytes() == nbytes(optimizer)
    assert optimizer.state_bytes() == plain.state_bytes() + GATE * len(SHAPES)
    for info in optimizer.tiers():
        assert info.rung.endswith("+centered") and Rung.parse(info.rung).name == info.rung
        geometry = Geometry.of(optimizer.param_groups[0]["params"][int(info.name)])
        assert info.nbytes == Rung.parse(info.rung).nbytes(geometry) + GATE
    for state in optimizer.state.values():
        assert gates_of(state) == ["gate_agar"]
        assert state["gate_agar"].dtype == torch.float64 and state["gate_agar"].shape == ()


@pytest.mark.parametrize("policy", ["calibrated", "role", "uniform", "signal"])
@pytest.mark.parametrize("budget", [0, 500, "1%", "3%", "10%", "26%", "60%", "101%"], ids=str)
def test_a_budget_is_kept_to_the_byte_by_every_policy(budget: int | str, policy: str) -> None:
    optimizer = agar(budget=budget, policy=policy, reallocate_every=2)
    for step in range(6):
        take_steps(optimizer, step, step + 1)
        limit = optimizer.budget_bytes()
        assert limit is not None
        assert optimizer.state_bytes() == nbytes(optimizer) <= limit
    full = [info for info in optimizer.tiers() if info.tier == 2]
    assert set(optimizer.gate_factors()) == {info.name for info in full}
    for info in optimizer.tiers():
        state = optimizer.state[optimizer.param_groups[0]["params"][int(info.name)]]
        assert ("gate_agar" in state) == (info.tier == 2) == info.rung.endswith("+centered")
    if policy != "role":  # which buys no history for such shapes
        assert bool(full) == (budget != 0)


def test_a_budget_that_just_holds_a_rung_with_its_gate_buys_it() -> None:
    """A byte less buys the next cheaper one."""
    names = ("u4+factored", "u4+v4", "q8+factored", "q8+q8", "bf16+bf16", "fp32+fp32")
    geometry = Geometry.of(parameters((64, 70))[0])
    rungs = [Rung.parse(f"tier2:{name}+centered") for name in names]
    prices = [rung.nbytes(geometry) + GATE for rung in rungs]
    assert prices == sorted(prices)
    for k, price in enumerate(prices):
        for budget, wanted in ((price, rungs[k]), (price - 1, rungs[k - 1] if k else None)):
            optimizer = agar((64, 70), budget=budget, policy="uniform")
            take_steps(optimizer, 0, 3)
            (info,) = optimizer.tiers()
            if wanted is not None:
                assert info.rung == wanted.name
                assert optimizer.state_bytes() == prices[rungs.index(wanted)]
            else:
                assert info.tier < 2 and optimizer.state_bytes() <= budget


def test_a_budget_below_fixed_rungs_and_their_gates_names_what_suffices() -> None:
    def made(budget: int) -> Cosmic:
        fixed, free = parameters((300, 7), (129,)), parameters((40, 40), (5,))
        groups: list[dict[str, Any]] = [{"params": fixed, "tier": 2}, {"params": free}]
        return Cosmic(groups, budget=budget, gate="agar", state_dtype="fp32")

    tight = made(1000)
    give_gradients((p for g in tight.param_groups for p in g["params"]), 0)
    with pytest.raises(ValueError, match="budget is 1000 bytes") as caught:
        tight.step()
    found = re.search(r"at least (\d+) bytes", str(caught.value))
    assert found
    needed = int(found[1])
    assert needed == 2 * (8 + GATE) + 8 * (300 * 7 + 129)  # nothing for those without history
    enough = made(needed)
    take_steps(enough, 0, 3)
    assert enough.state_bytes() == needed
    assert [info.tier for info in enough.tiers()] == [2, 2, 0, 0]


def test_no_history_is_bought_that_the_gate_does_not_know() -> None:
    seen = set()
    for percent in range(1, 104, 3):
        optimizer = agar((300, 40), budget=f"{percent}%", policy="uniform")
        take_steps(optimizer, 0, 1)
        rung = Rung.parse(optimizer.tiers()[0].rung)
        assert rung.tier < 2 or (rung.centered and f"{rung.m}+{rung.v}" in CENTERED)
        seen.add(rung.name)
    assert len(seen) >= 5


@pytest.mark.parametrize("budget", [None, "0%", "1%", "5%", "30%", "101%"], ids=str)
@pytest.mark.parametrize("policy", ["calibrated", "role", "signal"])
def test_the_estimate_is_what_the_first_step_makes(budget: str | None, policy: str) -> None:
    model = nn.Sequential(nn.Embedding(300, 40), nn.Linear(40, 90), nn.LayerNorm(90))
    options: dict[str, Any] = {"gate": "agar", "policy": policy}
    estimate = estimate_memory(model, budget, **options)
    optimizer = Cosmic(model.named_parameters(), budget=budget, **options)
    give_gradients(model.parameters(), 0)
    optimizer.step()
    assert estimate.state_bytes == optimizer.state_bytes()
    held = [(info.name, info.rung, info.nbytes) for info in optimizer.tiers()]
    assert [(t.name, t.rung, t.state_bytes) for t in estimate.tensors] == held


# ---- another gate in mid-run ---------------------------------------------------------------------


def centred(m: Tensor, v: Tensor, t: int) -> Tensor:
    """v - m_hat^2 (1 - beta2^t), but a tenth of v at least."""
    beta1, beta2 = UNUSUAL["betas"]
    return torch.maximum(v - (m / (1 - beta1**t)) ** 2 * (1 - beta2**t), 0.1 * v)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_moments_are_carried_from_gate_to_gate(dtype: torch.dtype) -> None:
    """None, "agar", None, "snr", "agar": about another centre, and about the old one again."""
    near = 1e-5 if dtype == torch.float32 else 1e-12
    optimizer = agar((64, 70), dtype=dtype, gate=None, state_dtype="fp32")
    steady(optimizer, 0, 9)
    m, v = moments(optimizer)
    s = centred(m, v, 9)
    kept = s > 0.11 * v
    assert 0.3 < float(kept.double().mean()) < 1
    for gate in ("agar", None, "snr", "agar"):
        switch(optimizer, gate)
        new_m, new_v = moments(optimizer)
        state = only(optimizer)[1]
        assert torch.equal(new_m, m) and int(state["step"]) == 9
        assert rung_of(state).centered == (gate == "agar")
        assert ("exp_avg_var" in state) == (gate == "agar") != ("exp_avg_sq" in state)
        want = s if gate == "agar" else v
        torch.testing.assert_close(new_v[kept], want[kept], rtol=near, atol=near * 1e-2)
        assert bool((new_v >= want * (1 - near)).all())
        numbers = {key: state[key].numel() for key in gates_of(state)}
        assert numbers == {"agar": {"gate_agar": 1}, "snr": {"gate_snr": 4}, None: {}}[gate]
    steady(optimizer, 9, 12)
    assert int(only(optimizer)[1]["step"]) == 12
    assert 0 < float(only(optimizer)[1]["gate_agar"]) < 1


@pytest.mark.parametrize("state_dtype", ["bf16", "q8", "q8+v4", "u4+v4"])
def test_compressed_moments_are_carried_within_their_codecs_rounding(state_dtype: str) -> None:
    """Levels of u4 are a seventh of its block's largest apart; v4 is right in the mean."""
    optimizer = agar((64, 70), gate=None, state_dtype=state_dtype)
    steady(optimizer, 0, 9)
    m, v = moments(optimizer)
    off = 0.25 if "4" in state_dtype else 0.02
    for gate, want in (("agar", centred(m, v, 9)), (None, v)):
        switch(optimizer, gate)
        new_m, new_v = moments(optimizer)
        assert float((new_m - m).norm() / m.norm()) < off
        close = want > 0.11 * v if gate == "agar" else centred(m, v, 9) > 0.11 * v
        assert float(new_v[close].sum() / want[close].sum()) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("state_dtype", STATE_DTYPES)
def test_a_gate_in_mid_run_changes_no_direction(state_dtype: str) -> None:
    """Moments that began anew would give the first step's sign, others a wild one: the step after
    the change points where that of the gate from the start on does."""
    optimizer = agar((64, 70), gate=None, state_dtype=state_dtype, weight_decay=0.0, lr=1e-6)
    always = agar((64, 70), state_dtype=state_dtype, weight_decay=0.0, lr=1e-6)
    steps = []
    for each in (optimizer, always):
        steady(each, 0, 25)
        for group in each.param_groups:
            group.update(gate="agar", lr=1.0)
        before = only(each)[0].detach().clone()
        steady(each, 25, 26)
        steps.append((only(each)[0].detach() - before).flatten())
    assert float(torch.cosine_similarity(steps[0], steps[1], dim=0)) > 0.93
    ratio = float(steps[0].norm() / steps[1].norm())
    assert 0.7 < ratio < 1.4


def test_a_step_that_is_refused_has_moved_no_centre() -> None:
    optimizer = agar((64, 70), gate=None, state_dtype="fp32")
    steady(optimizer, 0, 3)
    late = nn.Parameter(torch.ones(3))
    optimizer.add_param_group({"params": [late]})
    late.grad = torch.ones(3).to_sparse()
    before = digest(optimizer)
    optimizer.param_groups[0]["gate"] = "agar"
    for _ in range(2):
        with pytest.raises(TypeError, match="dense"):
            optimizer.step()
        assert digest(optimizer) == before


def test_a_named_rung_follows_its_gate() -> None:
    optimizer = agar((64, 70), rung="tier2:u4+v4+centered")
    twin = agar((64, 70), rung="tier2:u4+v4")
    for each in (optimizer, twin):
        take_steps(each, 0, 2)
    assert digest(optimizer) == digest(twin)
    optimizer.param_groups[0]["gate"] = None
    with pytest.raises(ValueError, match=r"'tier2:u4\+v4\+centered'.* give gate 'agar'"):
        optimizer.step()


# ---- checkpoints ---------------------------------------------------------------------------------


def through_a_file(saved: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(saved, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


def twin_of(optimizer: Cosmic, **options: Any) -> Cosmic:
    """Another optimizer of the same parameters, without state."""
    params = [nn.Parameter(p.detach().clone()) for p in optimizer.param_groups[0]["params"]]
    return Cosmic(params, **{**UNUSUAL, "gate": "agar", "min_compress_size": 0, **options})


@pytest.mark.parametrize("how", ["state_dict", "deepcopy", "pickle"])
@pytest.mark.parametrize(
    "options",
    [{"state_dtype": name} for name in STATE_DTYPES] + [{"budget": "6%"}, {"budget": "40%"}],
    ids=str,
)
def test_a_copy_in_mid_run_goes_on_with_the_same_bits(options: dict[str, Any], how: str) -> None:
    options = {"robustness": 1.7, "rel_floor": 0.3, "c_min": 0.2, **options}
    optimizer = agar(**options)
    take_steps(optimizer, 0, 4)
    if how == "state_dict":
        other = twin_of(optimizer, budget=options.get("budget"))
        other.load_state_dict(through_a_file(optimizer.state_dict()))
    elif how == "deepcopy":
        other = copy.deepcopy(optimizer)
    else:
        other = pickle.loads(pickle.dumps(optimizer))
    assert digest(other) == digest(optimizer)
    for each in (optimizer, other):
        take_steps(each, 4, 7)
    assert digest(other) == digest(optimizer)
    assert other.gate_factors() == optimizer.gate_factors()


def test_a_checkpoint_in_float64_goes_on_with_the_same_bits() -> None:
    optimizer = agar((64, 70), (5,), dtype=torch.float64)
    take_steps(optimizer, 0, 4)
    other = twin_of(optimizer)
    other.load_state_dict(through_a_file(optimizer.state_dict()))
    for each in (optimizer, other):
        take_steps(each, 4, 6)
    assert digest(other) == digest(optimizer)


def test_a_checkpoint_from_before_the_gate_keeps_its_options_as_they_are() -> None:
    optimizer = agar((64, 70), gate=None, state_dtype="u4+v4")
    take_steps(optimizer, 0, 4)
    saved = optimizer.state_dict()
    for group in saved["param_groups"]:
        del group["robustness"], group["rel_floor"]
    other = twin_of(optimizer, gate=None, state_dtype="u4+v4", robustness=2.0, rel_floor=0.5)
    other.load_state_dict(through_a_file(saved))
    assert other.param_groups[0]["robustness"] == 2.0
    assert other.param_groups[0]["rel_floor"] == 0.5
    for each in (optimizer, other):
        take_steps(each, 4, 6)
    assert digest(other) == digest(optimizer)


@pytest.mark.parametrize("held", [torch.zeros(2, dtype=torch.float64), 0.5], ids=str)
def test_a_checkpoint_with_no_gate_s_numbers_is_refused(held: object) -> None:
    optimizer = agar((64, 70))
    take_steps(optimizer, 0, 2)
    saved = optimizer.state_dict()
    saved["state"][0] = {**saved["state"][0], "gate_agar": held}
    other = twin_of(optimizer)
    with pytest.raises(ValueError, match=r"gate_agar .*(expected|needs) .*float64"):
        other.load_state_dict(saved)
    assert not other.state


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_adamw_s_moments_come_and_go(dtype: torch.dtype) -> None:
    near = 1e-5 if dtype == torch.float32 else 1e-12
    param = nn.Parameter(normal(0, 64, 70, dtype=dtype))
    adamw = torch.optim.AdamW([param], **UNUSUAL)
    for step in range(9):
        param.grad = normal(77, 64, 70, dtype=dtype) + normal(step, 64, 70, dtype=dtype, scale=0.5)
        adamw.step()
    m, v = (adamw.state[param][key].double() for key in ("exp_avg", "exp_avg_sq"))
    ours = nn.Parameter(param.detach().clone())
    optimizer = Cosmic([ours], gate="agar", state_dtype="fp32")
    optimizer.load_state_dict(adamw.state_dict())
    optimizer.param_groups[0]["gate"] = "agar"
    optimizer.step()  # no gradient yet: only the centre moves
    held_m, held_s = moments(optimizer)
    torch.testing.assert_close(held_m, m, rtol=near, atol=near)
    torch.testing.assert_close(held_s, centred(m, v, 9), rtol=100 * near, atol=near)

    kept = centred(m, v, 9) > 0.11 * v
    back = optimizer.to_adamw_state_dict()["state"][0]
    assert float(back["step"]) == 9 and back["exp_avg"].dtype == dtype
    torch.testing.assert_close(back["exp_avg"].double(), m, rtol=near, atol=near)
    torch.testing.assert_close(back["exp_avg_sq"].double()[kept], v[kept], rtol=near, atol=near)
    # export changes nothing
    assert same_bits(optimizer.state[ours]["exp_avg_var"], held_s.to(dtype))

    twin = torch.optim.AdamW([nn.Parameter(param.detach().clone())], **UNUSUAL)
    twin.load_state_dict(optimizer.to_adamw_state_dict())
    (again,) = twin.param_groups[0]["params"]
    param.grad = normal(100, 64, 70, dtype=dtype)
    again.grad = param.grad.clone()
    before = param.detach().clone()
    adamw.step()
    twin.step()
    moved = (param - before).detach()[kept]
    torch.testing.assert_close((again - before).detach()[kept], moved, rtol=1e-2, atol=1e-7)
