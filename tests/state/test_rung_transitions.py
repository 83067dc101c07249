"""What a tensor takes along from rung to rung: its second moment, its count, its averages."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cosmic import Cosmic, Rung
from helpers import UNUSUAL, digest, give_gradients, normal, parameter, same_bits, take_steps
from one_param import SHAPE, decoded, moved_to, only_param, optimizer_of, state_of, trained

LR, (BETA1, BETA2), EPS = UNUSUAL["lr"], UNUSUAL["betas"], UNUSUAL["eps"]


# ---- from rung to rung -------------------------------------------------------------------------

#: Rungs that keep the second moment in one codec.
SAME_V = [
    ("tier1:fp32", "tier2:fp32+fp32"), ("tier1:v4", "tier2:u2+v4"), ("tier1:v4", "tier2:fp32+v4"),
    ("tier1:factored", "tier2:u4+factored"), ("tier1:factored", "tier2:u1+factored"),
    ("tier1:colmean", "tier2:q8+colmean"), ("tier1:colmean", "tier2:bf16+colmean"),
]  # fmt: skip


@pytest.mark.parametrize("upward", [True, False], ids=["up", "down"])
@pytest.mark.parametrize(("light", "full"), SAME_V)
def test_a_second_moment_in_the_same_codec_is_carried_to_the_bit(
    light: str, full: str, upward: bool
) -> None:
    before, after = (light, full) if upward else (full, light)
    optimizer = trained(before)
    held = {k: v.clone() for k, v in state_of(optimizer).items() if k.startswith("exp_avg_sq")}
    moved = state_of(moved_to(optimizer, after))
    assert held and all(same_bits(moved[key], value) for key, value in held.items())
    assert int(moved["step"]) == 4
    if upward:
        assert not decoded(optimizer)["exp_avg"].any()
        assert moved["exp_avg_start"] == 4 and "update_rms" not in moved
    else:
        assert moved["update_rms"].item() == 0.0
        assert "exp_avg" not in moved and "exp_avg_start" not in moved
    take_steps(optimizer, 4, 6)
    assert int(state_of(optimizer)["step"]) == 6


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("tier1:fp32", "tier2:u4+v4"), ("tier1:v4", "tier2:q8+q8"), ("tier1:fp32", "tier1:v4"),
        ("tier1:v4", "tier1:fp32"), ("tier2:bf16+bf16", "tier1:v4"), ("tier1:fp32", "tier2:bf16"),
        ("tier1:fp32", "tier1:factored"), ("tier2:u2+factored", "tier1:v4"),
    ],
)  # fmt: skip
def test_a_second_moment_follows_into_another_codec(before: str, after: str) -> None:
    after = after if after != "tier2:bf16" else "tier2:bf16+bf16"
    optimizer = trained(before)
    rms = state_of(optimizer).get("update_rms")
    old = decoded(optimizer)["exp_avg_sq"].clone()
    new = decoded(moved_to(optimizer, after))["exp_avg_sq"]
    if after.endswith("factored"):
        old = old.mean(1, keepdim=True) * old.mean(0) / old.mean()
    limit = {"bf16": 5e-3, "q8": 0.05, "v4": 0.5}.get(Rung.parse(after).v, 1e-5)
    assert (new / old - 1).square().mean().sqrt() < limit
    assert int(state_of(optimizer)["step"]) == 4
    if before.startswith("tier1") and after.startswith("tier1"):
        assert rms is not None and same_bits(state_of(optimizer)["update_rms"], rms)


def test_a_first_moment_that_starts_late_is_corrected_by_its_own_count() -> None:
    optimizer = trained("tier1:fp32", weight_decay=0.0)
    param = only_param(optimizer)
    v = state_of(optimizer)["exp_avg_sq"].double()
    m = torch.zeros(SHAPE, dtype=torch.float64)
    optimizer.param_groups[0]["rung"] = "tier2:fp32+fp32"
    p = param.detach().double()
    for t in range(5, 12):
        give_gradients([param], t)
        assert param.grad is not None
        g = param.grad.double()
        m = BETA1 * m + (1 - BETA1) * g
        v = BETA2 * v + (1 - BETA2) * g * g
        m_hat, v_hat = m / (1 - BETA1 ** (t - 4)), v / (1 - BETA2**t)
        p = p - LR * m_hat / (v_hat.sqrt() + EPS)
        optimizer.step()
        torch.testing.assert_close(param.double(), p, rtol=1e-5, atol=1e-6)
    assert state_of(optimizer)["exp_avg_start"] == 4


def test_it_keeps_its_start_through_other_codecs_and_loses_it_with_itself() -> None:
    optimizer = trained("tier1:v4")
    moved_to(optimizer, "tier2:u4+v4")
    take_steps(optimizer, 4, 6)
    assert state_of(moved_to(optimizer, "tier2:q8+q8"))["exp_avg_start"] == 4
    moved_to(optimizer, "tier1:factored")
    take_steps(optimizer, 6, 7)
    assert state_of(moved_to(optimizer, "tier2:q8+factored"))["exp_avg_start"] == 7
    moved_to(optimizer, "tier0")
    assert "exp_avg_start" not in state_of(moved_to(optimizer, "tier2:q8+factored"))


def test_tensors_of_one_count_have_starts_of_their_own() -> None:
    """Neighbours in a group share what they can of a step's coefficients: not this."""
    together = Cosmic([parameter(k, 50) for k in range(3)], **UNUSUAL, state_dtype="fp32")
    alone = [Cosmic([parameter(k, 50)], **UNUSUAL, state_dtype="fp32") for k in range(3)]
    plain = Cosmic([parameter(1, 50)], **UNUSUAL, state_dtype="fp32")  # starts with its count
    params = [*together.param_groups[0]["params"], *(only_param(one) for one in alone)]
    for step in range(6):
        for k, p in enumerate(params):
            p.grad = normal(10 * step + k % 3, 50)
        if step == 3:
            for k, p in enumerate(params):
                if k % 3 == 1:
                    owner = together if k < 3 else alone[1]
                    owner.state[p]["exp_avg_start"] = 2
        only_param(plain).grad = normal(10 * step + 1, 50)
        for optimizer in (together, *alone, plain):
            optimizer.step()
    assert not same_bits(only_param(plain), params[1])
    for ours, theirs in zip(params[:3], params[3:], strict=True):
        assert same_bits(ours, theirs)


