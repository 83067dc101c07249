"""Parameters of lazy modules, which have no shape before the first batch."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter, is_lazy
from torch.optim import AdamW

from cosmic import Cosmic, UnsupportedTensorError, estimate_memory
from helpers import digest, give_gradients, normal, parameter, through_a_file
from optimizers import Row, each


def model() -> nn.Sequential:
    """Of an ordinary layer and two lazy ones."""
    made = nn.Sequential(nn.Linear(4, 8), nn.LazyLinear(70), nn.LazyLinear(2))
    with torch.no_grad():
        for k, p in enumerate(made[0].parameters()):
            p.copy_(normal(k, *p.shape))
    return made


def batch(step: int) -> Tensor:
    return normal(step, 3, 4)


def made(module: nn.Module) -> None:
    """Give lazy parameters their shapes, and values that do not depend on what came before."""
    with torch.no_grad():
        module(batch(0))
        for k, p in enumerate(module.parameters()):
            p.copy_(normal(k, *p.shape))


def train(module: nn.Module, optimizer: Any, first: int, last: int) -> None:
    for step in range(first, last):
        optimizer.zero_grad()
        loss: Any = module(batch(step)).square().sum()
        loss.backward()
        optimizer.step()


@each
def test_a_lazy_model_trains_as_one_that_was_made_before(row: Row) -> None:
    lazy, eager = model(), model()
    made(eager)
    ours, twin = row.make(lazy.parameters()), row.make(eager.parameters())
    ours.step()  # nothing has a gradient
    assert not ours.state and any(map(is_lazy, lazy.parameters()))
    made(lazy)
    ours.zero_grad()
    twin.step()
    train(lazy, ours, 1, 4)
    train(eager, twin, 1, 4)
    assert digest(ours) == digest(twin) and len(ours.tiers()) == 6


@each
def test_what_is_asked_before_the_parameters_are_made(row: Row) -> None:
    lazy = model()
    optimizer = row.make(lazy.named_parameters())
    assert optimizer.gate_factors() == {} and optimizer.tiers() == []
    for _ in range(2):
        assert len(optimizer.stats()) == 1
        optimizer.load_state_dict(through_a_file(optimizer.state_dict()))
        if row.name != "slow-average":  # for which AdamW has no place
            AdamW(lazy.named_parameters()).load_state_dict(optimizer.to_adamw_state_dict())
        for other in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
            assert [type(p) for p in other.param_groups[0]["params"][2:]] == (
                [UninitializedParameter] * 4
            )
        give_gradients(lazy[0].parameters(), 0)  # and again when the others have been stepped
        optimizer.step()
        assert [info.name for info in optimizer.tiers()] == ["0.weight", "0.bias"]
    assert all(map(is_lazy, list(lazy.parameters())[2:]))


def test_a_share_is_of_what_is_known() -> None:
    lazy = model()
    optimizer = Cosmic(lazy.parameters(), budget="50%")
    assert optimizer.budget_bytes() == 4 * (4 * 8 + 8)
    made(lazy)
    assert optimizer.budget_bytes() == 4 * sum(p.numel() for p in lazy.parameters())


@pytest.mark.parametrize("options", [{}, {"budget": "50%"}], ids=["no-budget", "budget"])
def test_steps_in_backward_are_the_ordinary_ones(options: dict[str, Any]) -> None:
    """Gradients of the first backward, which made the parameters, wait for step()."""
    lazy, eager = model(), model()
    ours, twin = Cosmic(lazy.parameters(), **options), Cosmic(eager.parameters(), **options)
    with ours.step_in_backward(lazy):
        ours.step()
        made(lazy)
        made(eager)
        train(lazy, ours, 1, 2)
        assert all(p.grad is None for p in lazy.parameters())
        loss: Any = lazy(batch(2)).square().sum()
        loss.backward()
        assert all(p.grad is None for p in lazy.parameters())
        ours.step()
        train(lazy, ours, 3, 5)
    train(eager, twin, 1, 5)
    if not options:  # with a share of what is known, what is bought differs for a step
        assert digest(ours) == digest(twin)
    assert len(ours.tiers()) == 6


def test_a_branch_that_is_never_run_is_left_alone_in_backward() -> None:
    used, unused = nn.Linear(4, 2), nn.LazyLinear(3)
    optimizer = Cosmic([*used.parameters(), *unused.parameters()])
    with optimizer.step_in_backward(nn.ModuleList([used, unused])):
        train(used, optimizer, 0, 2)
    assert len(optimizer.tiers()) == 2 and all(map(is_lazy, unused.parameters()))


@each
def test_a_lazy_group_is_added(row: Row) -> None:
    optimizer = row.make([parameter(0, 64, 65)])
    lazy = nn.LazyLinear(3)
    optimizer.add_param_group({"params": lazy.parameters()})
    optimizer.step()
    lazy(batch(0)).sum().backward()
    optimizer.step()
    assert [info.name for info in optimizer.tiers()] == ["1", "2"]


def test_what_was_not_checked_is_when_it_is_made() -> None:
    make: Any = UninitializedParameter
    lazy = make(requires_grad=False, dtype=torch.int32)
    optimizer = Cosmic([("counts", lazy)])
    optimizer.step()
    lazy.materialize((3,))
    lazy.grad_dtype = torch.float32
    lazy.grad = torch.ones(3)
    with pytest.raises(UnsupportedTensorError, match=r"'counts' is torch\.int32"):
        optimizer.step()


def test_state_for_what_has_no_shape_is_refused() -> None:
    trained = model()
    optimizer = Cosmic(trained.parameters())
    train(trained, optimizer, 0, 1)
    fresh = Cosmic(model().parameters())
    with pytest.raises(ValueError, match=r"^parameter 2 \S+: it is a lazy module's .*run a batch"):
        fresh.load_state_dict(optimizer.state_dict())
    assert not fresh.state


def test_an_estimate_needs_shapes() -> None:
    lazy = model()
    with pytest.raises(ValueError, match=r"1\.weight, 1\.bias, 2\.weight and 1 more; run a batch"):
        estimate_memory(lazy)
    made(lazy)
    assert len(estimate_memory(lazy).tensors) == 6


def test_lazy_buffers_are_no_matter() -> None:
    lazy = nn.Sequential(nn.Linear(4, 8), nn.LazyBatchNorm1d(affine=False))
    linear, counter = estimate_memory(nn.Linear(4, 8)).weight_bytes, 8
    assert estimate_memory(lazy).weight_bytes == linear + counter
    optimizer = Cosmic(lazy.parameters())
    with optimizer.step_in_backward(lazy):
        train(lazy, optimizer, 0, 1)
    assert len(optimizer.tiers()) == 2
