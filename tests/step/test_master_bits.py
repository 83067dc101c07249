"""Parameters in bfloat16 with eight bits more each: values, bytes, state, and what is refused."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from backward_steps import give
from cosmic import Cosmic, _core, estimate_memory
from helpers import (
    UNUSUAL,
    digest,
    normal,
    parameters,
    refused,
    same_bits,
    set_gradient,
    stored,
    through_a_file,
)
from reference.storage import join_24, split_24
from test_copy_to import WAYS, is_copy

SHAPES = ((258, 131), (37,), (8, 4, 3, 5), (1, 1000), (640, 512))
BF16 = torch.bfloat16


def made(**options: Any) -> Cosmic:
    params = parameters(*SHAPES, dtype=BF16)
    params[0] = nn.Parameter(normal(9, 131, 258, dtype=BF16).t())  # dense, in another order
    params[1] = nn.Parameter(normal(8, 37, 3, dtype=BF16)[:, 1])  # with gaps
    named = [(str(k), p) for k, p in enumerate(params)]
    return Cosmic(named, **{**UNUSUAL, "master_bits": 24, **options})


def params_of(optimizer: Cosmic) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def take_steps(optimizer: Cosmic, first: int, last: int) -> None:
    for step in range(first, last):
        for k, p in enumerate(params_of(optimizer)):
            set_gradient(p, normal(100 * step + k, *p.shape, dtype=BF16))
        optimizer.step()


# ---- values -------------------------------------------------------------------------------------

EDGES = (0.0, -0.0, 1e-45, -1e-40, 1.0, -1.00390625, 3.3895313892515355e38, 3.396e38,
         3.4028234663852886e38, -3.4028234663852886e38, float("inf"), float("-inf"),
         float("nan"))  # fmt: skip


def test_the_halves_of_any_float_give_its_24_bits_back() -> None:
    """Also where the upper half alone is rounded to an infinity."""
    values = np.concatenate(
        [
            np.array(EDGES, np.float32),
            np.random.default_rng(0).integers(0, 2**32, 5000, np.uint32).view(np.float32),
        ]
    )
    high, low = split_24(values)
    param = torch.from_numpy(high.view(np.int16).copy()).view(BF16)
    wide = torch.empty(len(values))
    _core.join_master(param, torch.from_numpy(low), wide)
    got, want = wide.numpy(), join_24(high, low)
    assert np.array_equal(np.isnan(got), np.isnan(values))
    kept = ~np.isnan(values)
    assert np.array_equal(got.view(np.uint32)[kept], want.view(np.uint32)[kept])
    bits = values.view(np.uint32).astype(np.int64)
    nearest = (bits + 0x7F + (bits >> 8 & 1)) >> 8 << 8
    assert np.array_equal(got.view(np.uint32)[kept], nearest[kept])
    finite = kept & np.isfinite(values) & (np.abs(values) < 3.4e38)
    assert np.isfinite(got[finite]).all()


def test_upper_halves_that_somebody_has_changed_stay_what_they_are() -> None:
    high = np.array([0x0000, 0x8000, 0x7F80, 0xFF80, 0x7FC0, 0x7F81, 0x3F80], np.uint16)
    for low in (-128, -5, 0, 5, 127):
        plane = torch.full((len(high),), low, dtype=torch.int8)
        param, wide = torch.from_numpy(high.view(np.int16).copy()).view(BF16), torch.empty(7)
        _core.join_master(param, plane, wide)
        assert bool(wide[4:6].isnan().all()) and abs(float(wide[6]) - 1) < 0.01
        assert bool((wide[:2].abs() < 1e-38).all()) and not bool(wide[:4].isnan().any())


@pytest.mark.parametrize("way", WAYS)
def test_the_parameter_is_its_weight_rounded(way: str) -> None:
    optimizer = made(**WAYS[way])
    take_steps(optimizer, 0, 3)
    weights = optimizer.master_weights()
    apart = 0
    for name, p in zip(weights, params_of(optimizer), strict=True):
        rounded, weight = p.detach().float(), weights[name]
        assert weight.dtype == torch.float32 and weight.shape == p.shape
        unit = torch.finfo(BF16).eps * weight.abs()
        assert bool(((rounded - weight).abs() <= unit / 2 * 1.01).all())
        apart += int((rounded != weight).sum())
    assert apart > 1000


@pytest.mark.parametrize("way", WAYS)
def test_what_bf16_alone_would_lose_is_kept(way: str) -> None:
    """Steps of a hundredth of a unit of bfloat16's last place, to nearest."""
    params = [nn.Parameter(torch.ones(256, 320, dtype=BF16)) for _ in range(2)]
    options = {**WAYS[way], "parts": None, "stochastic_rounding": False, "lr": 2.0**-14}
    fine = Cosmic(params[:1], master_bits=24, **options)
    coarse = Cosmic(params[1:], **options)
    for step in range(5):
        for p in params:
            set_gradient(p, normal(step, 256, 320, dtype=BF16) + 1)
        fine.step()
        coarse.step()
    (weight,) = fine.master_weights().values()
    assert bool((params[1] == 1).all()) and float((weight != 1).float().mean()) > 0.7


