"""What may change around steps within backward: copies, groups, parameters, step() itself."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from backward_steps import (
    Gradients,
    give,
    normal_gradients,
    ordinary_step,
    pair,
    params_of,
)
from cosmic import Cosmic
from cosmic.logging import EventLog
from helpers import digest, normal, parameter, parameters, refused, same_bits

# ---- leaving, copying, loading -----------------------------------------------------------------


@pytest.mark.parametrize("way", ["with", "remove", "error"])
def test_left_it_is_the_ordinary_optimizer(way: str) -> None:
    ours, ordinary = pair()
    first, second = normal_gradients(ours, 0), normal_gradients(ours, 1)
    handle = ours.step_in_backward()
    give(params_of(ours), first)
    ours.step()
    if way == "remove":
        handle.remove()
    elif way == "with":
        with handle:
            pass
    else:
        with pytest.raises(KeyError), handle:
            raise KeyError
    handle.remove()
    before = digest(ours)
    give(params_of(ours), second)
    assert digest(ours) == before and all(p.grad is not None for p in params_of(ours))
    ours.step()
    for grads in (first, second):
        ordinary_step(ordinary, grads)
    assert digest(ours) == digest(ordinary)
    with ours.step_in_backward():
        handle.remove()  # of an earlier one: does nothing
        give([params_of(ours)[0]], [normal(3, 30)])  # onto the gradient that is there
        assert params_of(ours)[0].grad is None


@pytest.mark.parametrize("way", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
def test_a_copy_is_not_in_the_mode(way: Callable[[Cosmic], Cosmic]) -> None:
    ours, ordinary = pair()
    grads = normal_gradients(ours, 0)
    ours.step_in_backward(max_norm=1.0)
    give(params_of(ours), grads)
    ours.step()
    copied = way(ours)
    before = digest(copied)
    give(params_of(copied), grads)
    assert digest(copied) == before
    copied.step()
    assert copied._gradient_norm == ours._gradient_norm is not None
    copied.zero_grad()
    copied.step_in_backward()
    give(params_of(ours), normal_gradients(ours, 1))
    assert ordinary._backward is None


def test_a_checkpoint_taken_and_loaded_in_the_mode() -> None:
    ours, ordinary = pair(state_dtype="bf16")
    first, second = normal_gradients(ours, 0), normal_gradients(ours, 1)
    with ours.step_in_backward():
        give(params_of(ours), first)
        ours.step()
        values = [p.detach().clone() for p in params_of(ours)]
        saved = copy.deepcopy(ours.state_dict())
        for _ in range(2):  # the second time from what was loaded
            give(params_of(ours), second)
            ours.step()
            expected = digest(ours)
            for p, value in zip(params_of(ours), values, strict=True):
                p.data.copy_(value)
            ours.load_state_dict(saved)
    for grads in (first, second):
        ordinary_step(ordinary, grads)
    assert expected == digest(ordinary)


def test_loading_between_backward_and_step_drops_what_came_before() -> None:
    ours, _ = pair()
    with ours.step_in_backward():
        saved = ours.state_dict()
        give(params_of(ours), normal_gradients(ours, 0))
        ours.load_state_dict(saved)
        give(params_of(ours), normal_gradients(ours, 1))
        ours.step()
    assert ours._steps == 1


def test_it_cannot_be_entered_twice() -> None:
    ours, _ = pair()
    with ours.step_in_backward():
        with pytest.raises(RuntimeError, match=r"on already; remove\(\)"):
            ours.step_in_backward()
        give(params_of(ours), normal_gradients(ours, 0))
    ours.step_in_backward()


# ---- groups and parameters that change ---------------------------------------------------------


def test_a_group_added_in_the_mode() -> None:
    ours, ordinary = pair()
    with ours.step_in_backward():
        for step in range(4):
            if step == 2:
                for optimizer in (ours, ordinary):
                    optimizer.add_param_group({"params": [parameter(9, 50, 90)], "lr": 0.5})
            grads = normal_gradients(ours, step)
            give(params_of(ours), grads)
            ours.step()
            ordinary_step(ordinary, grads)
            assert ours.stats() == ordinary.stats()
    assert digest(ours) == digest(ordinary)


@pytest.mark.parametrize("noticed", [True, False], ids=["before-a-step", "after-it"])
def test_a_frozen_parameter_thaws(noticed: bool) -> None:
    """Noticed by ``step()``; one that thaws after it is stepped by the next."""
    ours, ordinary = pair()
    for optimizer in (ours, ordinary):
        params_of(optimizer)[1].requires_grad_(False)
    with ours.step_in_backward():
        for step in range(5):
            if step == 2 and not noticed:
                params_of(ours)[1].requires_grad_(True)
            grads: list[Tensor | None] = [*normal_gradients(ours, step)]
            if step < 2:
                grads[1] = None
            give(params_of(ours), grads)
            if step == 1 and noticed:
                params_of(ours)[1].requires_grad_(True)
            ours.step()
            ordinary_step(ordinary, grads)
            assert all(p.grad is None for p in params_of(ours))
            assert ours.stats() == ordinary.stats()
    assert digest(ours) == digest(ordinary)


def test_a_parameter_taken_out_of_its_group_is_left_alone() -> None:
    ours, _ = pair()
    params = params_of(ours)
    with ours.step_in_backward():
        give(params, normal_gradients(ours, 0))
        ours.step()
        ours.param_groups[0]["params"].pop(1)
        before = params[1].detach().clone()
        give(params, [normal(3, 30), normal(4, 65, 70), normal(5, 5, 41, 7)])
        assert same_bits(params[1], before) and params[1].grad is not None
        ours.step()
        give([params[1]], [normal(6, 65, 70)])  # no hook any more
        ours.step()
        assert same_bits(params[1], before)


def test_parameters_whose_memory_is_exchanged() -> None:
    """All of them at once, so that one comes to lie where another was."""
    ours, ordinary = pair()
    with ours.step_in_backward():
        for step in range(3):
            grads = normal_gradients(ours, step)
            if step == 1:
                a, c = (params_of(ours)[k] for k in (0, 2))
                a.data = a.data.clone()
                c.data = c.data.clone()
            give(params_of(ours), grads)
            ours.step()
            ordinary_step(ordinary, grads)
    assert digest(ours) == digest(ordinary)


def test_swapped_memory_is_no_overlap() -> None:
    a, b = parameters((30,), (30,))
    optimizer = Cosmic([a, b])
    with optimizer.step_in_backward():
        for _ in range(3):
            give([a, b], [normal(1, 30), normal(2, 30)])
            optimizer.step()
            a.data, b.data = b.data, a.data


def test_overlapping_parameters_are_refused_before_any_is_stepped() -> None:
    memory = normal(0, 60)
    a, b = nn.Parameter(memory[:40]), nn.Parameter(memory[30:])
    c = parameter(1, 9)
    optimizer = Cosmic([c, a, b])
    with optimizer.step_in_backward():
        for order in ([c, a, b], [b, a, c], [b, c]):
            with refused(optimizer, ValueError, "share memory"):
                give(order, [torch.ones_like(p) for p in order])
            optimizer.zero_grad()


def test_an_exchanged_state_is_followed() -> None:
    ours, ordinary = pair(state_dtype="fp32")
    with ours.step_in_backward():
        for step in range(3):
            grads = normal_gradients(ours, step)
            for optimizer in (ours, ordinary):
                state = optimizer.state.get(params_of(optimizer)[1], {})
                if step == 1:
                    state["exp_avg"] = state["exp_avg"] * 2
                if step == 2:
                    del optimizer.state[params_of(optimizer)[2]]
            give(params_of(ours), grads)
            ours.step()
            ordinary_step(ordinary, grads)
    assert digest(ours) == digest(ordinary)


# ---- step() ------------------------------------------------------------------------------------


def test_step_without_a_backward_counts_as_the_ordinary_one_does() -> None:
    ours, ordinary = pair()
    told: list[str] = []
    ours.add_listener(lambda event, _: told.append(event))
    with ours.step_in_backward():
        for step in range(4):
            grads: Gradients = normal_gradients(ours, step) if step % 2 else [None] * 3
            if step % 2:
                give(params_of(ours), grads)
            ours.step()
            ordinary_step(ordinary, grads)
            assert ours.stats() == ordinary.stats()
            assert digest(ours) == digest(ordinary)
    assert ours._steps == ordinary._steps == 4
    assert told.count("step") == 4


def test_gradients_given_by_hand_are_stepped_by_step() -> None:
    ours, ordinary = pair()
    with ours.step_in_backward():
        for step in range(3):
            grads = normal_gradients(ours, step)
            give(params_of(ours)[1:], grads[1:])
            params_of(ours)[0].grad = grads[0]
            ours.step()
            ordinary_step(ordinary, grads)
            assert params_of(ours)[0].grad is None
    assert digest(ours) == digest(ordinary)


def test_step_refuses_a_closure() -> None:
    ours, _ = pair()
    with ours.step_in_backward(), pytest.raises(RuntimeError, match=r"step\(closure\) cannot hold"):
        ours.step(lambda: 1.0)


def test_hooks_and_the_event_log_see_one_step(tmp_path: Any) -> None:
    ours, _ = pair()
    calls: list[str] = []
    ours.register_step_post_hook(lambda *_: calls.append("after"))
    with EventLog(tmp_path / "log.jsonl").attach(ours), ours.step_in_backward():
        for step in range(2):
            give(params_of(ours), normal_gradients(ours, step))
            assert calls == ["after"] * step
            ours.step()
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    told = ["run", *["transition"] * 3, "allocation", "step", "step"]
    assert [line.split('"')[3] for line in lines] == told
