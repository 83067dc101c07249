"""Controllers and their optimizer: turns, checkpoints, copies, schedulers, steps in backward."""

from __future__ import annotations

import copy
import gc
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import ExponentialLR

from cosmic import Cosmic
from cosmic.controllers import (
    Controller,
    FFNBalance,
    LoRABalance,
    Observation,
    PlateauGuard,
    QKVRates,
    Staged,
)
from cosmic.logging import EventLog
from helpers import digest, parameter, refused, take_steps, through_a_file

TAGS = ("ffn_up", "ffn_down", "lora_a", "lora_b", "attn_q", "attn_k", "attn_v")
STAGES = ((3, "eps", "set", 1e-6), (8, "weight_decay", "mul", 0.5, "ffn_up"))


def bare(**options: Any) -> Cosmic:
    """A group a tag, each with gradients and parameters of its own size."""
    groups = []
    for k, tag in enumerate(TAGS):
        with torch.no_grad():
            param = parameter(k, 24, 16).mul_(1.7**k)
        groups.append({"params": [nn.Parameter(param)], "tag": tag})
    given = {"lr": 1e-2, "weight_decay": 0.1, "min_compress_size": 64, "gate": "snr", **options}
    return Cosmic(groups, **given)


def everyone() -> list[Controller]:
    return [
        FFNBalance(every=2, target=3.0),
        LoRABalance(every=3),
        QKVRates(every=2),
        PlateauGuard(2, on={"weight_decay": 0.5, "lr": 0.5}),
        Staged(STAGES),
    ]


def controlled(**options: Any) -> Cosmic:
    optimizer = bare(**options)
    for controller in everyone():
        optimizer.add_controller(controller)
    return optimizer


def trained(optimizer: Cosmic, first: int, last: int) -> Cosmic:
    for step in range(first, last):
        optimizer.report(5.0 - step if step > 6 else 9.0)
        take_steps(optimizer, step, step + 1)
    return optimizer


def options(optimizer: Cosmic) -> list[dict[str, Any]]:
    return [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]


def same(a: Cosmic, b: Cosmic) -> bool:
    about = (a.state_dict()["cosmic"], b.state_dict()["cosmic"])
    return digest(a) == digest(b) and options(a) == options(b) and about[0] == about[1]


# ---- turns --------------------------------------------------------------------------------------


class Watcher(Controller):
    """Remembers the steps that it was shown, and moves nothing."""

    def __init__(self, every: int = 1, name: str = "watcher") -> None:
        super().__init__(every=every, name=name)
        self.steps: list[int] = []
        self.seen: Observation | None = None

    def observe(self, seen: Observation) -> None:
        self.steps.append(seen.step)
        self.seen = seen


def test_a_controller_is_shown_each_step_that_divides_by_its_number() -> None:
    optimizer, watcher = bare(), Watcher(every=3)
    optimizer.add_controller(watcher)
    take_steps(optimizer, 0, 7)
    watcher.enabled = False
    take_steps(optimizer, 7, 10)
    watcher.enabled = True
    take_steps(optimizer, 10, 12)
    optimizer.remove_controller(watcher)
    take_steps(optimizer, 12, 15)
    assert watcher.steps == [3, 6, 12]


def test_steps_that_are_left_out_are_not_shown() -> None:
    optimizer, watcher = bare(nonfinite="skip"), Watcher()
    optimizer.add_controller(watcher)
    take_steps(optimizer, 0, 1)
    optimizer.param_groups[0]["params"][0].grad[0, 0] = torch.inf
    optimizer.step()
    take_steps(optimizer, 1, 2)
    assert watcher.steps == [1, 2]


def test_what_is_shown_is_what_the_step_did() -> None:
    optimizer, watcher = bare(lr=0.5, weight_decay=0.0, state_dtype="fp32"), Watcher()
    optimizer.param_groups[2]["lr_scale"] = {"matrix": 0.25}
    optimizer.add_controller(watcher)
    take_steps(optimizer, 0, 25)
    before = [group["params"][0].detach().clone() for group in optimizer.param_groups]
    take_steps(optimizer, 25, 26)
    assert watcher.seen is not None
    assert [t.group for t in watcher.seen.tensors] == list(range(7))
    for tensor, old in zip(watcher.seen.tensors, before, strict=True):
        moved = float((tensor.param.detach() - old).double().square().mean().sqrt())
        assert 0.5 * tensor.lr_scale * tensor.update_rms == pytest.approx(moved, rel=1e-4)
        size = float(tensor.param.detach().double().square().mean().sqrt())
        assert watcher.seen.param_rms(tensor) == pytest.approx(size, rel=1e-6)
    assert watcher.seen.tensors[2].lr_scale == 0.25
    assert any(tensor.gate < 1 for tensor in watcher.seen.tensors)