def test_the_weights_are_as_close_to_float32_as_24_bits_are() -> None:
    param, exact = nn.Parameter(normal(0, 400, 300).bfloat16()), nn.Parameter(torch.empty(400, 300))
    exact.data.copy_(param.data)
    one, other = (
        Cosmic([param], master_bits=24, state_dtype="fp32"),
        Cosmic([exact], state_dtype="fp32"),
    )
    for step in range(20):
        gradient = normal(step, 400, 300, dtype=BF16)
        set_gradient(param, gradient)
        set_gradient(exact, gradient)
        one.step()
        other.step()
    (weight,) = one.master_weights().values()
    error = (weight - exact.detach()).abs() / exact.detach().abs().clamp(min=1e-2)
    assert float(error.max()) < 20 * 2.0**-15
    assert float(((weight - exact.detach()) / exact.detach()).mean().abs()) < 2.0**-16


@pytest.mark.parametrize("to", [BF16, torch.float16], ids=str)
def test_copies_are_of_the_parameter(to: torch.dtype) -> None:
    optimizer = made()
    copies = [torch.empty(p.shape, dtype=to) for p in params_of(optimizer)]
    for k, p in enumerate(params_of(optimizer)):
        set_gradient(p, normal(k, *p.shape, dtype=BF16))
    optimizer.step(copy_to=copies)
    assert all(map(is_copy, copies, params_of(optimizer)))


def test_within_backward_it_is_the_same() -> None:
    ours, ordinary = made(), made()
    grads = [normal(5 + k, *p.shape, dtype=BF16) for k, p in enumerate(params_of(ours))]
    with ours.step_in_backward():
        for _ in range(2):
            give(params_of(ours), grads)
            ours.step()
    for _ in range(2):
        for p, g in zip(params_of(ordinary), grads, strict=True):
            p.grad = g.clone()
        ordinary.step()
    assert digest(ours) == digest(ordinary)


# ---- bytes --------------------------------------------------------------------------------------


def test_a_big_matrix_takes_at_most_6_1_bytes_an_element() -> None:
    param = nn.Parameter(torch.zeros(2048, 4096, dtype=BF16))
    optimizer = Cosmic([param], state_dtype="u4+factored", master_bits=24)
    param.grad = torch.full_like(param, 1e-3)
    optimizer.step()
    held = [v for v in optimizer.state[param].values() if isinstance(v, Tensor)]
    state, blocks = optimizer.state_bytes(), param.numel() // 128
    assert optimizer.master_bytes() == param.numel()
    assert state + optimizer.master_bytes() == sum(v.nbytes for v in held)
    assert state == 64 * blocks + 2 * blocks + 4 * (2048 + 4096) + 8 + 2 * 8
    total = param.nbytes + param.grad.nbytes + optimizer.master_bytes() + state
    assert total / param.numel() <= 6.1


