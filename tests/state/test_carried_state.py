"""Compressed state follows its parameter: to another layout, other codecs, a copy."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cosmic import Cosmic
from cosmic.rungs import combinations
from cosmic.state.building import decoded_moments
from helpers import (
    UNUSUAL,
    digest,
    normal,
    parameter,
    parameters,
    take_steps,
    with_slow_average,
)

NAMES = [f"{m}+{v}" for m, v in combinations()]
PACKED = [name for name in NAMES if set(name.split("+")) - {"fp32", "bf16"}]
STEPS = 12

#: Root mean square of what encoding once does to a first moment whose update units are normal,
#: relative to the moment's own: half to two thirds of a level is 0.41 levels; u4 has 7 to the
#: block's largest, some 2.6 deviations; midrise codecs also clamp. With room.
#: ustate has four levels, 1.1 deviations apart; of costate's signs alone sqrt(1 - 2 / pi) = 0.6.
M_ERROR = {"fp32": 1e-6, "bf16": 4e-3, "q8": 0.02, "u4": 0.25, "u2": 0.6, "u1": 1.1}
M_ERROR |= {"ustate": 0.6, "costate": 0.75}
#: Of a second moment, relative to each element: levels of v4 are up to a binade apart, those of
#: vlog a part of the block's range, which is 15 binades at most here.
V_ERROR = {
    "fp32": 1e-6,
    "bf16": 5e-3,
    "q8": 0.05,
    "v4": 0.5,
    "vlog4": 0.35,
    "vlog6": 0.1,
    "vlog8": 0.02,
}


def options(state_dtype: str, **more: Any) -> dict[str, Any]:
    """A slow average is left out where there can be none."""
    if state_dtype not in with_slow_average():
        more.pop("beta_slow", None)
    return {**UNUSUAL, "state_dtype": state_dtype, "min_compress_size": 0, **more}


def only_param(optimizer: Cosmic) -> nn.Parameter:
    param = optimizer.param_groups[0]["params"][0]
    assert isinstance(param, nn.Parameter)
    return param


def moments(optimizer: Cosmic) -> dict[str, Tensor]:
    param = only_param(optimizer)
    decoded = decoded_moments(param, optimizer.state[param], optimizer.param_groups[0])
    return {key: value.clone() for key, value in decoded.items()}


def planned_anew(optimizer: Cosmic) -> None:
    """A step without gradients: state takes the form that options and layout ask for, and
    nothing moves."""
    before = only_param(optimizer).detach().clone()
    for group in optimizer.param_groups:
        for param in group["params"]:
            param.grad = None
    optimizer.step()
    assert torch.equal(only_param(optimizer), before)


def off(ours: Tensor, theirs: Tensor) -> float:
    """Root mean square, relative to that of ``theirs``."""
    return ((ours - theirs).square().mean() / theirs.square().mean()).sqrt().item()


def off_each(ours: Tensor, theirs: Tensor) -> float:
    return (ours / theirs - 1).square().mean().sqrt().item()


# ---- another layout ----------------------------------------------------------------------------

Lay = Callable[[Tensor], Tensor]


def contiguous(x: Tensor) -> Tensor:
    return x.contiguous()


def channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def transposed(x: Tensor) -> Tensor:
    return x.transpose(0, 1).contiguous().transpose(0, 1)


def with_gaps(x: Tensor) -> Tensor:
    """Every second of each row, and not dense: walked by index."""
    return torch.stack([x, x], -1)[..., 0]


MOVES: dict[str, tuple[tuple[int, ...], Lay, Lay]] = {
    "to-channels-last": ((6, 7, 5, 3), contiguous, channels_last),
    "from-channels-last": ((6, 7, 5, 3), channels_last, contiguous),
    "to-transposed": ((21, 33), contiguous, transposed),
    "from-transposed": ((21, 33), transposed, contiguous),
    "transposed-to-gaps": ((21, 33), transposed, with_gaps),
    "gaps-to-transposed": ((21, 33), with_gaps, transposed),
}
DTYPES = [torch.float32, torch.bfloat16, torch.complex64]


def laid_out(shape: tuple[int, ...], lay: Lay, dtype: torch.dtype) -> nn.Parameter:
    return nn.Parameter(lay(normal(0, *shape, dtype=dtype)))


def trained(state_dtype: str, param: nn.Parameter, **more: Any) -> Cosmic:
    """With gradients whose sizes grow with the index, so that no two places look alike."""
    optimizer = Cosmic([param], **options(state_dtype, **more))
    with torch.no_grad():
        growing = torch.linspace(1, 6, param.numel()).view(param.shape)
        for step in range(STEPS):
            gradient = (normal(step, *param.shape, dtype=param.dtype) + 1) * growing
            param.grad = torch.empty_like(param).copy_(gradient)
            optimizer.step()
    return optimizer


def assert_follows(before: dict[str, Tensor], after: dict[str, Tensor], state_dtype: str) -> None:
    m, v = state_dtype.split("+")
    for key, old in before.items():
        error, limit = (off_each, V_ERROR[v]) if key == "exp_avg_sq" else (off, M_ERROR[m])
        assert error(after[key], old) < limit, key


@pytest.mark.parametrize("in_the_middle", [False, True], ids=["load", "in-the-middle"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "state_dtype",
    [
        "u4+v4",
        "q8+q8",
        "bf16+v4",
        "bf16+bf16",
        "fp32+fp32",
        "ustate+vlog4",
        "costate+fp32",
        "fp32+vlog6",
    ],
)
@pytest.mark.parametrize("move", MOVES)
def test_moments_follow_by_index(
    move: str, state_dtype: str, dtype: torch.dtype, in_the_middle: bool
) -> None:
    """Saved with one layout and loaded with another, or laid out anew between two steps."""
    shape, first, second = MOVES[move]
    optimizer = trained(state_dtype, laid_out(shape, first, dtype), beta_slow=0.9)
    before = moments(optimizer)
    param = only_param(optimizer)
    if in_the_middle:
        param.grad = None
        param.data = second(param.data)
        planned_anew(optimizer)
        moved = optimizer
    else:
        saved = copy.deepcopy(optimizer.state_dict())
        moved = Cosmic([laid_out(shape, second, dtype)], **options(state_dtype, beta_slow=0.9))
        moved.load_state_dict(saved)
    after = moments(moved)
    assert_follows(before, after, state_dtype)
    assert int(moved.state[only_param(moved)]["step"]) == STEPS
    # and stepping on works with what was carried
    take_steps(moved, 20, 22)
    assert int(moved.state[only_param(moved)]["step"]) == STEPS + 2


@pytest.mark.parametrize("move", MOVES)
def test_the_errors_would_catch_moments_in_the_order_of_memory(move: str) -> None:
    shape, first, second = MOVES[move]
    before = moments(trained("fp32+fp32", laid_out(shape, first, torch.float32)))
    by_index: dict[Lay, Lay] = {with_gaps: contiguous}  # what has gaps is walked by index
    for key, old in before.items():
        walked = by_index.get(first, first)(old).as_strided((old.numel(),), (1,))
        taken = by_index.get(second, second)(torch.zeros(shape))
        taken.as_strided((old.numel(),), (1,)).copy_(walked)
        assert (off_each if key == "exp_avg_sq" else off)(taken, old) > 0.4


@pytest.mark.parametrize(
    "state_dtype", ["fp32+factored", "u4+factored", "q8+rowmean", "u2+colmean"]
)
def test_rows_become_columns_of_a_transposed_matrix(state_dtype: str) -> None:
    """A product of rows and columns stays one; a mean a row becomes a mean a column where the
    codec may choose."""
    optimizer = trained(state_dtype, laid_out((21, 33), contiguous, torch.float32))
    before = moments(optimizer)["exp_avg_sq"]
    param = only_param(optimizer)
    param.data = transposed(param.data)
    param.grad = None
    planned_anew(optimizer)
    after = moments(optimizer)["exp_avg_sq"]
    if state_dtype.endswith("factored"):
        torch.testing.assert_close(after, before, rtol=1e-5, atol=0)
    torch.testing.assert_close(after.mean(), before.mean(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("state_dtype", PACKED)
def test_a_load_into_the_same_layout_is_to_the_bit(state_dtype: str) -> None:
    for lay, shape in ((transposed, (21, 33)), (channels_last, (6, 7, 5, 3)), (contiguous, (511,))):
        ours = trained(state_dtype, laid_out(shape, lay, torch.float32))
        param = nn.Parameter(lay(only_param(ours).detach()))
        loaded = Cosmic([param], **options(state_dtype))
        loaded.load_state_dict(copy.deepcopy(ours.state_dict()))
        assert digest(loaded) == digest(ours)
        take_steps(ours, 3, 5)
        take_steps(loaded, 3, 5)
        assert digest(loaded) == digest(ours)


# ---- other codecs ------------------------------------------------------------------------------

CHANGES = [
    ("fp32+fp32", "u4+v4"),
    ("u4+v4", "fp32+fp32"),
    ("fp32+fp32", "q8+q8"),
    ("q8+q8", "bf16+bf16"),
    ("bf16+bf16", "u4+q8"),
    ("u4+v4", "q8+v4"),
    ("u4+factored", "q8+q8"),
    ("u4+factored", "fp32+v4"),
    ("u1+factored", "bf16+fp32"),
    ("u2+rowmean", "fp32+fp32"),
    ("q8+colmean", "u4+factored"),
    ("fp32+fp32", "u2+v4"),
    ("bf16+v4", "u1+v4"),
    ("fp32+fp32", "ustate+vlog4"),
    ("ustate+vlog4", "bf16+bf16"),
    ("ustate+v4", "u4+v4"),
    ("u4+factored", "ustate+vlog6"),
    ("costate+vlog4", "ustate+fp32"),
    ("ustate+vlog6", "costate+vlog6"),
    ("costate+fp32", "fp32+fp32"),
    ("u4+v4", "fp32+vlog8"),
    ("fp32+vlog4", "fp32+vlog6"),
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("old", "new"), CHANGES)
def test_a_change_of_codecs_carries_the_moments(old: str, new: str, dtype: torch.dtype) -> None:
    optimizer = trained(old, laid_out((21, 34), contiguous, dtype))
    before = moments(optimizer)
    optimizer.param_groups[0]["state_dtype"] = new
    planned_anew(optimizer)
    assert optimizer.tiers()[0].rung == f"tier2:{new}"
    after = moments(optimizer)
    m, v = new.split("+")
    assert off(after["exp_avg"], before["exp_avg"]) < M_ERROR[m]
    assert off_each(after["exp_avg_sq"], before["exp_avg_sq"]) < V_ERROR.get(v, 1e-5)
    assert int(optimizer.state[only_param(optimizer)]["step"]) == STEPS
    take_steps(optimizer, 20, 21)
    assert int(optimizer.state[only_param(optimizer)]["step"]) == STEPS + 1


def test_exact_moments_become_means_of_rows_and_columns() -> None:
    optimizer = trained("fp32+fp32", laid_out((21, 33), contiguous, torch.float32))
    before = moments(optimizer)
    optimizer.param_groups[0]["state_dtype"] = "fp32+factored"
    planned_anew(optimizer)
    after, v = moments(optimizer), before["exp_avg_sq"]
    product = v.mean(1, keepdim=True) * v.mean(0, keepdim=True) / v.mean()
    torch.testing.assert_close(after["exp_avg_sq"], product, rtol=1e-5, atol=0)
    assert torch.equal(after["exp_avg"], before["exp_avg"])


@pytest.mark.parametrize("state_dtype", [name for name in NAMES if name in with_slow_average()])
def test_a_slow_average_may_start_in_the_middle_and_end(state_dtype: str) -> None:
    """It starts at zero; the others are encoded anew once, and left alone when it ends."""
    optimizer = trained(state_dtype, laid_out((21, 33), contiguous, torch.float32))
    before = moments(optimizer)
    optimizer.param_groups[0]["beta_slow"] = 0.99
    planned_anew(optimizer)
    began = moments(optimizer)
    assert not began["exp_avg_slow"].any()
    m, v = state_dtype.split("+")
    of_v = off_each(began["exp_avg_sq"], before["exp_avg_sq"])
    # in units of the second moment, of which a block may be drawn anew
    assert off(began["exp_avg"], before["exp_avg"]) < M_ERROR[m] + of_v
    if v in V_ERROR:
        assert of_v < V_ERROR[v]
    take_steps(optimizer, 20, 23)
    assert moments(optimizer)["exp_avg_slow"].any()
    optimizer.param_groups[0]["beta_slow"] = None
    planned_anew(optimizer)
    assert "exp_avg_slow" not in moments(optimizer)
    assert int(optimizer.state[only_param(optimizer)]["step"]) == STEPS + 3


def test_a_fall_to_a_light_tier_lets_packed_state_go() -> None:
    optimizer = trained("u4+factored", laid_out((21, 33), contiguous, torch.float32))
    optimizer.param_groups[0]["tier"] = 1
    take_steps(optimizer, 20, 21)
    assert optimizer.state_bytes() == 24
    optimizer.param_groups[0]["tier"] = 2
    take_steps(optimizer, 21, 22)
    assert int(optimizer.state[only_param(optimizer)]["step"]) == 1


# ---- copies ------------------------------------------------------------------------------------


def by_deepcopy(optimizer: Cosmic) -> Cosmic:
    return copy.deepcopy(optimizer)


def by_pickle(optimizer: Cosmic) -> Cosmic:
    loaded = pickle.loads(pickle.dumps(optimizer))
    assert isinstance(loaded, Cosmic)
    return loaded


def by_state_dict(optimizer: Cosmic) -> Cosmic:
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    fresh = many(optimizer.param_groups[0]["state_dtype"])
    with torch.no_grad():
        for p, q in zip(params_of(fresh), params_of(optimizer), strict=True):
            p.copy_(q)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    return fresh


def params_of(optimizer: Cosmic) -> list[nn.Parameter]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def many(state_dtype: str) -> Cosmic:
    params = parameters((40, 129), (511,), (7,), (1,), (6, 7, 5, 3))
    params[4].data = channels_last(params[4].data)
    params.append(parameter(9, 30, 20, dtype=torch.bfloat16))
    slow = {"beta_slow": 0.97} if state_dtype in with_slow_average() else {}
    return Cosmic(params, **options(state_dtype, **slow, seed=11))


@pytest.mark.parametrize("copied", [by_deepcopy, by_pickle, by_state_dict])
@pytest.mark.parametrize("state_dtype", PACKED)
def test_a_copy_goes_on_to_the_bit(state_dtype: str, copied: Callable[[Cosmic], Cosmic]) -> None:
    ours = many(state_dtype)
    take_steps(ours, 0, 3)
    twin = copied(ours)
    assert digest(twin) == digest(ours)
    before = digest(twin)
    take_steps(ours, 3, 6)
    assert digest(twin) == before  # no memory is shared
    take_steps(twin, 3, 6)
    assert digest(twin) == digest(ours)
