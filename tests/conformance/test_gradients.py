"""Where gradients come from, and what was done to them, makes no difference to the step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cosmic import Cosmic
from helpers import digest, normal, parameter, same_bits
from optimizers import Row, each, gradients, params_of, started, stepped

Clip = Callable[[list[nn.Parameter], bool | None], object]


def given(optimizer: Cosmic, several: list[Tensor | None]) -> None:
    """A step with these gradients, of memory of their own."""
    for p, g in zip(params_of(optimizer), several, strict=True):
        p.grad = None if g is None else g.clone()
    optimizer.step()


def same_tensors(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Whether two states are of the same entries and bits."""
    return a.keys() == b.keys() and all(
        same_bits(a[key], b[key]) if isinstance(a[key], Tensor) else a[key] == b[key] for key in a
    )


@each
def test_maximize_is_a_step_on_the_negated_gradient(row: Row) -> None:
    """Of the parameters, whose later steps show the state: a codec may keep that in terms of the
    gradient as it came."""
    ours, twin, other = started(row, maximize=True), started(row), started(row)
    for step in range(5):
        given(ours, [*gradients(step)])
        given(twin, [-g for g in gradients(step)])
        given(other, [*gradients(step)])
        found = list(zip(params_of(ours), params_of(twin), params_of(other), strict=True))
        assert all(same_bits(p, q) for p, q, _ in found)
        assert not any(same_bits(p, r) for p, _, r in found)


@each
def test_a_gradient_that_was_zeroed_is_a_gradient(row: Row) -> None:
    ours, twin = stepped(started(row), 0, 2), stepped(started(row), 0, 2)
    ours.zero_grad(set_to_none=False)
    ours.step()
    given(twin, [torch.zeros_like(p) for p in params_of(twin)])
    assert digest(ours) == digest(twin)
    counts = {int(state["step"]) for state in ours.state.values() if "step" in state}
    assert counts in ({3}, set())


@each
def test_no_gradient_is_no_step(row: Row) -> None:
    ours = stepped(started(row), 0, 2)
    before = digest(ours)
    ours.zero_grad()
    assert {p.grad for p in params_of(ours)} == {None}
    ours.step()
    assert digest(ours) == before

    fresh = started(row)
    fresh.step()
    assert not fresh.state


@each
def test_a_parameter_is_stepped_only_when_it_has_a_gradient(row: Row) -> None:
    """The matrix and the vector have none at every second step. Their twin's steps are only the
    others, where nothing but their own gradients counts."""
    ours, twin = started(row), started(row)
    for step in range(6):
        several: list[Tensor | None] = [*gradients(step)]
        if step % 2:
            several[0] = several[2] = None
        given(ours, several)
        if step % 2 == 0:
            given(twin, [several[0], None, several[2], None])
    for k, times in enumerate((3, 6, 3, 6)):
        p, q = params_of(ours)[k], params_of(twin)[k]
        assert int(ours.state[p].get("step", times)) == times
        if times == 3 and not row.shared:
            assert same_bits(p, q)
            assert same_tensors(ours.state[p], twin.state[q])


@each
def test_gradients_may_stay_in_memory_or_move(row: Row) -> None:
    ours, twin = started(row), started(row)
    for step in range(4):
        given(ours, [*gradients(step)])
        for p, g in zip(params_of(twin), gradients(step), strict=True):
            if p.grad is None:
                p.grad = g
            else:
                p.grad.copy_(g)
        twin.step()
    assert digest(ours) == digest(twin)


def by_norm(params: list[nn.Parameter], foreach: bool | None) -> object:
    return nn.utils.clip_grad_norm_(params, 0.5, foreach=foreach)


def by_value(params: list[nn.Parameter], foreach: bool | None) -> object:
    return nn.utils.clip_grad_value_(params, 0.25, foreach=foreach)


def scaled_down(several: list[Tensor], norm: object) -> list[Tensor | None]:
    """What clipping by a norm does, in plain operations."""
    if isinstance(norm, Tensor):
        factor = (0.5 / (norm + 1e-6)).clamp(max=1.0)
        return [g * factor for g in several]
    return [g.clamp(-0.25, 0.25) for g in several]


@pytest.mark.parametrize("foreach", [None, False, True], ids=["auto", "single", "foreach"])
@pytest.mark.parametrize("clip", [by_norm, by_value])
@each
def test_clipped_gradients_are_gradients(row: Row, clip: Clip, foreach: bool | None) -> None:
    ours, twin = started(row), started(row)
    for step in range(3):
        for p, g in zip(params_of(ours), gradients(step), strict=True):
            p.grad = g
        found = clip(params_of(ours), foreach)
        ours.step()
        given(twin, scaled_down(gradients(step), found))
    assert digest(ours) == digest(twin)


def loss_of(params: dict[str, Tensor], model: nn.Module, x: Tensor) -> Tensor:
    out: Tensor = torch.func.functional_call(model, params, (x,))
    return out.square().mean()


@each
def test_gradients_of_torch_func(row: Row) -> None:
    """As users of functional_call and torch.func.grad assign them: the same as of backward."""
    models = [nn.Sequential(nn.Linear(64, 65), nn.Tanh(), nn.Linear(65, 3)) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    functional, ordinary = (row.make(m.named_parameters()) for m in models)
    for step in range(3):
        x = normal(step, 8, 64)
        params = {name: p.detach() for name, p in models[0].named_parameters()}
        found = torch.func.grad(loss_of)(params, models[0], x)
        for name, p in models[0].named_parameters():
            p.grad = found[name]
        functional.step()
        ordinary.zero_grad()
        models[1](x).square().mean().backward()
        ordinary.step()
    assert digest(functional) == digest(ordinary)


@each
def test_autograd_notices_that_parameters_changed(row: Row) -> None:
    """A graph that saved a parameter before the step refuses to run backward after it."""
    optimizer = started(row)
    idle = parameter(9, 3)
    optimizer.add_param_group({"params": [idle]})
    stepped_ones = params_of(optimizer)[:-1]
    versions = [p._version for p in stepped_ones]
    loss: Any = stepped_ones[0].square().sum()
    for p, g in zip(stepped_ones, gradients(0), strict=True):
        p.grad = g
    optimizer.step()
    assert all(p._version > old for p, old in zip(stepped_ones, versions, strict=True))
    assert idle._version == 0
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
