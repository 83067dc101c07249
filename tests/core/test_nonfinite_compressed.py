"""A bad gradient element spoils its own parameter element, and no compressed state."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cosmic import Cosmic, NonfiniteGradientError
from cosmic.rungs import combinations
from cosmic.state.building import decoded_moments
from helpers import (
    UNUSUAL,
    digest,
    normal,
    parameter,
    refused,
    same_bits,
    take_steps,
    with_slow_average,
)

PACKED = [
    f"{m}+{v}"
    for m, v in combinations()
    if {m, v} - {"fp32", "bf16"} and not (m == "fp32" and v.startswith("v"))
]
BLOCKWISE = [name for name in PACKED if name.split("+")[1] in ("v4", "q8")]
OF_MATRIX = [n for n in PACKED if n.split("+")[1] in ("factored", "rowmean", "colmean")]
#: First moments that are kept relative to a second one in fp32, which is infinite from gradients of
#: 2e19 on: so is the element's first moment then.
RELATIVE_TO_FP32 = ("ustate+fp32",)
BAD = {"nan": float("nan"), "inf": float("inf"), "-inf": float("-inf"), "huge": 1e30}

SHAPE = (5, 129)  # five blocks and a tail of five elements
#: First of all, in the middle, last of a block, first of the tail.
PLACES = [0, 300, 511, 640]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "(?s).*infinite or NaN", RuntimeWarning)
        yield


def pair(state_dtype: str, **options: Any) -> tuple[Cosmic, Cosmic]:
    """Twins; a slow average where there can be one."""
    if state_dtype not in with_slow_average():
        options.pop("beta_slow", None)
    common = {**UNUSUAL, "state_dtype": state_dtype, "min_compress_size": 0, **options}
    return Cosmic([parameter(0, *SHAPE)], **common), Cosmic([parameter(0, *SHAPE)], **common)


def only_param(optimizer: Cosmic) -> nn.Parameter:
    param = optimizer.param_groups[0]["params"][0]
    assert isinstance(param, nn.Parameter)
    return param


def moments(optimizer: Cosmic) -> dict[str, Tensor]:
    param = only_param(optimizer)
    decoded = decoded_moments(param, optimizer.state[param], optimizer.param_groups[0])
    return {key: value.flatten() for key, value in decoded.items()}


def step_with(optimizer: Cosmic, step: int, index: int, value: float) -> None:
    """A step whose gradient has ``value`` at ``index``."""
    param = only_param(optimizer)
    param.grad = normal(1000 * step, *SHAPE)
    param.grad.view(-1)[index] = value
    optimizer.step()


def others(index: int) -> Tensor:
    return torch.arange(SHAPE[0] * SHAPE[1]) != index


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("state_dtype", PACKED)
def test_one_element_is_spoiled_and_no_state(state_dtype: str, value: str) -> None:
    """At the first step, and in the middle of a run; the steps after it are good ones."""
    for place, at in zip(PLACES, (0, 3, 1, 2), strict=True):
        ours, twin = pair(state_dtype, beta_slow=0.97)
        for step in range(6):
            bad = BAD[value] if step == at else 0.5
            step_with(ours, step, place, bad)
            step_with(twin, step, place, 0.0 if step == at else 0.5)
            mine, theirs = (only_param(o).detach().flatten() for o in (ours, twin))
            if step == at:  # other elements do not see it before the next step
                assert torch.equal(mine[others(place)], theirs[others(place)])
            assert mine[others(place)].isfinite().all()
            spoiled = step >= at and value != "huge"
            m, v = state_dtype.split("+")
            for key, decoded in moments(ours).items():
                # what keeps one number an element keeps this one, as AdamW does
                kept = (v if key == "exp_avg_sq" else m) in ("fp32", "bf16")
                kept |= state_dtype in RELATIVE_TO_FP32
                chosen = others(place) if kept else slice(None)
                assert decoded[chosen].isfinite().all()
            if not (value == "huge" and state_dtype in RELATIVE_TO_FP32):
                assert bool(mine[place].isfinite()) != spoiled
        moved = (mine - theirs)[others(place)].abs().mean()
        # of six steps; with ustate+vlog2 it is a twentieth on average, by the seed up to 0.35
        assert float(moved) < (0.5 if state_dtype == "ustate+vlog2" else 0.2) * UNUSUAL["lr"]


def is_near(a: float, b: float, relative: float, absolute: float) -> bool:
    return abs(a - b) <= relative * abs(b) + absolute


@pytest.mark.parametrize("value", ["nan", "inf"])
@pytest.mark.parametrize("state_dtype", BLOCKWISE)
def test_the_bad_element_keeps_its_state(state_dtype: str, value: str) -> None:
    """Within a level: the block is encoded anew. Levels of v4 lie at most a binade apart, of q8
    a 16th here; of m in update units, at most what the block's largest divided by the levels."""
    m_codec, v_codec = state_dtype.split("+")
    for place in PLACES:
        optimizer, _ = pair(state_dtype)
        for step in range(4):
            step_with(optimizer, step, place, 0.5)
        before = moments(optimizer)
        step_with(optimizer, 4, place, BAD[value])
        after = moments(optimizer)
        v, w = before["exp_avg_sq"][place].item(), after["exp_avg_sq"][place].item()
        assert w > 0
        assert is_near(w, v, 1.0 if v_codec == "v4" else 1 / 16, 0)

        block = slice(place // 128 * 128, place // 128 * 128 + 128)

        def units(held: dict[str, Tensor], step: int) -> Tensor:
            scale = float((1 - UNUSUAL["betas"][1] ** step) ** -0.5)
            eps = float(UNUSUAL["eps"])
            return held["exp_avg"] / (held["exp_avg_sq"].sqrt() * scale + eps)

        if m_codec in ("fp32", "bf16"):
            continue
        u, x = units(before, 4), units(after, 5)
        if m_codec == "ustate":
            u, x = u / (1 - UNUSUAL["betas"][0] ** 4), x / (1 - UNUSUAL["betas"][0] ** 5)
            step = optimizer.state[only_param(optimizer)]["exp_avg_ustate_steps"][0].item()
            assert is_near(x[place].item(), u[place].item(), 0, 1.34 * step)
            continue
        gap = {"q8": 1 / 127, "u4": 1 / 7, "u2": 1.0, "u1": 2.0}[m_codec]
        level = max(x[block].abs().max().item(), abs(u[place].item()))  # it may be the largest
        assert is_near(x[place].item(), u[place].item(), 0, 1.02 * gap * level)


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("state_dtype", OF_MATRIX)
def test_sums_of_rows_and_columns_leave_it_out(state_dtype: str, value: str) -> None:
    """As if that gradient had been zero, to the bit."""
    for place in PLACES:
        ours, twin = pair(state_dtype)
        for step in range(3):
            step_with(ours, step, place, 0.5)
            step_with(twin, step, place, 0.5)
        step_with(ours, 3, place, BAD[value])
        step_with(twin, 3, place, 0.0)
        mine, theirs = ours.state[only_param(ours)], twin.state[only_param(twin)]
        sums = [key for key in mine if key.endswith(("_row", "_col"))]
        assert sums
        assert all(same_bits(mine[key], theirs[key]) for key in sums)


@pytest.mark.parametrize("value", ["nan", "inf"])
@pytest.mark.parametrize("state_dtype", ["u4+v4", "u4+factored", "u1+factored", "q8+q8"])
def test_a_whole_tensor_of_bad_gradients_leaves_finite_state(state_dtype: str, value: str) -> None:
    optimizer, _ = pair(state_dtype)
    param = only_param(optimizer)
    for step in range(3):
        param.grad = torch.full(SHAPE, BAD[value] if step == 1 else 0.5)
        optimizer.step()
        assert all(decoded.isfinite().all() for decoded in moments(optimizer).values())
    assert param.isnan().all()


@pytest.mark.parametrize("state_dtype", PACKED)
def test_raise_and_skip_leave_packed_state_alone(state_dtype: str) -> None:
    raising, _ = pair(state_dtype, nonfinite="raise", beta_slow=0.97)
    skipping, never = pair(state_dtype, nonfinite="skip", beta_slow=0.97)
    for optimizer in (raising, skipping, never):
        take_steps(optimizer, 0, 3)
    with refused(raising, NonfiniteGradientError, "1 non-finite"):
        step_with(raising, 3, 640, BAD["nan"])
    before = digest(skipping)
    step_with(skipping, 3, 0, BAD["inf"])
    assert digest(skipping) == before
    for optimizer in (raising, skipping, never):
        take_steps(optimizer, 4, 6)
    assert digest(raising) == digest(skipping) == digest(never)


@pytest.mark.parametrize("state", ["u4+factored", "u1+factored", "fp32+rowmean", "q8+colmean"])
@pytest.mark.parametrize("size", [1e15, 1.7e19, 1e30])
def test_sums_of_huge_finite_gradients_do_not_overflow(state: str, size: float) -> None:
    """A whole gradient of huge numbers, then ordinary ones: nothing infinite stays behind."""
    param = nn.Parameter(torch.zeros(64, 64))
    optimizer = Cosmic([param], lr=1e-3, betas=(0.9, 0.95), state_dtype=state)
    param.grad = torch.full((64, 64), size)
    optimizer.step()
    first = param.detach().clone()
    for _ in range(100):
        param.grad = torch.ones(64, 64)
        optimizer.step()
    assert bool(param.isfinite().all())
    means = [v for key, v in optimizer.state[param].items() if key.startswith("exp_avg_sq")]
    assert all(bool(mean.isfinite().all()) for mean in means)
    if size > 1e15:  # its v was never counted, so the ordinary gradients move the parameter again
        assert float((param.detach() - first).abs().min()) > 0.02
