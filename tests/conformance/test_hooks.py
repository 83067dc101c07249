"""Closures, hooks and the profiler see what they see of torch's own, and change no bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim import AdamW, Optimizer
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from torch.profiler import ProfilerActivity, profile

from helpers import digest, parameter, same_bits
from optimizers import ROWS, Row, each, gradients, moved, params_of, started, stepped

Hook = Callable[..., Any]


def test_step_returns_nothing_without_a_closure() -> None:
    assert started(ROWS[0]).step() is None


@pytest.mark.parametrize("watched", [False, True], ids=["plain", "with-a-hook"])
@each
def test_a_closure_runs_once_first_and_with_gradients(row: Row, watched: bool) -> None:
    optimizer, twin = started(row), started(row)
    if watched:
        optimizer.register_step_post_hook(lambda *_: None)
    before, calls, losses = digest(optimizer), list[bool](), list[float]()

    def closure() -> float:
        calls.append(torch.is_grad_enabled() and digest(optimizer) == before)
        optimizer.zero_grad()
        loss: Any = torch.stack([p.square().sum() for p in params_of(optimizer)]).sum()
        loss.backward()
        losses.append(loss.item())
        return losses[-1]

    with torch.no_grad():
        returned = optimizer.step(closure)
    assert calls == [True]
    assert [returned] == losses
    for p in params_of(twin):
        p.grad = 2 * p.detach()
    twin.step()
    assert digest(optimizer) == digest(twin)


@each
def test_a_closure_may_return_a_tensor(row: Row) -> None:
    """Which is handed on as it is, not as a number."""
    loss: Any = torch.tensor(2.5)
    returned: Any = started(row).step(lambda: loss)
    assert returned is loss


@each
def test_a_closure_that_raises_changes_nothing(row: Row) -> None:
    optimizer = stepped(started(row), 0, 2)
    before = digest(optimizer)

    def closure() -> float:
        raise KeyError("no batch")

    with pytest.raises(KeyError, match="no batch"):
        optimizer.step(closure)
    assert digest(optimizer) == before
    assert digest(stepped(optimizer, 2, 3)) == moved(row, 3)


# ---- hooks of steps ----------------------------------------------------------------------------


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


@each
def test_step_hooks_run_in_order_and_stop_when_removed(
    row: Row, global_hooks: Callable[[Hook, Hook], None]
) -> None:
    """And change no bit. Torch calls global pre-hooks first and global post-hooks last."""
    optimizer = started(row)
    bits = [digest(optimizer), moved(row, 1), moved(row, 2), moved(row, 3)]
    seen: list[tuple[str, int]] = []

    def hook(name: str) -> Hook:
        def run(who: Optimizer, *_: Any) -> None:
            assert who is optimizer
            seen.append((name, bits.index(digest(optimizer))))

        return run

    global_hooks(hook("global-before"), hook("global-after"))
    handles = [
        optimizer.register_step_pre_hook(hook("before")),
        optimizer.register_step_post_hook(hook("after")),
    ]
    stepped(optimizer, 0, 1)
    assert seen == [("global-before", 0), ("before", 0), ("after", 1), ("global-after", 1)]
    for handle in handles:
        handle.remove()
    stepped(optimizer, 1, 2)
    assert seen[4:] == [("global-before", 1), ("global-after", 2)]
    assert digest(stepped(optimizer, 2, 3)) == bits[3]


@each
def test_a_pre_hook_may_give_the_gradients(row: Row) -> None:
    """As wrappers do that gather them from elsewhere."""
    optimizer, given = started(row), iter([gradients(0), gradients(1), gradients(2)])

    def give(who: Optimizer, *_: Any) -> None:
        for p, g in zip(params_of(optimizer), next(given), strict=True):
            p.grad = g

    optimizer.register_step_pre_hook(give)
    for _ in range(3):
        optimizer.step()
    assert digest(optimizer) == moved(row, 3)


@each
def test_a_pre_hook_may_exchange_the_closure(row: Row) -> None:
    optimizer = started(row)
    optimizer.register_step_pre_hook(lambda who, args, kwargs: ((who, lambda: 42.0), {}))
    assert optimizer.step() == 42.0


@pytest.mark.parametrize("call", ["none", "positional", "keyword"])
@each
def test_hooks_see_the_arguments_that_the_user_gave(row: Row, call: str) -> None:
    seen: list[tuple[int, list[str]]] = []
    for optimizer in (started(row), AdamW([parameter(0, 3)])):
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


@each
def test_the_profiler_shows_the_step(row: Row) -> None:
    """Under the name of the class, as of torch's own; and changes no bit."""
    optimizer = started(row)
    with profile(activities=[ProfilerActivity.CPU]) as found:
        stepped(optimizer, 0, 3)
        optimizer.zero_grad()
    calls = {event.key: event.count for event in found.key_averages()}
    name = type(optimizer).__name__
    assert calls[f"Optimizer.step#{name}.step"] == 3
    assert calls[f"Optimizer.zero_grad#{name}.zero_grad"] == 1
    assert digest(optimizer) == moved(row, 3)


