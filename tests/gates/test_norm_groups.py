"""Gates of norms that look at all tensors of a group together, and what else holds of groups."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from backward_steps import give
from cosmic import Cosmic
from helpers import give_gradients, normal, parameter, parameters, refused, same_bits

F64 = torch.float64
exact_or_lagged = pytest.mark.parametrize("exact", [False, True], ids=["lagged", "exact"])


def together(values: list[Tensor]) -> float:
    """Root mean square over the elements of all."""
    flat = torch.cat([value.detach().double().flatten() for value in values])
    return float(flat.square().mean().sqrt())


def copies(params: list[nn.Parameter]) -> list[Tensor]:
    return [p.detach().double().clone() for p in params]


def moved(params: list[nn.Parameter], before: list[Tensor]) -> list[Tensor]:
    return [p.detach().double() - b for p, b in zip(params, before, strict=True)]


def by_group(params: Any, **options: Any) -> Cosmic:
    return Cosmic(params, **{"gate": "trust", "norm_granularity": "group", "lr": 1e-3, **options})


def sized(*sizes: float, dtype: torch.dtype = F64) -> list[nn.Parameter]:
    """Tensors of different lengths and sizes of their elements."""
    return [nn.Parameter(normal(k, 40 + 9 * k, 20, dtype=dtype) * s) for k, s in enumerate(sizes)]


def test_a_group_moves_in_proportion_to_all_of_it() -> None:
    params = sized(5.0, 0.01, 1.0)
    optimizer = by_group(params, exact=True, trust_clip=1e9)
    for step in range(6):
        give_gradients(params, step, scale=10.0 ** (step % 3))
        before = copies(params)
        optimizer.step()
        steps = moved(params, before)
        assert together(steps) == pytest.approx(1e-3 * together(before), rel=1e-6)
        assert len(set(optimizer.gate_factors().values())) == 1
    small = together(steps[1:2]) / together(before[1:2])
    assert small > 0.05  # far beyond its own size: it moves as the rest does


@exact_or_lagged
def test_groups_do_not_see_each_other(exact: bool) -> None:
    """A group's steps are those that it takes in an optimizer of its own."""
    params, twins = sized(5.0, 0.01, 1.0), sized(5.0, 0.01, 1.0)
    groups = [{"params": params[:2]}, {"params": params[2:]}]
    optimizer = by_group(groups, exact=exact)
    alone = [by_group(twins[:2], exact=exact), by_group(twins[2:], exact=exact)]
    for step in range(5):
        for some in (params, twins):
            give_gradients(some, step)
        for one in (optimizer, *alone):
            one.step()
    for p, twin in zip(params, twins, strict=True):
        assert same_bits(p, twin)
    assert len(set(optimizer.gate_factors().values())) == 2


@exact_or_lagged
def test_one_tensor_is_its_own_group(exact: bool) -> None:
    found = []
    for granularity in ("group", "tensor"):
        param = parameter(0, 40, 30)
        optimizer = by_group([param], norm_granularity=granularity, exact=exact)
        for step in range(4):
            give_gradients([param], step)
            optimizer.step()
        found.append(param)
    assert same_bits(*found)


def test_rungs_of_a_group_may_differ() -> None:
    """A large matrix in 4 bits beside vectors in float32; factors are as the sums say."""
    params = [parameter(0, 80, 90), parameter(1, 90), parameter(2, 3)]
    optimizer = by_group(params, exact=True, trust_clip=1e9)
    for step in range(4):
        give_gradients(params, step)
        before = copies(params)
        optimizer.step()
        assert together(moved(params, before)) == pytest.approx(1e-3 * together(before), rel=3e-5)
    assert len({info.rung for info in optimizer.tiers()}) == 2


@exact_or_lagged
def test_a_parameter_without_a_gradient_counts_for_nothing(exact: bool) -> None:
    params, twins = sized(5.0, 0.01, 1.0), sized(5.0, 0.01)
    optimizer, fewer = by_group(params, exact=exact), by_group(twins, exact=exact)
    for step in range(4):
        give_gradients(params[:2], step)
        give_gradients(twins, step)
        optimizer.step()
        fewer.step()
    for p, twin in zip(params[:2], twins, strict=True):
        assert same_bits(p, twin)
    assert same_bits(params[2], sized(5.0, 0.01, 1.0)[2])


