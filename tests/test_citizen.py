"""Everything that users do to torch.optim.AdamW works."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    LambdaLR,
    LinearLR,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from torch.profiler import ProfilerActivity, profile

from cosmic import Cosmic
from helpers import UNUSUAL, digest, give_gradients, normal, parameter, parameters, same_bits

Hook = Callable[..., Any]


def small(**options: Any) -> tuple[Cosmic, nn.Parameter]:
    p = parameter(0, 30)
    p.grad = normal(1, 30)
    return Cosmic([p], **{**UNUSUAL, **options}), p


# ---- learning rates ----------------------------------------------------------------------------

SCHEDULERS: dict[str, Callable[[Optimizer], Any]] = {
    "step": lambda o: StepLR(o, 2, gamma=0.5),
    "lambda": lambda o: LambdaLR(o, lambda t: 1 / (t + 1)),
    "cosine": lambda o: CosineAnnealingLR(o, 6),
    "one-cycle": lambda o: OneCycleLR(o, max_lr=0.1, total_steps=10, cycle_momentum=True),
    "sequential": lambda o: SequentialLR(o, [LinearLR(o), StepLR(o, 1)], milestones=[3]),
    "plateau": lambda o: ReduceLROnPlateau(o, patience=0, factor=0.1),
}


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_schedulers_drive_it_as_they_drive_adamw(scheduler: str) -> None:
    """OneCycleLR also moves betas."""
    ours, theirs = parameter(0, 30), parameter(0, 30)
    optimizers = [Cosmic([ours], **UNUSUAL), AdamW([theirs], **UNUSUAL)]
    schedules = [SCHEDULERS[scheduler](o) for o in optimizers]
    for step in range(8):
        ours.grad = theirs.grad = normal(step, 30)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step(*([1.0] if scheduler == "plateau" else []))
    for option in ("lr", "betas"):
        assert optimizers[0].param_groups[0][option] == optimizers[1].param_groups[0][option]
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


def test_a_learning_rate_in_a_tensor_may_change_in_place() -> None:
    rate = torch.tensor(0.5)
    (ours, p), (twin, q) = small(lr=rate), small(lr=0.5)
    for lr in (0.5, 0.25, 2.0):
        rate.fill_(lr)
        twin.param_groups[0]["lr"] = lr
        ours.step()
        twin.step()
    assert same_bits(p, q)


def test_betas_in_tensors_may_change_in_place() -> None:
    beta1, beta2 = torch.tensor(0.5), torch.tensor(0.75)
    (ours, p), (twin, q) = small(betas=(beta1, beta2)), small(betas=(0.5, 0.75))
    ours.step()
    twin.step()
    beta1.fill_(0.25)
    twin.param_groups[0]["betas"] = (0.25, 0.75)
    ours.step()
    twin.step()
    assert same_bits(p, q)


def test_a_group_may_be_changed_in_place() -> None:
    (ours, p), (twin, q) = small(), small()
    for optimizer in (ours, twin):
        optimizer.step()
    ours.param_groups[0].update(lr=0.1, weight_decay=0.3, maximize=True, eps=1e-3)
    twin.param_groups[0] |= {"lr": 0.1, "weight_decay": 0.3, "maximize": True, "eps": 1e-3}
    twin.load_state_dict(twin.state_dict())  # makes the plan anew
    for optimizer in (ours, twin):
        optimizer.step()
    assert same_bits(p, q)


# ---- closures, hooks, profiler -----------------------------------------------------------------


@pytest.mark.parametrize("watched", [False, True], ids=["plain", "with-a-hook"])
def test_a_closure_runs_once_first_and_with_gradients(watched: bool) -> None:
    optimizer, p = small()
    twin, q = small()
    if watched:
        optimizer.register_step_post_hook(lambda *_: None)
    calls: list[bool] = []

    def closure() -> float:
        calls.append(torch.is_grad_enabled())
        optimizer.zero_grad()
        loss = (p * p).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.item()

    with torch.no_grad():
        loss = optimizer.step(closure)
    assert calls == [True]
    assert loss == pytest.approx(float((q.detach() ** 2).sum()))
    q.grad = 2 * q.detach()
    twin.step()
    assert same_bits(p, q)


@pytest.fixture
def global_hooks() -> Iterator[Callable[[Hook, Hook], None]]:
    """Registers global pre- and post-hooks for one test."""
    handles: list[Any] = []

    def register(before: Hook, after: Hook) -> None:
        handles.append(register_optimizer_step_pre_hook(before))
        handles.append(register_optimizer_step_post_hook(after))

    yield register
    for handle in handles:
        handle.remove()


def test_step_hooks_run_in_order_and_stop_when_removed(
    global_hooks: Callable[[Hook, Hook], None],
) -> None:
    optimizer, p = small()
    start = p.detach().clone()
    seen: list[tuple[str, bool]] = []

    def hook(name: str) -> Hook:
        def run(who: Optimizer, *_: Any) -> None:
            assert who is optimizer
            seen.append((name, torch.equal(p, start)))

        return run

    global_hooks(hook("global-before"), hook("global-after"))
    handles = [
        optimizer.register_step_pre_hook(hook("before")),
        optimizer.register_step_post_hook(hook("after")),
    ]
    optimizer.step()
    assert sorted(name for name, untouched in seen if untouched) == ["before", "global-before"]
    assert sorted(name for name, untouched in seen if not untouched) == ["after", "global-after"]
    for handle in handles:
        handle.remove()
    optimizer.step()
    assert [name for name, _ in seen[4:]] == ["global-before", "global-after"]


def test_a_pre_hook_may_exchange_the_closure() -> None:
    optimizer, _ = small()
    optimizer.register_step_pre_hook(lambda who, args, kwargs: ((who, lambda: 42.0), {}))
    assert optimizer.step() == 42.0


@pytest.mark.parametrize("call", ["none", "positional", "keyword"])
def test_hooks_see_the_arguments_that_the_user_gave(call: str) -> None:
    seen: list[tuple[int, list[str]]] = []
    for optimizer in (small()[0], AdamW([parameter(0, 3)])):
        optimizer.register_step_pre_hook(
            lambda _, args, kwargs: seen.append((len(args), list(kwargs)))
        )
        if call == "none":
            optimizer.step()
        elif call == "positional":
            optimizer.step(lambda: 1.0)
        else:
            optimizer.step(closure=lambda: 1.0)
    assert seen[0] == seen[1]


def test_hooks_do_not_change_the_step() -> None:
    (ours, p), (twin, q) = small(state_dtype="bf16"), small(state_dtype="bf16")
    ours.register_step_pre_hook(lambda *_: None)
    for _ in range(3):
        ours.step()
        twin.step()
    assert digest(ours) == digest(twin) and same_bits(p, q)


def test_the_profiler_shows_the_step() -> None:
    optimizer, _ = small()
    with profile(activities=[ProfilerActivity.CPU]) as found:
        optimizer.step()
        optimizer.zero_grad()
    names = [event.key for event in found.key_averages()]
    assert "Optimizer.step#Cosmic.step" in names
    assert "Optimizer.zero_grad#Cosmic.zero_grad" in names


def test_hooks_of_state_dicts() -> None:
    optimizer, _ = small()
    optimizer.step()
    called: list[str] = []
    optimizer.register_state_dict_pre_hook(lambda _: called.append("saving"))
    optimizer.register_state_dict_post_hook(lambda _, saved: {**saved, "note": "hello"})
    optimizer.register_load_state_dict_pre_hook(lambda _, saved: called.append(saved["note"]))
    optimizer.register_load_state_dict_post_hook(lambda o: called.append(str(len(o.state))))
    saved = optimizer.state_dict()
    optimizer.load_state_dict(saved)
    assert called == ["saving", "hello", "1"]
    assert saved["note"] == "hello"


# ---- gradients ---------------------------------------------------------------------------------


def test_zero_grad() -> None:
    optimizer, p = small()
    optimizer.zero_grad(set_to_none=False)
    assert torch.equal(p.grad, torch.zeros(30))  # type: ignore[arg-type]
    optimizer.zero_grad()
    assert p.grad is None
    before = p.detach().clone()
    optimizer.step()
    assert same_bits(p, before) and not optimizer.state


def test_clipped_gradients() -> None:
    (ours, p), (twin, q) = small(tier=1), small(tier=1)
    for _ in range(3):
        p.grad, q.grad = normal(1, 30) * 100, normal(1, 30) * 100
        norm = nn.utils.clip_grad_norm_([p], 1.0)
        q.grad *= 1.0 / (norm + 1e-6)
        ours.step()
        twin.step()
    assert digest(ours) == digest(twin)


def test_grad_scaler() -> None:
    """Unscales before the step, and leaves a step with an overflow out."""
    (ours, p), (twin, q) = small(), small()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for bad in (False, True, False):
        ours.zero_grad()
        scaled = scaler.scale((p * normal(3, 30)).sum())
        scaled.backward()  # type: ignore[no-untyped-call]
        if bad:
            assert p.grad is not None
            p.grad[4] = float("inf")
        scaler.step(ours)
        scaler.update()
        if not bad:
            q.grad = normal(3, 30)
            twin.step()
    assert scaler.get_scale() == 512.0
    assert same_bits(p, q)


def test_autograd_notices_that_parameters_changed() -> None:
    """A graph that saved a parameter before the step refuses to run backward after it."""
    optimizer, p = small()
    idle = parameter(1, 3)
    optimizer.add_param_group({"params": [idle]})
    versions = p._version, idle._version
    loss = (p * p).sum()
    optimizer.step()
    assert (p._version > versions[0], idle._version) == (True, versions[1])
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()  # type: ignore[no-untyped-call]


def test_state_stays_on_the_cpu_whatever_the_default_device() -> None:
    """As where the rest of a model lives on an accelerator."""
    optimizer, p = small(tier=None, budget="150%", gate="snr")
    with torch.device("meta"):
        optimizer.step()
        optimizer.load_state_dict(optimizer.state_dict())
        optimizer.step()
    assert {t.device.type for t in optimizer.state[p].values() if isinstance(t, Tensor)} == {"cpu"}


# ---- parameters and groups ---------------------------------------------------------------------


def test_named_parameters_and_groups() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3))
    optimizer = Cosmic(model.named_parameters(), **UNUSUAL)
    give_gradients(model.parameters(), 0)
    optimizer.step()
    assert [info.name for info in optimizer.tiers()] == ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert optimizer.state_dict()["param_groups"][0]["param_names"][0] == "0.weight"


def test_a_group_added_later_steps_with_its_own_options() -> None:
    a, b, c = parameters((30,), (7, 9), (5,))
    optimizer = Cosmic([a], **UNUSUAL)
    twin_params = parameters((30,), (7, 9), (5,))
    adamw = AdamW(twin_params[:1], **UNUSUAL)
    for step in range(6):
        if step == 2:
            optimizer.add_param_group({"params": [b], "lr": 0.01})
            adamw.add_param_group({"params": twin_params[1:2], "lr": 0.01})
        if step == 4:
            optimizer.add_param_group({"params": c, "betas": (0.5, 0.5)})
            adamw.add_param_group({"params": twin_params[2], "betas": (0.5, 0.5)})
        give_gradients([a, b, c], step)
        give_gradients(twin_params, step)
        optimizer.step()
        adamw.step()
    for ours, theirs in zip((a, b, c), twin_params, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


def test_state_is_keyed_and_named_as_in_adamw() -> None:
    """Tools that look at exp_avg and exp_avg_sq find them, in the parameter's shape."""
    optimizer, p = small()
    optimizer.step()
    state = optimizer.state[p]
    assert state["exp_avg"].shape == state["exp_avg_sq"].shape == p.shape
    assert int(state["step"]) == 1
    assert set(optimizer.state_dict()) >= {"state", "param_groups"}


