"""torch.amp.GradScaler: unscales before the step, leaves a step with an overflow out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.amp import GradScaler

from cosmic import Cosmic
from helpers import digest, normal
from optimizers import Row, each, moved, params_of, started, stepped

SCALE = 1024.0


def backward(optimizer: Cosmic, step: int, scaler: GradScaler) -> None:
    """Of a loss whose gradients are what ``stepped`` gives, scaled."""
    optimizer.zero_grad()
    loss: Any = torch.zeros(())
    for k, p in enumerate(params_of(optimizer)):
        loss = loss + (p * normal(1000 * step + k, *p.shape)).sum()
    scaler.scale(loss).backward()


def gradient(optimizer: Cosmic, index: int) -> Tensor:
    found = params_of(optimizer)[index].grad
    assert found is not None
    return found


@each
def test_a_scale_of_a_power_of_two_changes_no_bit(row: Row) -> None:
    """It grows on the way."""
    optimizer = started(row)
    scaler = GradScaler("cpu", init_scale=SCALE, growth_interval=2)
    for step in range(4):
        backward(optimizer, step, scaler)
        scaler.step(optimizer)
        scaler.update()
    assert scaler.get_scale() == 4 * SCALE
    assert digest(optimizer) == moved(row, 4)


@pytest.mark.parametrize("where", [0, 2], ids=["compressed", "vector"])
@pytest.mark.parametrize("value", ["inf", "-inf", "nan"])
@each
def test_an_overflow_skips_the_step(row: Row, value: str, where: int) -> None:
    """Of all tensors, and of counters, so that the run goes on as if it had not been."""
    optimizer, scaler = started(row), GradScaler("cpu", init_scale=SCALE)
    for step, bad in ((0, False), (1, False), (7, True), (2, False)):
        backward(optimizer, step, scaler)
        if bad:
            gradient(optimizer, where).view(-1)[4] = float(value)
            before = digest(optimizer)
        scaler.step(optimizer)
        scaler.update()
        if bad:
            assert digest(optimizer) == before
    assert scaler.get_scale() == SCALE / 2
    assert digest(optimizer) == moved(row, 3)


@each
def test_gradients_may_be_unscaled_and_clipped_before_the_step(row: Row) -> None:
    optimizer, twin, scaler = started(row), started(row), GradScaler("cpu", init_scale=SCALE)
    for step in range(3):
        backward(optimizer, step, scaler)
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(params_of(optimizer), 0.5)
        scaler.step(optimizer)
        scaler.update()
        for k, p in enumerate(params_of(twin)):
            p.grad = normal(1000 * step + k, *p.shape)
        torch.nn.utils.clip_grad_norm_(params_of(twin), 0.5)
        twin.step()
    assert digest(optimizer) == digest(twin)


@each
def test_the_scaler_unscales_itself(row: Row) -> None:
    """An optimizer that would have to, as torch's fused ones, says so by this attribute, and is
    given ``grad_scale`` and ``found_inf``; they would be left unread."""
    optimizer, scaler = started(row), GradScaler("cpu", init_scale=SCALE)
    assert not getattr(optimizer, "_step_supports_amp_scaling", False)
    backward(optimizer, 0, scaler)
    scaler.step(optimizer)
    assert not {"grad_scale", "found_inf"} & set(vars(optimizer))
    assert torch.equal(gradient(optimizer, 2), normal(2, 33))


@each
def test_a_disabled_scaler_is_none(row: Row) -> None:
    optimizer, scaler = started(row), GradScaler("cpu", enabled=False)
    for step in range(2):
        backward(optimizer, step, scaler)
        scaler.step(optimizer)
        scaler.update()
    assert digest(optimizer) == moved(row, 2)


@each
def test_two_optimizers_under_one_scaler(row: Row) -> None:
    """An overflow in one of them skips that one's step alone."""
    scaler = GradScaler("cpu", init_scale=SCALE)
    whole, spoiled = stepped(started(row), 0, 1), stepped(started(row), 0, 1)
    for optimizer in (whole, spoiled):
        backward(optimizer, 1, scaler)
    gradient(spoiled, 0)[0, 0] = float("inf")
    for optimizer in (whole, spoiled):
        scaler.step(optimizer)
    scaler.update()
    assert (digest(whole), digest(spoiled)) == (moved(row, 2), moved(row, 1))
