"""What preset TurboAdam withstands: bad, huge and missing gradients, other layouts and dtypes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from cosmic.presets import TurboAdam
from helpers import normal, parameter, same_bits
from turboadam_options import CODECS, EVERY_SIZE, only_param, params_of
from turboadam_packages import release_0_2_0

NUMEL = 5 * 128 + 77


def twins(codec: str) -> tuple[TurboAdam, TurboAdam]:
    a, b = (TurboAdam([parameter(0, NUMEL)], lr=1e-2, **CODECS[codec]) for _ in range(2))
    return a, b


def numbers_of(optimizer: TurboAdam) -> list[Tensor]:
    """Means, scales and whatever else is shared by elements."""
    held = optimizer.state[only_param(optimizer)]
    ends = ("_steps", "_alpha", "_mean", "_scale")
    return [value.float() for key, value in held.items() if key.endswith(ends)]


@pytest.mark.filterwarnings("ignore:.*infinite or NaN")
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf"), 1e25, -3e38], ids=str)
@pytest.mark.parametrize("codec", [name for name in CODECS if name != "neither"])
def test_a_bad_gradient_spoils_its_own_element_only(codec: str, bad: float) -> None:
    """At the first step and later; in a whole block and in the tail. The others go on as if its
    gradient had been zero, but for rounding."""
    for place, at in ((300, 0), (300, 3), (NUMEL - 1, 2)):
        ours, twin = twins(codec)
        for step in range(8):
            for optimizer in (ours, twin):
                gradient = normal(step, NUMEL)
                gradient[place] = 0.5 if step != at else bad if optimizer is ours else 0.0
                only_param(optimizer).grad = gradient
                optimizer.step()
            assert all(x.isfinite().all() for x in numbers_of(ours))
            p, q = (only_param(o).detach() for o in (ours, twin))
            others = torch.arange(NUMEL) != place
            assert p[others].isfinite().all()
            if step == at:
                assert same_bits(p[others], q[others])
            if codec != "m-alone" or abs(bad) == float("inf") or bad != bad:
                spoiled = step >= at and not torch.tensor(bad).isfinite()
                assert bool(p[place].isfinite()) != bool(spoiled)
        assert float((p - q)[others].abs().mean()) < 0.5 * 1e-2


@pytest.mark.parametrize("codec", ["ustate", "ustate-8", "costate"])
@pytest.mark.parametrize("size", [1e6, 1e15, 1e25])
def test_whole_gradients_of_huge_numbers_leave_finite_state(codec: str, size: float) -> None:
    """And ordinary ones move parameters again afterwards, as soon as moments have forgotten."""
    optimizer = TurboAdam([parameter(0, NUMEL)], betas=(0.5, 0.6), **CODECS[codec])
    param = only_param(optimizer)
    for step in range(200):
        param.grad = normal(step, NUMEL, scale=size if step == 3 else 1.0) + 1.0
        optimizer.step()
        assert param.isfinite().all()
        assert all(x.isfinite().all() for x in numbers_of(optimizer))
        if step == 150:
            before = param.detach().clone()
    assert float((param.detach() - before).abs().mean()) > 1e-3


@pytest.mark.parametrize("codec", CODECS)
def test_gradients_of_zero_move_what_they_do_in_the_package(codec: str) -> None:
    """Nothing, but for ustate: a unit of zero lies between two levels and becomes one of them, and
    the denominator is little more than eps. The package's parameters move as far."""
    optimizer = TurboAdam([nn.Parameter(torch.zeros(NUMEL))], lr=1e-2, **CODECS[codec])
    theirs = release_0_2_0().TurboAdam([nn.Parameter(torch.zeros(NUMEL))], lr=1e-2, **EVERY_SIZE)
    p, q = only_param(optimizer), only_param(theirs)
    for _ in range(3):
        for param, one in ((p, optimizer), (q, theirs)):
            param.grad = torch.zeros(NUMEL)
            one.step()
    assert all(x.isfinite().all() for x in numbers_of(optimizer))
    if codec in ("ustate", "ustate-8", "m-alone"):
        assert float(q.detach().std()) > 2e-3
        torch.testing.assert_close(p.detach().std(), q.detach().std(), rtol=0.02, atol=0)
    else:
        assert not p.any()
    before = p.detach().clone()
    p.grad = 1e3 * normal(1, NUMEL)
    optimizer.step()
    assert bool(((p.detach() - before) * -p.grad > 0).all())