def test_a_budget_is_for_state_alone() -> None:
    plain, fine = made(master_bits=None, budget="20%"), made(budget="20%")
    for one in (plain, fine):
        take_steps(one, 0, 2)
    assert fine.state_bytes() == plain.state_bytes()
    assert [t.rung for t in fine.tiers()] == [t.rung for t in plain.tiers()]
    assert fine.master_bytes() == sum(p.numel() for p in params_of(fine))
    assert plain.master_bytes() == 0


def test_an_estimate_of_such_weights() -> None:
    model = nn.Linear(256, 128).bfloat16()
    plain, fine = estimate_memory(model), estimate_memory(model, master_bits=24)
    assert fine.state_bytes == plain.state_bytes
    assert fine.master_bytes == 256 * 128 + 128 and plain.master_bytes == 0
    assert fine.total_bytes == plain.total_bytes + fine.master_bytes


# ---- state --------------------------------------------------------------------------------------


def test_a_step_begins_with_the_parameter_as_it_is() -> None:
    fine, plain = made(lr=0.0), made(lr=0.0, master_bits=None)
    for one in (fine, plain):
        take_steps(one, 0, 1)
    assert all(map(same_bits, params_of(fine), params_of(plain)))
    assert all(int(s["master_low"].abs().max()) == 0 for s in fine.state.values())


def test_saved_in_mid_run_it_goes_on_with_the_same_bits() -> None:
    straight, first = made(), made()
    take_steps(straight, 0, 5)
    take_steps(first, 0, 3)
    saved = through_a_file(first.state_dict())
    second = made()
    for p, q in zip(params_of(second), params_of(first), strict=True):
        p.data.copy_(q.data)
    second.load_state_dict(saved)
    take_steps(second, 3, 5)
    assert digest(second) == digest(straight)


