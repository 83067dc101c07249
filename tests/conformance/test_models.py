"""Training as people do it: compiled models, averaged models, one learning rate for all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import SWALR, AveragedModel, get_ema_multi_avg_fn, update_bn

from cosmic import Cosmic
from helpers import digest, normal, same_bits
from optimizers import Row, each, few, params_of


def model_of(width: int = 65) -> nn.Sequential:
    """64 -> width -> 3, with batch statistics."""
    model = nn.Sequential(
        nn.Linear(64, width), nn.BatchNorm1d(width), nn.Tanh(), nn.Linear(width, 3)
    )
    with torch.no_grad():
        for k, p in enumerate(model.parameters()):
            p.copy_(normal(k, *p.shape, scale=0.2))
    return model


def trained(optimizer: Cosmic, model: Callable[[Tensor], Tensor], steps: int = 3) -> Cosmic:
    for step in range(steps):
        optimizer.zero_grad()
        loss: Any = model(normal(step, 8, 64)).square().mean()
        loss.backward()
        optimizer.step()
    return optimizer


def plain(row: Row) -> Cosmic:
    model = model_of()
    assert max(p.numel() for p in model.parameters()) >= 4096  # which codecs compress
    return trained(row.make(model.parameters()), model)


# ---- torch.compile -----------------------------------------------------------------------------


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    """Nothing compiled is left over, before or after."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.usefixtures("fresh_compiler")
@each
def test_a_compiled_model_trains_with_the_same_bits(row: Row) -> None:
    """Backend eager computes the same gradients. The compiled model reads the parameters that the
    step has changed."""
    model = model_of()
    compiled = torch.compile(model, backend="eager")
    assert digest(trained(row.make(model.parameters()), compiled)) == digest(plain(row))


@pytest.mark.usefixtures("fresh_compiler")
@few
def test_a_step_within_a_compiled_function_is_taken_as_it_is(row: Row) -> None:
    """And without a warning of the compiler's that it cannot trace the core."""
    model = model_of()
    optimizer = row.make(model.parameters())

    @torch.compile(backend="eager")
    def train(x: Tensor) -> None:
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()

    for step in range(3):
        train(normal(step, 8, 64))
    assert digest(optimizer) == digest(plain(row))


# ---- averages of models ------------------------------------------------------------------------


def averaged(row: Row, average: AveragedModel | None, model: nn.Module) -> list[list[Tensor]]:
    """Parameters after each of six steps under SWALR, which an averaged model looks at."""
    optimizer = row.make(model.parameters())
    schedule = SWALR(optimizer, swa_lr=0.05, anneal_epochs=3)
    seen = []
    for step in range(6):
        trained(optimizer, lambda x, step=step: model(x + step), 1)  # type: ignore[misc]
        if average is not None:
            average.update_parameters(model)
        schedule.step()
        seen.append([p.detach().clone() for p in params_of(optimizer)])
    assert optimizer.param_groups[0]["lr"] == 0.05
    return seen


@each
def test_averages_of_a_model(row: Row) -> None:
    """Looking on changes no bit of the run; the average is that of the parameters it went by, and
    may be trained on by an optimizer of its own."""
    model = model_of()
    average = AveragedModel(model)
    seen = averaged(row, average, model)
    alone = averaged(row, None, model_of())
    for mine, theirs in zip(seen, alone, strict=True):
        assert all(same_bits(p, q) for p, q in zip(mine, theirs, strict=True))
    for k, p in enumerate(average.parameters()):
        torch.testing.assert_close(p.detach(), torch.stack([s[k] for s in seen]).mean(0))

    update_bn([normal(9, 8, 64)], average)
    optimizer = row.make(average.parameters())
    before = [p.detach().clone() for p in average.parameters()]
    trained(optimizer, average, 1)
    after = zip(before, average.parameters(), strict=True)
    assert not any(same_bits(old, p) for old, p in after)


@each
def test_an_exponential_average_of_a_model(row: Row) -> None:
    model = model_of()
    ema: Any = get_ema_multi_avg_fn(0.5)  # type: ignore[no-untyped-call]
    average = AveragedModel(model, multi_avg_fn=ema)
    seen = averaged(row, average, model)
    for k, p in enumerate(average.parameters()):
        by_hand = seen[0][k]
        for later in seen[1:]:
            by_hand = by_hand.lerp(later[k], 0.5)
        torch.testing.assert_close(p.detach(), by_hand)


# ---- learning ----------------------------------------------------------------------------------


def two_moons_like() -> tuple[Tensor, Tensor]:
    """Points on two interleaved half circles, and which."""
    angle = torch.linspace(0, torch.pi, 100)
    one = torch.stack([angle.cos(), angle.sin()], 1)
    other = torch.stack([1 - angle.cos(), 0.5 - angle.sin()], 1)
    points = torch.cat([one, other]) + normal(0, 200, 2, scale=0.05)
    return points, torch.cat([torch.zeros(100), torch.ones(100)]).long()


#: These scale a step by their trust in it, which is small at first: ten times AdamW's rate.
WARY = ("gate-agar", "casmo", "casmo-lagged")


@each
def test_a_small_model_learns_with_one_learning_rate(row: Row) -> None:
    """With all its tensors compressed."""
    points, labels = two_moons_like()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 2))
    lr = 0.2 if row.name in WARY else 0.02
    optimizer = row.make(model.parameters(), lr=lr, **dict.fromkeys(row.sizes, 0))
    loss = torch.tensor(0.0)
    for _ in range(150):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(points), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert loss.item() < 0.3  # from 0.69