def test_no_bit_and_no_option_changes_where_none_is_enabled() -> None:
    plain, disabled = bare(), controlled()
    for controller in disabled.controllers:
        controller.enabled = False
    trained(plain, 0, 12)
    trained(disabled, 0, 12)
    assert digest(plain) == digest(disabled)
    assert options(plain) == options(disabled)


def test_every_controller_has_moved_something() -> None:
    """Or the tests below would hold of nothing."""
    optimizer = trained(controlled(), 0, 12)
    told: set[str] = set()
    again = controlled()
    again.add_listener(lambda event, f: told.add(f["controller"]) if event == "option" else None)
    trained(again, 0, 12)
    assert told == {"FFNBalance", "LoRABalance", "QKVRates", "PlateauGuard", "Staged"}
    assert same(optimizer, again)


def test_listeners_are_told_of_each_move() -> None:
    optimizer = bare()
    told: list[dict[str, Any]] = []
    optimizer.add_controller(Staged([(2, "weight_decay", "set", 0.3, "lora_a")]))
    optimizer.add_listener(lambda event, f: told.append(f) if event == "option" else None)
    take_steps(optimizer, 0, 4)
    assert told == [
        {"step": 2, "controller": "Staged", "group": 2, "option": "weight_decay", "before": 0.1,
         "after": 0.3}
    ]  # fmt: skip


# ---- checkpoints and copies ---------------------------------------------------------------------


def loaded(optimizer: Cosmic) -> Cosmic:
    fresh = controlled()
    fresh.load_state_dict(through_a_file(optimizer.state_dict()))
    for group, old in zip(fresh.param_groups, optimizer.param_groups, strict=True):
        with torch.no_grad():
            group["params"][0].copy_(old["params"][0])
    return fresh


def attached_after(optimizer: Cosmic) -> Cosmic:
    """Controllers come when the checkpoint has been loaded already."""
    fresh = bare()
    fresh.load_state_dict(through_a_file(optimizer.state_dict()))
    assert fresh.state_dict()["cosmic"] == optimizer.state_dict()["cosmic"]
    for group, old in zip(fresh.param_groups, optimizer.param_groups, strict=True):
        with torch.no_grad():
            group["params"][0].copy_(old["params"][0])
    for controller in everyone():
        fresh.add_controller(controller)
    return fresh


WAYS: list[Callable[[Cosmic], Cosmic]] = [
    loaded,
    attached_after,
    copy.deepcopy,
    lambda optimizer: pickle.loads(pickle.dumps(optimizer)),
]


@pytest.mark.parametrize("way", WAYS, ids=["loaded", "attached-after", "copied", "pickled"])
@pytest.mark.parametrize("stop", [1, 4, 7, 10])
def test_a_run_that_was_interrupted_goes_on_with_the_same_bits(
    way: Callable[[Cosmic], Cosmic], stop: int
) -> None:
    whole = trained(controlled(), 0, 14)
    first = trained(controlled(), 0, stop)
    second = way(first)
    assert same(trained(second, stop, 14), whole)
    assert same(trained(first, stop, 14), whole)  # which shares nothing with its copy


def test_a_controller_that_a_checkpoint_does_not_know_starts_anew() -> None:
    saved = trained(bare(), 0, 3).state_dict()
    assert "controllers" not in saved["cosmic"]
    optimizer = trained(controlled(), 0, 9)
    optimizer.load_state_dict(saved)
    fresh = {c.name: c.state_dict() for c in everyone()}
    assert {c.name: c.state_dict() for c in optimizer.controllers} == fresh


