"""The event log: one JSON object a line, each event where it belongs."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from torch import nn

import cosmic
from cosmic import Cosmic
from cosmic.logging import EventLog
from helpers import UNUSUAL, digest, normal, parameter, parameters, take_steps

Event = dict[str, Any]


def not_json(constant: str) -> NoReturn:
    raise AssertionError(f"{constant} is not JSON")


def read(path: Path, kind: str | None = None) -> list[Event]:
    """Events of a log, read strictly: NaN and Infinity are not JSON."""
    lines = path.read_text(encoding="utf-8").splitlines()
    events = [json.loads(line, parse_constant=not_json) for line in lines]
    return [e for e in events if kind is None or e["event"] == kind]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.jsonl"


def test_the_header_says_what_runs(path: Path) -> None:
    optimizer = Cosmic(parameters((5,)), budget="50%", seed=17, nonfinite="skip", **UNUSUAL)
    EventLog(path).attach(optimizer).close()
    (header,) = read(path)
    info = cosmic._core.build_info()
    assert header["event"] == "run" and header["time"] > 1e9
    assert header["cosmic"] == cosmic.__version__
    assert header["torch"] == torch.__version__
    assert header["isa"] == info["isa"]
    assert header["threads"] == torch.get_num_threads()
    assert (header["seed"], header["budget"], header["nonfinite"]) == (17, "50%", "skip")
    assert header["groups"][0]["betas"] == [0.8, 0.95]
    assert header["groups"][0]["weight_decay"] == 0.1
    assert "params" not in header["groups"][0]


def test_steps_carry_what_the_optimizer_reports(path: Path) -> None:
    groups: list[dict[str, Any]] = [
        {"params": parameters((50,))}, {"params": parameters((7,)), "lr": 0.5},
    ]  # fmt: skip
    optimizer = Cosmic(groups)
    with EventLog(path).attach(optimizer):
        take_steps(optimizer, 0, 3)
    steps = read(path, "step")
    assert [e["step"] for e in steps] == [1, 2, 3]
    assert steps[-1]["state_bytes"] == optimizer.state_bytes()
    assert [g["lr"] for g in steps[-1]["groups"]] == [1e-3, 0.5]
    for group, stats in zip(steps[-1]["groups"], optimizer.stats(), strict=True):
        assert stats.items() <= group.items()
    assert steps[0]["groups"][0]["update_rms"] == pytest.approx(1.0, rel=1e-3)


def test_every_so_many_steps(path: Path) -> None:
    optimizer = Cosmic(parameters((5,)))
    with EventLog(path, every=3).attach(optimizer):
        take_steps(optimizer, 0, 7)
    assert [e["step"] for e in read(path, "step")] == [3, 6]


def test_transitions_are_written_in_order(path: Path) -> None:
    """There are bytes for one second moment: it goes to the tensor that is said to be a table."""
    params = parameters((20, 30), (20, 30))
    groups = [{"params": [named]} for named in zip("ab", params, strict=True)]
    optimizer = Cosmic(groups, budget=300, policy="role")
    with EventLog(path).attach(optimizer):
        for step in range(5):
            roles = ("head", "matrix") if step < 3 else ("matrix", "head")
            for group, role in zip(optimizer.param_groups, roles, strict=True):
                group["role"] = role
            params[0].grad, params[1].grad = normal(1, 20, 30), normal(2, 20, 30)
            optimizer.step()
    found = [(e["step"], e["name"], e["before"], e["after"]) for e in read(path, "transition")]
    rich, poor = "tier1:factored", "tier1"
    assert found == [
        (0, "a", None, rich), (0, "b", None, poor), (3, "a", rich, poor), (3, "b", poor, rich),
    ]  # fmt: skip
    order = [(e["event"], e["step"]) for e in read(path) if e["event"] != "run"]
    assert order.index(("step", 3)) < order.index(("transition", 3)) < order.index(("step", 4))


def held(optimizer: Cosmic) -> list[Event]:
    """What ``tiers()`` says, as an allocation has it."""
    told = ("name", "role", "rung", "numel", "nbytes", "why")
    return [{key: getattr(row, key) for key in told} for row in optimizer.tiers()]


@pytest.mark.parametrize("backward", [False, True])
def test_an_allocation_is_written_where_a_plan_has_changed_it(path: Path, backward: bool) -> None:
    params = [nn.Parameter(normal(n, 30, 40)) for n in range(2)]
    optimizer = Cosmic(zip("ab", params, strict=True), budget="1%", reallocate_every=4)
    if backward:
        optimizer.step_in_backward()
    with EventLog(path).attach(optimizer):
        tables = []
        for step in range(9):
            if step == 3:
                optimizer.budget = "1 %"  # the same
            if step == 6:
                optimizer.budget = 9000
            sum((p * p).sum() for p in params).backward()  # type: ignore[union-attr]
            optimizer.step()
            optimizer.zero_grad()
            tables.append((optimizer.budget_bytes(), optimizer.state_bytes(), held(optimizer)))
    told = read(path, "allocation")
    assert [e["step"] for e in told] == [0, 6]
    for event in told:
        found = (event["budget"], event["state_bytes"], event["tensors"])
        assert found == tables[event["step"]]
        assert event["state_bytes"] == sum(t["nbytes"] for t in event["tensors"])
    assert {e["step"] for e in read(path, "transition")} == {0, 6}


def test_an_allocation_follows_a_checkpoint_only_where_it_differs(path: Path) -> None:
    def fresh(budget: str) -> Cosmic:
        return Cosmic(parameters((40, 50), (40, 50)), budget=budget)

    optimizer, other = fresh("1%"), fresh("40%")
    take_steps(other, 0, 1)
    with EventLog(path).attach(optimizer):
        take_steps(optimizer, 0, 2)
        optimizer.load_state_dict(optimizer.state_dict())
        take_steps(optimizer, 2, 3)
        optimizer.budget = None
        optimizer.load_state_dict(other.state_dict())
        take_steps(optimizer, 1, 2)
    first, second = read(path, "allocation")
    assert (first["step"], second["step"]) == (0, 1)
    assert first["budget"] is not None and second["budget"] is None
    assert second["tensors"] == held(optimizer)


def test_a_log_attached_later_begins_with_the_allocation(path: Path) -> None:
    optimizer = Cosmic(parameters((5,), (70,)))
    take_steps(optimizer, 0, 3)
    with EventLog(path).attach(optimizer):
        take_steps(optimizer, 3, 5)
    assert [(e["event"], e["step"]) for e in read(path)[1:]] == [
        ("allocation", 3), ("step", 4), ("step", 5),
    ]  # fmt: skip
    assert read(path, "allocation")[0]["tensors"] == held(optimizer)


def test_nothing_is_told_where_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cosmic, "tiers", lambda _: pytest.fail("a table for nobody"))
    take_steps(Cosmic(parameters((5,)), budget="50%", reallocate_every=1), 0, 3)


def test_transitions_say_why_as_the_table_does(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiers = Cosmic.tiers
    monkeypatch.setattr(
        Cosmic, "tiers", lambda o: [row._replace(why=f"for {row.name}") for row in tiers(o)]
    )
    optimizer = Cosmic(parameters((5,), (7,)))
    with EventLog(path).attach(optimizer):
        take_steps(optimizer, 0, 1)
    assert [e["why"] for e in read(path, "transition")] == ["for 0", "for 1"]
    assert [t["why"] for t in read(path, "allocation")[0]["tensors"]] == ["for 0", "for 1"]


def test_gate_events_are_the_crossings(path: Path) -> None:
    names = ("steady", "jumping")
    params = parameters((50,), (50,))
    optimizer = Cosmic(zip(names, params, strict=True), gate="snr", c_min=0.1)
    with EventLog(path, every=1000).attach(optimizer):
        for step in range(700):
            params[0].grad = normal(1, 50)
            params[1].grad = normal(1, 50, scale=100.0 if step == 40 else 1.0)
            optimizer.step()
    low, back = read(path, "gate")
    assert (low["name"], back["name"]) == ("jumping", "jumping")
    assert low["factor"] == 0.1 and 41 <= low["step"] <= 42
    assert back["factor"] >= 0.5 and back["step"] > low["step"]


def test_skipped_steps_are_written(path: Path) -> None:
    p = parameter(0, 5)
    optimizer = Cosmic([("w", p)], nonfinite="skip")
    with EventLog(path).attach(optimizer):
        p.grad = torch.full((5,), float("nan"))
        optimizer.step()
    (event,) = read(path, "skipped")
    assert "'w'" in event["parameters"][0]
    assert not read(path, "step")


def test_a_log_with_nan_in_it_is_still_json(path: Path) -> None:
    p = parameter(0, 5)
    optimizer = Cosmic([p])
    with EventLog(path).attach(optimizer):
        p.grad = torch.full((5,), float("nan"))
        with pytest.warns(RuntimeWarning):
            optimizer.step()
    (event,) = read(path, "step")
    assert event["groups"][0]["nonfinite_gradients"] == 5


def test_one_log_of_two_optimizers_keeps_them_apart(path: Path) -> None:
    first = Cosmic(parameters((10,)), lr=0.25, tier=0)
    second = Cosmic(parameters((20,)), lr=0.5)
    with EventLog(path) as log:
        log.attach(first)
        log.attach(second)
        take_steps(first, 0, 1)
        take_steps(second, 0, 1)
    assert len(read(path, "run")) == 2
    steps = read(path, "step")
    assert [e["groups"][0]["lr"] for e in steps] == [0.25, 0.5]
    assert [e["state_bytes"] for e in steps] == [0, 8 * 20 + 8]


def test_a_learning_rate_in_a_tensor_is_a_number_in_the_log(path: Path) -> None:
    optimizer = Cosmic(parameters((5,)), lr=torch.tensor(0.5))
    with EventLog(path).attach(optimizer):
        take_steps(optimizer, 0, 1)
    assert read(path, "run")[0]["groups"][0]["lr"] == 0.5
    assert read(path, "step")[0]["groups"][0]["lr"] == 0.5


def test_events_of_ones_own_and_appending(path: Path) -> None:
    for loss in (2.5, 1.5):
        with EventLog(path) as log:
            log.write("loss", value=loss)
    assert [e["value"] for e in read(path, "loss")] == [2.5, 1.5]


def test_a_line_that_a_killed_run_left_takes_no_other_with_it(path: Path) -> None:
    for _ in range(2):
        with EventLog(path) as log:
            log.write("loss", value=1.0)
    path.write_text(path.read_text() + '{"event": "lo')
    with EventLog(path) as log:
        log.write("loss", value=2.0)
    *whole, broken, last = path.read_text().splitlines()
    assert len(whole) == 2 and broken == '{"event": "lo'
    assert json.loads(last)["value"] == 2.0


def test_lines_are_on_disk_at_once(path: Path) -> None:
    optimizer = Cosmic(parameters((5,)))
    log = EventLog(path).attach(optimizer)
    take_steps(optimizer, 0, 1)
    assert [e["event"] for e in read(path)] == [
        "run", "transition", "allocation", "step",
    ]  # fmt: skip
    log.close()


def test_a_closed_log_is_detached(path: Path) -> None:
    optimizer = Cosmic(parameters((5,)))
    with EventLog(path).attach(optimizer):
        take_steps(optimizer, 0, 1)
    size = path.stat().st_size
    take_steps(optimizer, 1, 3)
    assert path.stat().st_size == size


@pytest.mark.parametrize("event", ["transition", "allocation", "step"])
def test_a_listener_that_fails_finds_a_step_that_was_taken_in_full(event: str) -> None:
    params, twins = parameters((50,)), parameters((50,))
    optimizer, twin = Cosmic(params, **UNUSUAL), Cosmic(twins, **UNUSUAL)

    def fail(heard: str, _: Event) -> None:
        if heard == event:
            raise OSError("disk full")

    optimizer.add_listener(fail)
    with pytest.raises(OSError, match="disk full"):
        take_steps(optimizer, 0, 1)
    optimizer.remove_listener(fail)
    take_steps(twin, 0, 1)
    assert digest(optimizer) == digest(twin)
    take_steps(optimizer, 1, 3)
    take_steps(twin, 1, 3)
    assert digest(optimizer) == digest(twin)


def test_bad_use_is_refused(path: Path) -> None:
    unusable: list[Any] = [0, math.nan, 2.0]
    for every in unusable:
        with pytest.raises(ValueError, match=f"every is {every}"):
            EventLog(path, every=every)
    with pytest.raises(FileNotFoundError):
        EventLog(path.parent / "missing" / "run.jsonl")
    with EventLog(path) as log, pytest.raises(TypeError, match="SGD"):
        log.attach(torch.optim.SGD([nn.Parameter(torch.zeros(1))]))  # type: ignore[arg-type]
