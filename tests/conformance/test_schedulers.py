"""Every scheduler of torch drives an optimizer of the table as it drives torch's own."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
import torch
from torch.optim import AdamW, Optimizer, lr_scheduler, swa_utils
from torch.optim.lr_scheduler import (
    ChainedScheduler,
    ConstantLR,
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    CyclicLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    LRScheduler,
    MultiplicativeLR,
    MultiStepLR,
    OneCycleLR,
    PolynomialLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)
from torch.optim.swa_utils import SWALR

from cosmic import Cosmic
from helpers import UNUSUAL, digest, parameter
from optimizers import FEW, ROWS, Row, each, params_of, started, stepped

Scheduler = Any
STEPS, MIDDLE = 9, 4

#: Each cyclic one also moves a beta.
SCHEDULERS: dict[str, Callable[[Optimizer], Scheduler]] = {
    "LambdaLR": lambda o: LambdaLR(o, lambda t: 1 / (t + 1)),
    "MultiplicativeLR": lambda o: MultiplicativeLR(o, lambda t: 1 - 0.1 * t),
    "StepLR": lambda o: StepLR(o, 2, gamma=0.5),
    "MultiStepLR": lambda o: MultiStepLR(o, [2, 5], gamma=0.3),
    "ConstantLR": lambda o: ConstantLR(o, factor=0.5, total_iters=3),
    "LinearLR": lambda o: LinearLR(o, start_factor=0.25, total_iters=6),
    "ExponentialLR": lambda o: ExponentialLR(o, 0.8),
    "PolynomialLR": lambda o: PolynomialLR(o, total_iters=7, power=2.0),
    "CosineAnnealingLR": lambda o: CosineAnnealingLR(o, 6),
    "CosineAnnealingWarmRestarts": lambda o: CosineAnnealingWarmRestarts(o, 3, T_mult=2),
    "CyclicLR": lambda o: CyclicLR(o, 1e-4, 1e-2, step_size_up=3, cycle_momentum=True),
    "OneCycleLR": lambda o: OneCycleLR(o, max_lr=0.1, total_steps=10, cycle_momentum=True),
    "ReduceLROnPlateau": lambda o: ReduceLROnPlateau(o, patience=1, factor=0.1),
    "ChainedScheduler": lambda o: ChainedScheduler([ConstantLR(o, 0.1, 4), ExponentialLR(o, 0.9)]),
    "SequentialLR": lambda o: SequentialLR(
        o, [LinearLR(o, 0.1, total_iters=3), StepLR(o, 1), CosineAnnealingLR(o, 4)], [3, 5]
    ),
    "SWALR": lambda o: SWALR(o, swa_lr=0.05, anneal_epochs=5),
}

#: Every schedule for a few optimizers, and a few schedules for every one: one that looks at rates
#: alone, one that moves a beta, and one that looks at a loss.
PAIRS = [
    *((row, kind) for kind in SCHEDULERS for row in FEW),
    *((row, kind) for kind in ("LambdaLR", "OneCycleLR", "ReduceLROnPlateau")
      for row in ROWS if row not in FEW),
]  # fmt: skip
pairs = pytest.mark.parametrize(
    ("row", "kind"), PAIRS, ids=lambda value: getattr(value, "name", value)
)


def of_torch() -> set[str]:
    """Every scheduler that torch has, but abstract ones."""
    found = [
        name
        for module in (lr_scheduler, swa_utils)
        for name, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, LRScheduler) and not name.startswith("_")
    ]
    return set(found) - {"LRScheduler"}


def test_every_scheduler_of_torch_is_in_the_table() -> None:
    names = sorted(of_torch() - set(SCHEDULERS))
    assert not names, f"torch {torch.__version__} has {names}; add them to SCHEDULERS above"


def advance(schedule: Scheduler) -> None:
    """One step; a loss that never gets better for those that look at one."""
    schedule.step(*([1.0] if isinstance(schedule, ReduceLROnPlateau) else []))


def rates(optimizer: Optimizer, schedule: Scheduler, steps: int) -> Iterator[tuple[float, Any]]:
    """What the schedule has set before each of some steps."""
    for _ in range(steps):
        group = optimizer.param_groups[0]
        yield group["lr"], tuple(group["betas"])
        optimizer.step()
        advance(schedule)


@cache
def adamws(kind: str) -> tuple[tuple[float, Any], ...]:
    p = parameter(0, 2)
    p.grad = torch.ones(2)
    adamw = AdamW([p], **UNUSUAL)
    return tuple(rates(adamw, SCHEDULERS[kind](adamw), STEPS))


def driven(optimizer: Cosmic, schedule: Scheduler, first: int, last: int) -> list[Any]:
    """What ``rates`` gives, with gradients."""
    found = []
    for step in range(first, last):
        group = optimizer.param_groups[0]
        found.append((group["lr"], tuple(group["betas"])))
        stepped(optimizer, step, step + 1)
        advance(schedule)
    return found


@cache
def uninterrupted(row: Row, kind: str) -> tuple[tuple[Any, ...], str]:
    optimizer = started(row)
    found = driven(optimizer, SCHEDULERS[kind](optimizer), 0, STEPS)
    return tuple(found), digest(optimizer)


def test_the_schedules_do_move_rates() -> None:
    moving = [kind for kind in SCHEDULERS if len(set(adamws(kind))) > 1]
    assert moving == list(SCHEDULERS)


@pairs
def test_rates_are_what_adamw_gets_and_the_step_uses_them(row: Row, kind: str) -> None:
    """The twin has no scheduler: it is given rates and betas by hand."""
    found, bits = uninterrupted(row, kind)
    assert found == adamws(kind)
    twin = started(row)
    for step, (lr, betas) in enumerate(found):
        twin.param_groups[0].update(lr=lr, betas=betas)
        stepped(twin, step, step + 1)
    assert digest(twin) == bits


@pairs
def test_a_schedule_resumes(row: Row, kind: str) -> None:
    """From both state_dicts, in a new optimizer under a new scheduler."""
    first = started(row)
    schedule = SCHEDULERS[kind](first)
    driven(first, schedule, 0, MIDDLE)
    saved = copy.deepcopy((first.state_dict(), schedule.state_dict()))

    resumed = started(row)
    with torch.no_grad():
        for p, q in zip(params_of(resumed), params_of(first), strict=True):
            p.copy_(q)
    again = SCHEDULERS[kind](resumed)
    resumed.load_state_dict(saved[0])
    again.load_state_dict(saved[1])
    found = driven(resumed, again, MIDDLE, STEPS)
    assert (tuple(found), digest(resumed)) == (
        uninterrupted(row, kind)[0][MIDDLE:],
        uninterrupted(row, kind)[1],
    )


# ---- rates that are set in other ways ----------------------------------------------------------


@each
def test_a_rate_in_a_tensor_may_change_in_place(row: Row) -> None:
    rate = torch.tensor(0.5)
    ours, twin = started(row, lr=rate), started(row, lr=0.5)
    for step, lr in enumerate((0.5, 0.25, 2.0)):
        rate.fill_(lr)
        twin.param_groups[0]["lr"] = lr
        stepped(ours, step, step + 1)
        stepped(twin, step, step + 1)
        assert digest(ours) == digest(twin)
    assert ours.param_groups[0]["lr"] is rate


@pytest.mark.parametrize("kind", SCHEDULERS)
def test_schedulers_fill_a_rate_in_a_tensor(kind: str) -> None:
    """As torch's AdamW with ``lr`` as a tensor, which they change in place."""
    params = [parameter(0, 3), parameter(0, 3)]
    ours = ROWS[0].make([params[0]], lr=torch.tensor(0.5))
    theirs = AdamW([params[1]], **{**UNUSUAL, "lr": torch.tensor(0.5)})
    for p in params:
        p.grad = torch.ones(3)
    found = []
    for optimizer in (ours, theirs):
        schedule = SCHEDULERS[kind](optimizer)
        steps = rates(optimizer, schedule, STEPS)
        found.append([(float(lr), tuple(map(float, betas))) for lr, betas in steps])
    assert found[0] == found[1]
    torch.testing.assert_close(*params, rtol=1e-6, atol=1e-7)


@each
def test_betas_in_tensors_may_change_in_place(row: Row) -> None:
    beta1, beta2 = torch.tensor(0.5), torch.tensor(0.75)
    ours, twin = started(row, betas=(beta1, beta2)), started(row, betas=(0.5, 0.75))
    stepped(ours, 0, 1)
    stepped(twin, 0, 1)
    beta1.fill_(0.25)
    twin.param_groups[0]["betas"] = (0.25, 0.75)
    stepped(ours, 1, 3)
    stepped(twin, 1, 3)
    assert digest(ours) == digest(twin)


@each
def test_a_group_may_be_changed_by_hand(row: Row) -> None:
    """The plan is kept where it can be; the twin makes it anew."""
    options = {"lr": 0.1, "weight_decay": 0.3, "eps": 1e-3}
    ours, twin = stepped(started(row), 0, 2), stepped(started(row), 0, 2)
    ours.param_groups[0].update(options)
    twin.param_groups[0] = {**twin.param_groups[0], **options}
    twin.load_state_dict(twin.state_dict())
    stepped(ours, 2, 4)
    stepped(twin, 2, 4)
    assert digest(ours) == digest(twin)
    assert digest(ours) != digest(stepped(started(row), 0, 4))