# ---- hooks of state dicts ----------------------------------------------------------------------


@each
def test_hooks_see_state_dicts(row: Row) -> None:
    optimizer = stepped(started(row), 0, 2)
    called: list[Any] = []
    optimizer.register_state_dict_pre_hook(lambda _: called.append("saving"))
    optimizer.register_state_dict_post_hook(lambda _, saved: {**saved, "note": "hello"})
    optimizer.register_load_state_dict_pre_hook(lambda _, saved: called.append(saved["note"]))
    optimizer.register_load_state_dict_post_hook(lambda o: called.append(digest(optimizer)))
    saved = optimizer.state_dict()
    assert saved["note"] == "hello"
    optimizer.load_state_dict(saved)
    assert called == ["saving", "hello", moved(row, 2)]
    assert digest(stepped(optimizer, 2, 3)) == moved(row, 3)


@each
def test_a_hook_may_rewrite_what_is_loaded(row: Row) -> None:
    """Before, such as a rate of the run's own; after, such as a group that starts anew."""
    optimizer, twin = stepped(started(row), 0, 2), stepped(started(row), 0, 2)

    def with_own_rate(_: Optimizer, saved: dict[str, Any]) -> dict[str, Any]:
        groups = [{**group, "lr": 0.5} for group in saved["param_groups"]]
        return {**saved, "param_groups": groups}

    def without_the_last(who: Optimizer) -> None:
        who.state.pop(params_of(optimizer)[-1], None)

    optimizer.register_load_state_dict_pre_hook(with_own_rate)
    optimizer.register_load_state_dict_post_hook(without_the_last)
    optimizer.load_state_dict(optimizer.state_dict())
    twin.param_groups[0]["lr"] = 0.5
    del twin.state[params_of(twin)[-1]]
    assert digest(stepped(optimizer, 2, 4)) == digest(stepped(twin, 2, 4))
    count = optimizer.state[params_of(optimizer)[-1]].get("step")
    assert count is None or int(count) < 4  # of all four steps, if nothing was taken away


@each
def test_a_hook_may_keep_parameters_beside_the_state(row: Row) -> None:
    """As averaging wrappers do: entries of the user's own travel in the state_dict."""
    optimizer = stepped(started(row), 0, 1)
    kept: list[Tensor] = []
    optimizer.register_state_dict_post_hook(
        lambda _, saved: saved.update(shadow=[p.detach().clone() for p in params_of(optimizer)])
    )
    other = started(row)
    other.register_load_state_dict_pre_hook(lambda _, saved: kept.extend(saved["shadow"]))
    other.load_state_dict(optimizer.state_dict())
    pairs = zip(kept, params_of(optimizer), strict=True)
    assert all(same_bits(mine, p) for mine, p in pairs)