def test_step_returns_nothing_without_a_closure() -> None:
    optimizer, _ = small()
    assert optimizer.step() is None
    assert isinstance(optimizer, Optimizer)
    assert "Cosmic" in repr(optimizer) and "weight_decay: 0.1" in repr(optimizer)


# ---- training ----------------------------------------------------------------------------------


def two_moons_like() -> tuple[Tensor, Tensor]:
    """Points on two interleaved half circles, and which."""
    angle = torch.linspace(0, torch.pi, 100)
    one = torch.stack([angle.cos(), angle.sin()], 1)
    other = torch.stack([1 - angle.cos(), 0.5 - angle.sin()], 1)
    points = torch.cat([one, other]) + normal(0, 200, 2, scale=0.05)
    return points, torch.cat([torch.zeros(100), torch.ones(100)]).long()


@pytest.mark.parametrize(
    "options",
    [
        {}, {"tier": 0}, {"tier": 1}, {"state_dtype": "bf16"}, {"beta_slow": 0.99, "alpha": 2.0},
        {"gate": "snr"}, {"budget": "20%", "reallocate_every": 10},
    ],
    ids=str,
)  # fmt: skip
def test_a_small_model_learns_with_one_learning_rate(options: dict[str, Any]) -> None:
    points, labels = two_moons_like()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 2))
    optimizer = Cosmic(model.parameters(), **{**UNUSUAL, "lr": 0.02, **options})
    loss = torch.tensor(0.0)
    for _ in range(150):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(points), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert loss.item() < 0.3  # from 0.69