def test_numbers_of_another_kind_of_controller_are_refused() -> None:
    saved = trained(controlled(), 0, 4).state_dict()
    optimizer = bare()
    optimizer.add_controller(Watcher(name="FFNBalance"))
    with refused(optimizer, ValueError, "FFNBalance named 'FFNBalance'", "is a Watcher"):
        optimizer.load_state_dict(saved)
    late = bare()
    late.load_state_dict(saved)
    with pytest.raises(ValueError, match="controller of that name is a Watcher"):
        late.add_controller(Watcher(name="FFNBalance"))
    assert late.state_dict()["cosmic"]["controllers"] == saved["cosmic"]["controllers"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda saved: saved.update(kind=3), "a 3 named 'FFNBalance'"),
        (lambda saved: saved.pop("kind"), "expected a dict with 'kind' and 'numbers'"),
        (lambda saved: saved["numbers"].pop("average"), "expected ['average', 'factor_first'"),
        (lambda saved: saved["numbers"].update(average="1"), "average '1'"),
        (lambda saved: saved["numbers"].update(average=float("nan")), "average nan"),
        (lambda saved: saved["numbers"].update(factor_first=0.0), "factor_first 0.0"),
        (lambda saved: saved.update(numbers=None), "'FFNBalance' has None"),
    ],
)
def test_a_spoiled_checkpoint_is_refused_and_changes_nothing(
    change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    saved = through_a_file(trained(controlled(), 0, 4).state_dict())
    change(saved["cosmic"]["controllers"]["FFNBalance"])
    optimizer = trained(controlled(), 0, 6)
    before = options(optimizer), optimizer.state_dict()["cosmic"]
    with refused(optimizer, ValueError, message):
        optimizer.load_state_dict(saved)
    assert before == (options(optimizer), optimizer.state_dict()["cosmic"])


# ---- beside others ------------------------------------------------------------------------------


def test_schedulers_write_the_rate_and_controllers_its_factor() -> None:
    optimizer, alone = controlled(), bare()
    scheduler, other = ExponentialLR(optimizer, 0.9), ExponentialLR(alone, 0.9)
    for step in range(10):
        for one, plan in ((optimizer, scheduler), (alone, other)):
            trained(one, step, step + 1)
            plan.step()
    assert [g["lr"] for g in optimizer.param_groups] == [g["lr"] for g in alone.param_groups]
    assert any(g["lr_scale"] != 1 for g in optimizer.param_groups)


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(16, 32, bias=False), nn.Linear(32, 16, bias=False)

    def loss(self, step: int) -> torch.Tensor:
        x = torch.randn(8, 16, generator=torch.Generator().manual_seed(step))
        out: torch.Tensor = self.down(self.up(x)).square().mean()
        return out


@pytest.mark.parametrize("budget", [None, "40%"])
def test_a_step_within_backward_is_controlled_alike(budget: str | None) -> None:
    digests = []
    for within in (False, True):
        torch.manual_seed(0)
        model = Scaled()
        groups = [
            {"params": [model.up.weight], "tag": "ffn_up"},
            {"params": [model.down.weight], "tag": "ffn_down"},
        ]
        optimizer = Cosmic(groups, lr=1e-2, budget=budget, reallocate_every=4)
        optimizer.add_controller(FFNBalance(3.0, every=2, decay=0.5))
        if within:
            optimizer.step_in_backward(model)
        for step in range(9):
            optimizer.zero_grad()
            model.loss(step).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        assert optimizer.param_groups[0]["lr_scale"] != 1
        digests.append((digest(optimizer), [g["lr_scale"] for g in optimizer.param_groups]))
    assert digests[0] == digests[1]


def test_bits_and_options_do_not_depend_on_threads(set_threads: Callable[[int], None]) -> None:
    runs = []
    for threads in (1, 2):
        set_threads(threads)
        runs.append(trained(controlled(), 0, 12))
    assert same(*runs)


def test_a_controller_that_raises_comes_after_a_step_in_full() -> None:
    class Broken(Controller):
        def observe(self, seen: Observation) -> None:
            seen.move(0, "eps", 1.0)
            raise KeyError("broken")

    optimizer, twin = bare(), bare()
    optimizer.add_controller(Broken(every=1))
    with pytest.raises(KeyError, match="broken"):
        take_steps(optimizer, 0, 1)
    take_steps(twin, 0, 1)
    assert digest(optimizer) == digest(twin)
    assert options(optimizer) == options(twin)


def test_what_is_attached_is_one_controller_of_its_name() -> None:
    optimizer = bare()
    first: Any = FFNBalance()
    optimizer.add_controller(first)
    with pytest.raises(ValueError, match="has a controller named 'FFNBalance' already"):
        optimizer.add_controller(FFNBalance())
    second = FFNBalance(name="second")
    optimizer.add_controller(second)
    assert optimizer.controllers == (first, second)
    with pytest.raises(TypeError, match="expected a Controller, such as"):
        optimizer.add_controller(object())  # type: ignore[arg-type]
    optimizer.remove_controller(first)
    with pytest.raises(ValueError, match="is not attached to this optimizer"):
        optimizer.remove_controller(first)
    assert set(optimizer.state_dict()["cosmic"]["controllers"]) == {"second"}


def test_a_controller_is_one_optimizer_s() -> None:
    optimizer, other = bare(), bare()
    balance = FFNBalance()
    optimizer.add_controller(balance)
    with pytest.raises(ValueError, match="'FFNBalance' is attached to another optimizer"):
        other.add_controller(balance)
    twin = copy.deepcopy(optimizer)
    with pytest.raises(ValueError, match="attached to another optimizer"):
        other.add_controller(twin.controllers[0])
    other.add_controller(copy.deepcopy(balance))
    assert other.controllers[0] is not balance
    optimizer.remove_controller(balance)
    third = bare()
    third.add_controller(balance)
    del third
    gc.collect()
    optimizer.add_controller(balance)  # that optimizer is gone
    assert optimizer.controllers == (balance,)


def test_an_event_log_has_the_moves(tmp_path: Any) -> None:
    optimizer = bare()
    optimizer.add_controller(Staged([(1, "eps", "set", 1e-6, 0)]))
    with EventLog(tmp_path / "run.jsonl").attach(optimizer):
        take_steps(optimizer, 0, 2)
    lines = (tmp_path / "run.jsonl").read_text().splitlines()
    assert sum('"event": "option"' in line for line in lines) == 1