@pytest.mark.parametrize("way", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
def test_copies_of_the_optimizer_have_the_bits(way: Callable[[Cosmic], Cosmic]) -> None:
    optimizer = made(parts={"4": (0, 2)})
    take_steps(optimizer, 0, 2)
    twin = way(optimizer)
    assert digest(twin) == digest(optimizer)
    for one in (optimizer, twin):
        take_steps(one, 2, 4)
    assert digest(twin) == digest(optimizer)


def test_the_option_may_come_and_go() -> None:
    optimizer = made(master_bits=None)
    take_steps(optimizer, 0, 2)
    optimizer.param_groups[0]["master_bits"] = 24
    take_steps(optimizer, 2, 3)
    assert optimizer.master_bytes() == sum(p.numel() for p in params_of(optimizer))
    kept = optimizer.master_weights()
    optimizer.param_groups[0]["master_bits"] = None
    for p in params_of(optimizer):
        p.grad = None
    take_steps(optimizer, 3, 4)
    assert optimizer.master_bytes() == 0
    assert all("master_low" not in s for s in optimizer.state.values())
    assert kept.keys() == optimizer.master_weights().keys()


def test_a_checkpoint_brings_the_option_or_its_absence() -> None:
    fine, plain = made(), made(master_bits=None)
    for one in (fine, plain):
        take_steps(one, 0, 2)
    with_bits, without = made(), made(master_bits=None)
    without.load_state_dict(fine.state_dict())
    assert digest_of_state(without) == digest_of_state(fine)
    without.param_groups[0]["master_bits"] = None
    take_steps(without, 2, 3)
    assert without.master_bytes() == 0
    with_bits.load_state_dict(plain.state_dict())
    with_bits.param_groups[0]["master_bits"] = 24
    take_steps(with_bits, 2, 3)
    assert with_bits.master_bytes() == sum(p.numel() for p in params_of(with_bits))


def digest_of_state(optimizer: Cosmic) -> list[bytes]:
    return [
        stored(value).tobytes()
        for state in optimizer.state.values()
        for _, value in sorted(state.items())
        if isinstance(value, Tensor)
    ]


def test_a_rung_that_changes_keeps_the_bits() -> None:
    optimizer = made(state_dtype="fp32", lr=1e-3)
    take_steps(optimizer, 0, 2)
    before = [s["master_low"].clone() for s in optimizer.state.values()]
    optimizer.param_groups[0]["state_dtype"] = "u4+v4"
    optimizer.param_groups[0]["lr"] = 0.0
    take_steps(optimizer, 2, 3)
    after = [s["master_low"] for s in optimizer.state.values()]
    assert all(map(same_bits, after, before))


def test_moments_and_rows_leave_the_bits_alone() -> None:
    optimizer = made()
    take_steps(optimizer, 0, 2)
    param = params_of(optimizer)[4]
    before = optimizer.state[param]["master_low"].clone()
    optimizer.set_moments(param, exp_avg=0.0, exp_avg_sq=1e-4)
    optimizer.reset(param, rows=[1, 2])
    assert same_bits(optimizer.state[param]["master_low"], before)
    optimizer.reset(param)
    assert "master_low" not in optimizer.state[param]
    take_steps(optimizer, 2, 3)
    assert "master_low" in optimizer.state[param]


def test_other_dtypes_of_the_group_stay_as_they_are() -> None:
    params = [nn.Parameter(normal(0, 64, 64, dtype=BF16)), nn.Parameter(normal(1, 64))]
    optimizer = Cosmic(params, master_bits=24)
    for p in params:
        p.grad = torch.ones_like(p)
    optimizer.step()
    assert "master_low" in optimizer.state[params[0]]
    assert "master_low" not in optimizer.state[params[1]]
    assert same_bits(optimizer.master_weights()["1"], params[1].detach())


def test_state_of_torch_s_own_loader_is_taken() -> None:
    """Wrappers that load through it hand on state of the parameter's dtype: small integers are
    exact in bfloat16."""
    optimizer = made()
    take_steps(optimizer, 0, 2)
    state = optimizer.state[params_of(optimizer)[4]]
    before = state["master_low"]
    state["master_low"] = before.to(BF16)
    optimizer.param_groups[0]["lr"] = 0.0
    take_steps(optimizer, 2, 3)
    assert same_bits(optimizer.state[params_of(optimizer)[4]]["master_low"], before)


# ---- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [0, 16, 32, 24.0, True, "24"])
def test_another_number_of_bits(bits: Any) -> None:
    with pytest.raises(ValueError, match=r"param_groups\[0\]\['master_bits'\] is .*24"):
        made(master_bits=bits)


def test_a_group_without_bfloat16() -> None:
    with pytest.raises(ValueError, match=r"master_bits 24.*torch\.float32.*master_bits=None"):
        Cosmic(parameters((3, 4)), master_bits=24)
    optimizer = made()
    with refused(optimizer, ValueError, "param_groups[1]", "torch.float32"):
        optimizer.add_param_group({"params": [("more", *parameters((3, 4)))]})
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize(
    "spoil",
    [lambda low: low.to(torch.int16), lambda low: low[:5].clone(), lambda low: 3],
    ids=["dtype", "shape", "number"],
)
def test_a_plane_that_does_not_fit(spoil: Callable[[Tensor], Any]) -> None:
    optimizer = made()
    take_steps(optimizer, 0, 1)
    state = optimizer.state[params_of(optimizer)[4]]
    state["master_low"] = spoil(state["master_low"])
    for p in params_of(optimizer):
        p.grad = torch.ones_like(p)
    with refused(optimizer, ValueError, "'4'", "master_low", "int8"):
        optimizer.step()