@pytest.mark.parametrize("start", [5, -1, "4", 2**70, torch.tensor(1)], ids=str)
def test_a_start_that_cannot_be_is_refused(start: Any) -> None:
    optimizer = trained("tier2:fp32+fp32")
    state_of(optimizer)["exp_avg_start"] = start
    before = only_param(optimizer).detach().clone()
    with pytest.raises(ValueError, match=r"exp_avg_start.*an int from 0 to its step, 4"):
        take_steps(optimizer, 4, 5)
    assert torch.equal(only_param(optimizer), before)


def test_adamw_goes_on_with_the_same_average() -> None:
    optimizer = trained("tier1:fp32")
    moved_to(optimizer, "tier2:fp32+fp32")
    exported = optimizer.to_adamw_state_dict()["state"][0]
    assert not exported["exp_avg"].any()  # nothing yet
    take_steps(optimizer, 4, 7)
    exported = optimizer.to_adamw_state_dict()["state"][0]
    m_hat = state_of(optimizer)["exp_avg"] / (1 - BETA1**3)
    torch.testing.assert_close(exported["exp_avg"] / (1 - BETA1**7), m_hat)
    assert same_bits(exported["exp_avg_sq"], state_of(optimizer)["exp_avg_sq"])
    assert exported["step"].item() == 7


# ---- down to scalars ---------------------------------------------------------------------------

V_RUNGS = ["tier1:fp32", "tier1:v4", "tier1:factored", "tier2:fp32+fp32", "tier2:u2+rowmean"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.complex64], ids=str)
@pytest.mark.parametrize("rung", V_RUNGS)
def test_scalars_start_from_the_second_moment(rung: str, dtype: torch.dtype) -> None:
    optimizer = optimizer_of(rung, parameter(0, *SHAPE, dtype=dtype))
    take_steps(optimizer, 0, 4)
    v = decoded(optimizer)["exp_avg_sq"].double()
    a = (v / (1 - BETA2**4)).sqrt().mean().item()
    state = state_of(moved_to(optimizer, "tier1"))
    assert set(state) == {"rung:tier1", "step", "magnitude"} and int(state["step"]) == 4
    assert state["magnitude"][0].item() == pytest.approx(a * (1 - BETA1**4), rel=1e-6)
    assert state["magnitude"][1].item() == pytest.approx(a * a * (1 - BETA2**4), rel=1e-6)
    assert optimizer.state_bytes() == 24
    take_steps(optimizer, 4, 6)
    assert int(state_of(optimizer)["step"]) == 6