@pytest.mark.parametrize("codec", CODECS)
def test_maximize_is_the_gradient_negated(codec: str) -> None:
    """Second moments are the same to the bit; rounding an average and its opposite differs, but the
    first step goes exactly the other way."""
    up = TurboAdam([nn.Parameter(torch.zeros(NUMEL))], maximize=True, **CODECS[codec])
    down = TurboAdam([nn.Parameter(torch.zeros(NUMEL))], **CODECS[codec])
    for step in range(4):
        for optimizer in (up, down):
            only_param(optimizer).grad = normal(step, NUMEL)
            optimizer.step()
        a, b = only_param(up), only_param(down)
        if step == 0:
            assert torch.equal(a.detach(), -b.detach())
        held, other = up.state[a], down.state[b]
        second = [key for key in held if key.startswith("exp_avg_sq")]
        assert second and all(same_bits(held[key], other[key]) for key in second)
    if codec in ("v-alone", "neither"):
        assert torch.equal(a.detach(), -b.detach())


@pytest.mark.parametrize("codec", CODECS)
def test_parameters_in_bf16_have_the_same_state(codec: str) -> None:
    """Of the same gradients, to the bit: moments do not depend on the parameter."""
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        param = nn.Parameter(torch.ones(NUMEL, dtype=dtype))
        optimizer = TurboAdam([param], lr=1e-2, **CODECS[codec])
        for step in range(4):
            param.grad = normal(step, NUMEL, dtype=torch.bfloat16).to(dtype)
            optimizer.step()
        found.append((param.detach().float(), optimizer.state[param]))
    (p, ours), (q, theirs) = found
    assert ours.keys() == theirs.keys()
    for key, value in ours.items():
        if isinstance(value, Tensor):
            assert same_bits(value, theirs[key]), key
    assert float((p - q).abs().max()) < 4 * 2.0**-7  # a unit of the last place every step


@pytest.mark.parametrize("codec", CODECS)
def test_layouts_that_are_not_contiguous_are_walked_in_memory_or_by_index(codec: str) -> None:
    """A transposed parameter is stepped as its own memory; one with gaps as its contiguous copy."""
    options = {"lr": 1e-2, **CODECS[codec]}
    transposed = nn.Parameter(normal(0, 33, 21).t())
    memory = nn.Parameter(normal(0, 33, 21))
    gaps = nn.Parameter(torch.stack([normal(0, 33, 21)] * 2, -1)[..., 0])
    optimizers = [TurboAdam([p], **options) for p in (transposed, memory, gaps)]
    for step in range(4):
        transposed.grad = normal(step, 33, 21).t()
        memory.grad, gaps.grad = normal(step, 33, 21), normal(step, 33, 21)
        for optimizer in optimizers:
            optimizer.step()
    assert same_bits(transposed.detach().t(), memory.detach())
    assert same_bits(gaps.detach(), memory.detach())
    for key, value in optimizers[1].state[memory].items():
        if isinstance(value, Tensor) and value.shape != memory.shape:
            turned = value.flip(0) if key == "packed_shape" else value
            assert same_bits(optimizers[0].state[transposed][key], turned), key
            assert same_bits(optimizers[2].state[gaps][key], value), key
    if codec != "neither":
        assert optimizers[0].state[transposed]["packed_order"].tolist() == [1, 0]


@pytest.mark.parametrize("codec", CODECS)
def test_a_parameter_whose_gradient_comes_late_starts_then(codec: str) -> None:
    """With the bits of one that starts at once: it has a count of its own."""
    late = TurboAdam([parameter(0, NUMEL), parameter(1, NUMEL)], **CODECS[codec])
    first, second = params_of(late)
    for step in range(3):
        first.grad = normal(step, NUMEL)
        late.step()
    assert second not in late.state
    alone = TurboAdam([parameter(0, 1), parameter(1, NUMEL)], **CODECS[codec])
    twin = params_of(alone)[1]
    for step in range(3):
        second.grad, twin.grad = normal(step, NUMEL), normal(step, NUMEL)
        late.step()
        alone.step()
    assert same_bits(second.detach(), twin.detach())
    assert int(late.state[first]["step"]) == 6
    assert int(late.state[second]["step"]) == 3