def test_lagged_has_the_sums_of_the_step_before() -> None:
    params = sized(3.0, 0.1)
    optimizer = by_group(params, trust_clip=1e9)
    lengths: list[float] = []
    for step in range(5):
        give_gradients(params, step)
        before = copies(params)
        optimizer.step()
        (factor,) = set(optimizer.gate_factors().values())
        used = lengths[-1] if lengths else together(moved(params, before)) / (1e-3 * factor)
        assert factor == pytest.approx(together(before) / used, rel=1e-6)
        lengths.append(together(moved(params, before)) / (1e-3 * factor))


def test_a_tensor_that_comes_later_has_all_of_its_group_measured() -> None:
    """It knows nothing of updates: that step is as an exact one for the whole group."""
    params = sized(3.0, 0.1)
    optimizer = by_group(params, trust_clip=1e9)
    for step in range(3):
        give_gradients(params[:1], step)
        optimizer.step()
    give_gradients(params, 9)
    before = copies(params)
    optimizer.step()
    assert together(moved(params, before)) == pytest.approx(1e-3 * together(before), rel=1e-6)


def test_whole_matrices_of_a_group_are_gated_by_the_step_before() -> None:
    """Their update is there within the step alone, so that an exact look at a group is refused."""
    params = [parameter(0, 20, 30), parameter(1, 40, 20)]
    whole = {"matrix_rule": "muon", "role": "matrix", "trust_clip": 1e9}
    optimizer = by_group(params, **whole)
    for step in range(4):
        give_gradients(params, step)
        before = copies(params)
        optimizer.step()
        steps = moved(params, before)
        (factor,) = set(optimizer.gate_factors().values())
        if step:  # an orthogonalized update is about as long at every step
            assert together(steps) == pytest.approx(1e-3 * together(before), rel=0.1)
        assert (factor == 1.0) == (step == 0)
    exact = by_group([parameter(0, 20, 30)], exact=True, **whole)
    give_gradients(exact.param_groups[0]["params"], 0)
    with refused(exact, ValueError, "'trust'", "param_groups[0]", "exact=False", "by itself"):
        exact.step()


# ---- within backward -----------------------------------------------------------------------------


@exact_or_lagged
def test_a_step_in_backward_has_one_tensor_at_a_time(exact: bool) -> None:
    params = parameters((30,), (20, 30))
    optimizer = Cosmic(params, gate="trust", norm_granularity="group", exact=exact)
    with pytest.raises(ValueError, match=r"param_groups\[0\] look at all tensors of the group"):
        optimizer.step_in_backward()
    assert all(not p._post_accumulate_grad_hooks for p in params)


def test_so_it_has_when_the_option_changes_between_steps() -> None:
    params = parameters((30,), (20, 30))
    optimizer = Cosmic(params, gate="trust")
    with optimizer.step_in_backward():
        give(params, [normal(1, *p.shape) for p in params])
        optimizer.step()
        optimizer.param_groups[0]["norm_granularity"] = "group"
        with refused(optimizer, ValueError, "'trust'", "param_groups[0]", "one at a time"):
            give(params, [normal(2, *p.shape) for p in params])
        optimizer.zero_grad()
        optimizer.param_groups[0]["norm_granularity"] = "tensor"
        before = copies(params)
        give(params, [normal(3, *p.shape) for p in params])
        optimizer.step()
    assert all(math.sqrt(float(d.square().sum())) > 0 for d in moved(params, before))


def test_a_group_without_such_a_gate_is_not_refused() -> None:
    """The option alone does nothing."""
    params = parameters((30,))
    optimizer = Cosmic(params, gate="snr", norm_granularity="group")
    before = copies(params)
    with optimizer.step_in_backward():
        give(params, [normal(1, 30)])
        optimizer.step()
    assert together(moved(params, before)) > 0