def test_scalars_start_with_the_same_bits_whatever_the_threads(
    set_threads: Callable[[int], None],
) -> None:
    found = set()
    for threads in (1, 2, 7):
        set_threads(threads)
        optimizer = optimizer_of("tier1:fp32", parameter(0, 200_001))
        take_steps(optimizer, 0, 2)
        moved_to(optimizer, "tier1")
        found.add(digest(optimizer))
    assert len(found) == 1


def test_scalars_cannot_give_a_second_moment_back() -> None:
    optimizer = trained("tier1:fp32")
    moved_to(optimizer, "tier1")
    state = state_of(moved_to(optimizer, "tier1:fp32"))
    assert int(state["step"]) == 0 and not state["exp_avg_sq"].any()


def test_a_transposed_parameter_takes_its_second_moment_along() -> None:
    """To scalars and to full history, of the layout that the state was made in."""
    for rung, after in (("tier1:v4", "tier1"), ("tier1:v4", "tier2:fp32+fp32")):
        plain, moved = trained(rung), trained(rung)
        param = only_param(moved)
        param.data = param.data.t().contiguous().t()
        for optimizer in (plain, moved):
            moved_to(optimizer, after)
        for key, value in state_of(plain).items():
            if isinstance(value, Tensor):
                assert torch.equal(state_of(moved)[key], value), key


# ---- copies ------------------------------------------------------------------------------------


def by_state_dict(optimizer: Cosmic) -> Cosmic:
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    param = nn.Parameter(only_param(optimizer).detach().clone())
    loaded = optimizer_of("tier0", param)
    loaded.load_state_dict(torch.load(file, weights_only=True))
    return loaded


def by_pickle(optimizer: Cosmic) -> Cosmic:
    loaded = pickle.loads(pickle.dumps(optimizer))
    assert isinstance(loaded, Cosmic)
    return loaded


@pytest.mark.parametrize("copied", [by_state_dict, copy.deepcopy, by_pickle])
@pytest.mark.parametrize("promoted", ["", "tier2:u4+factored", "tier2:fp32+fp32"])
def test_a_copy_goes_on_to_the_bit(promoted: str, copied: Callable[[Cosmic], Cosmic]) -> None:
    """Without momentum, and with one that started in the middle of the run."""
    ours = trained("tier1:factored")
    if promoted:
        moved_to(ours, promoted)
        take_steps(ours, 4, 6)
    twin = copied(ours)
    assert digest(twin) == digest(ours)
    take_steps(ours, 6, 9)
    take_steps(twin, 6, 9)
    assert digest(twin) == digest(ours)
    assert state_of(twin).get("exp_avg_start", 0) == (4 if promoted else 0)


def test_a_checkpoint_from_before_the_option_loads() -> None:
    ours = trained(None, state_dtype="fp32")
    saved = copy.deepcopy(ours.state_dict())
    del saved["param_groups"][0]["rung"]
    twin = optimizer_of(None, nn.Parameter(only_param(ours).detach().clone()))
    twin.load_state_dict(saved)
    assert twin.param_groups[0]["rung"] is None
    take_steps(ours, 4, 6)
    take_steps(twin, 4, 6)
    assert digest(twin) == digest(ours)


def test_scalars_that_start_from_a_second_moment_are_on_the_cpu() -> None:
    param = nn.Parameter(normal(0, 64, 96))
    optimizer = Cosmic([param], rung="tier1:factored", min_compress_size=0)
    give_gradients([param], 0)
    optimizer.step()
    optimizer.param_groups[0]["rung"] = "tier1"
    give_gradients([param], 1)
    torch.set_default_device("meta")
    try:
        optimizer.step()
    finally:
        torch.set_default_device(None)
    assert optimizer.state[param]["magnitude"].device.type == "cpu"
