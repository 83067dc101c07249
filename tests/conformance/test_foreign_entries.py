"""What others keep in ``optimizer.state``, and what looking at it makes there."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import AdamW

from cosmic import Cosmic
from cosmic.state.entries import foreign, own
from helpers import digest, give_gradients, parameter, parameters, take_steps, through_a_file
from optimizers import ROWS, Row, each, moved, params_of, started, stepped


#: Entries as wrappers have them: tensors, numbers, text, nothing, nested.
def company(p: Tensor) -> dict[str, Any]:
    return {
        "slow_params": p.detach().clone(), "counter": 3, "name": "text", "none": None,
        "nested": {"old_g": torch.zeros(2), "list": [1, 2]},
    }  # fmt: skip


def own_digest(optimizer: Cosmic) -> str:
    twin = copy.deepcopy(optimizer)
    for p in params_of(twin):
        twin.state[p] = own(twin.state.get(p, {}))
    return digest(twin)


def assert_accompanied(optimizer: Cosmic, expected: list[dict[str, Any]]) -> None:
    for p, wanted in zip(params_of(optimizer), expected, strict=True):
        found = foreign(optimizer.state[p])
        assert list(found) == list(wanted)
        assert torch.equal(found["slow_params"], wanted["slow_params"])
        assert torch.equal(found["nested"]["old_g"], wanted["nested"]["old_g"])
        assert {k: found[k] for k in ("counter", "name", "none")} == {
            k: wanted[k] for k in ("counter", "name", "none")
        }


@each
@pytest.mark.parametrize("when", ["before the first step", "after it"])
def test_entries_of_others_are_carried_saved_and_loaded(row: Row, when: str) -> None:
    optimizer = started(row)
    expected = [company(p) for p in params_of(optimizer)]
    stepped(optimizer, 0, 0 if when.startswith("before") else 1)
    for p, entries in zip(params_of(optimizer), expected, strict=True):
        optimizer.state[p].update(entries)
    optimizer.state["of a wrapper"] = {"weights": torch.ones(2)}  # type: ignore[index]
    stepped(optimizer, 0 if when.startswith("before") else 1, 4)
    assert_accompanied(optimizer, expected)
    assert own_digest(optimizer) == moved(row, 4)

    twin = started(row)
    with torch.no_grad():
        for a, b in zip(params_of(twin), params_of(optimizer), strict=True):
            a.copy_(b)
    twin.load_state_dict(through_a_file(optimizer.state_dict()))
    assert_accompanied(twin, expected)
    assert torch.equal(twin.state["of a wrapper"]["weights"], torch.ones(2))  # type: ignore[index]
    assert twin.state_bytes() == optimizer.state_bytes()
    assert own_digest(stepped(twin, 4, 6)) == moved(row, 6)
    assert own_digest(stepped(copy.deepcopy(optimizer), 4, 6)) == moved(row, 6)


def test_entries_of_others_are_not_counted() -> None:
    (w,) = parameters((64, 65))
    optimizer = Cosmic([w], budget="10%")
    take_steps(optimizer, 0, 2)
    before, limit = optimizer.state_bytes(), optimizer.budget_bytes()
    optimizer.state[w]["slow_params"] = torch.zeros(10**5)
    optimizer.state["at the top"] = torch.zeros(10**5)  # type: ignore[index]
    optimizer.state["a number"] = 7  # type: ignore[index]
    assert optimizer.state_bytes() == before and optimizer.tiers()[0].nbytes == before
    assert optimizer.budget_bytes() == limit
    take_steps(optimizer, 2, 4)
    assert optimizer.state_bytes() == before


def test_entries_that_change_at_every_step_do_not_make_a_plan_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    params = parameters((16, 16), (7,))
    optimizer = Cosmic(params)
    take_steps(optimizer, 0, 1)
    for p in params:
        optimizer.state[p].update(counter=0, average=None)
    optimizer.state["count"] = 0  # type: ignore[index]
    take_steps(optimizer, 1, 2)

    def refuse(*_: object) -> None:
        raise AssertionError("a plan was made anew")

    monkeypatch.setattr("cosmic.step.planned.compile_plan", refuse)
    for step in range(2, 5):
        for p in params:
            optimizer.state[p]["counter"] += 1
            optimizer.state[p]["average"] = p.detach().clone()
        optimizer.state["count"] += 1  # type: ignore[index]
        take_steps(optimizer, step, step + 1)


def test_what_a_foreign_entry_is_called_does_not_matter() -> None:
    """Names that are COSMIC's own on another rung stay with their owner."""
    (w,) = parameters((64, 65))
    optimizer = Cosmic([w], state_dtype="u4+v4")
    twin = Cosmic([copy.deepcopy(w)], state_dtype="u4+v4")
    take_steps(optimizer, 0, 1)
    theirs = torch.full((64, 65), 7.0)
    optimizer.state[w].update({"exp_avg": theirs, "gate_of_others": 1.0, "magnitude": "text"})
    take_steps(optimizer, 1, 3)
    take_steps(twin, 0, 3)
    assert optimizer.state[w]["exp_avg"] is theirs and bool((theirs == 7).all())
    assert optimizer.state[w]["magnitude"] == "text"
    assert own_digest(optimizer) == digest(twin)


def test_a_dict_that_somebody_holds_stays_the_same_over_changes_of_rung() -> None:
    (w,) = parameters((64, 65))
    optimizer = Cosmic([w], state_dtype="u4+v4")
    held = optimizer.state[w]
    take_steps(optimizer, 0, 1)
    optimizer.param_groups[0]["state_dtype"] = "q8"
    take_steps(optimizer, 1, 2)
    assert optimizer.state[w] is held
    assert "exp_avg_q8_codes" in held and "exp_avg_u4_codes" not in held


# ---- looking, clearing, filling ----------------------------------------------------------------

BUDGETS = [{}, {"budget": "50%"}, {"budget": "50%", "policy": "signal", "reallocate_every": 1}]


@pytest.mark.parametrize("options", BUDGETS)
def test_looking_at_a_frozen_parameters_state_does_not_make_it_live(options: Any) -> None:
    trained, frozen = parameters((64, 65), (65, 64))
    frozen.requires_grad_(False)
    optimizer = Cosmic([trained, frozen], **options)
    twin = Cosmic(parameters((64, 65)), **options)
    assert optimizer.state[frozen] == {}
    assert optimizer.state[trained] == {}
    for step in range(4):
        give_gradients([trained], step)
        optimizer.step()
        assert optimizer.state[frozen] == {}
        take_steps(twin, step, step + 1)
    assert [t.name for t in optimizer.tiers()] == ["0"]
    assert optimizer.budget_bytes() == twin.budget_bytes()
    assert optimizer.state_bytes() == twin.state_bytes()
    assert torch.equal(trained, params_of(twin)[0])
    again = Cosmic([parameter(0, 64, 65), parameter(1, 64, 65)], **options)
    again.load_state_dict(through_a_file(optimizer.state_dict()))
    assert again.state_bytes() == optimizer.state_bytes()


@each
@pytest.mark.parametrize("how", ["clear", "delete", "empty", "reset"])
def test_a_state_that_was_emptied_starts_anew(row: Row, how: str) -> None:
    optimizer = stepped(started(row), 0, 2)
    for p in params_of(optimizer):
        if how == "clear":
            optimizer.state[p].clear()
        elif how == "delete":
            optimizer.state.pop(p, None)
        elif how == "empty":
            optimizer.state[p] = {}
        else:
            optimizer.reset(p)
    fresh = row.make([nn.Parameter(p.detach().clone()) for p in params_of(optimizer)])
    if row.name.startswith("casmo"):
        fresh._calibrations = copy.deepcopy(optimizer)._calibrations  # type: ignore[attr-defined]
    fresh._steps = optimizer._steps
    assert digest(stepped(optimizer, 2, 4)) == digest(stepped(fresh, 2, 4))


def fill_by_hand(optimizer: torch.optim.Optimizer, p: Tensor) -> None:
    """As scripts do that set AdamW's state up themselves."""
    optimizer.state[p].update(
        step=torch.tensor(0.0), exp_avg=torch.zeros_like(p), exp_avg_sq=torch.zeros_like(p)
    )


@each
def test_a_state_that_others_filled_before_the_first_step_does_not_count(row: Row) -> None:
    optimizer = started(row)
    for p in params_of(optimizer):
        fill_by_hand(optimizer, p)
    assert optimizer.state_bytes() == 0 and optimizer.tiers() == []
    stepped(optimizer, 0, 3)
    assert own_digest(optimizer) == moved(row, 3)


# ---- groups and parameters that are taken away -------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"budget": 10**5}])
def test_state_of_a_group_that_was_removed_is_dropped(options: Any) -> None:
    kept, gone = parameters((64, 65), (64, 65))
    optimizer = Cosmic([{"params": [gone]}, {"params": [kept]}], **options)
    take_steps(optimizer, 0, 2)
    both = optimizer.state_bytes()
    optimizer.state[gone]["note"] = "text"
    del optimizer.param_groups[0]
    assert optimizer.state_bytes() == both  # until the next step, or a checkpoint
    take_steps(optimizer, 2, 3)
    assert optimizer.state_bytes() == optimizer.tiers()[0].nbytes < both
    assert optimizer.state[gone] == {"note": "text"}  # what others keep there is theirs


def test_a_checkpoint_can_be_taken_after_a_group_was_removed() -> None:
    kept, gone = parameters((64, 65), (64, 65))
    optimizer = Cosmic([{"params": [gone]}, {"params": [kept]}])
    take_steps(optimizer, 0, 2)
    del optimizer.param_groups[0]
    assert list(optimizer.state_dict()["state"]) == [0]
    assert gone not in optimizer.state


# ---- checkpoints of AdamW under a wrapper ------------------------------------------------------


def test_entries_of_others_come_along_from_an_adamw_checkpoint() -> None:
    (w,) = parameters((64, 65))
    adamw = AdamW([w])
    give_gradients([w], 0)
    adamw.step()
    adamw.state[w]["slow_params"] = w.detach().clone()
    adamw.state["at the top"] = {"x": 1}  # type: ignore[index]
    optimizer = Cosmic([parameter(0, 64, 65)])
    optimizer.load_state_dict(adamw.state_dict())
    state = optimizer.state[params_of(optimizer)[0]]
    assert torch.equal(state["slow_params"], adamw.state[w]["slow_params"])
    assert optimizer.state["at the top"] == {"x": 1}  # type: ignore[index]
    take_steps(optimizer, 1, 2)
    assert "slow_params" in state and "exp_avg_u4_codes" in state


# ---- options that change between a step and a checkpoint ---------------------------------------


def a_larger_budget(optimizer: Cosmic) -> None:
    optimizer.param_groups[0]["max_tier"] = None  # which alone would not be known by the checkpoint
    optimizer.budget = "90%"


def a_higher_tier(optimizer: Cosmic) -> None:
    optimizer.param_groups[0]["max_tier"] = 2


@pytest.mark.parametrize("change", [a_larger_budget, a_higher_tier])
@pytest.mark.parametrize("how", ["state_dict", "copy"])
def test_a_checkpoint_between_a_change_of_options_and_the_next_step_goes_on_alike(
    change: Callable[[Cosmic], None], how: str
) -> None:
    def made() -> Cosmic:
        return Cosmic(
            [{"params": parameters((64, 65), (1024, 8)), "max_tier": 1}], budget="60%",
            policy="uniform", reallocate_every=50,
        )  # fmt: skip

    optimizer = made()
    take_steps(optimizer, 0, 3)
    before = [t.rung for t in optimizer.tiers()]
    change(optimizer)
    if how == "copy":
        twin = copy.deepcopy(optimizer)
    else:
        twin = made()
        change(twin)
        with torch.no_grad():
            for a, b in zip(params_of(twin), params_of(optimizer), strict=True):
                a.copy_(b)
        twin.load_state_dict(through_a_file(optimizer.state_dict()))
    take_steps(optimizer, 3, 5)
    take_steps(twin, 3, 5)
    assert [t.rung for t in optimizer.tiers()] != before
    assert digest(twin) == digest(optimizer)


def test_every_kind_of_optimizer_has_state_of_tensors_and_numbers_alone() -> None:
    for row in ROWS:
        optimizer = stepped(started(row), 0, 3)
        for state in optimizer.state_dict()["state"].values():
            assert all(isinstance(k, str) for k in state)
            assert all(isinstance(v, Tensor | int | float) for v in state.values()), row.name


# ---- names that are nearly COSMIC's ------------------------------------------------------------


@pytest.mark.parametrize("key", ["rung", "order", "role", "gate", "signal"])
def test_entries_by_the_names_of_an_older_format_are_somebody_elses(key: str) -> None:
    """As long as the state says that it is of today's."""
    (w,) = parameters((64, 65))
    optimizer, twin = Cosmic([w]), Cosmic(parameters((64, 65)))
    take_steps(optimizer, 0, 1)
    optimizer.state[w][key] = "mine"
    optimizer.load_state_dict(through_a_file(optimizer.state_dict()))
    optimizer = copy.deepcopy(optimizer)
    take_steps(optimizer, 1, 3)
    take_steps(twin, 0, 3)
    assert optimizer.state[params_of(optimizer)[0]][key] == "mine"
    assert own_digest(optimizer) == digest(twin)


def two_rungs(state: dict[str, Any]) -> None:
    state["rung:tier0"] = 2


def a_newer_format(state: dict[str, Any]) -> None:
    state[next(key for key in state if key.startswith("rung:"))] = 3


@pytest.mark.parametrize(
    ("spoil", "message"), [(two_rungs, "expected one rung"), (a_newer_format, "newer release")]
)
@pytest.mark.parametrize("where", ["loaded", "live"])
def test_a_state_that_contradicts_itself_is_named(
    spoil: Callable[[dict[str, Any]], None], message: str, where: str
) -> None:
    (w,) = parameters((64, 65))
    optimizer = Cosmic([("w", w)])
    take_steps(optimizer, 0, 1)
    saved = copy.deepcopy(optimizer.state_dict())
    spoil(saved["state"][0] if where == "loaded" else optimizer.state[w])
    with pytest.raises(ValueError, match=f"'w'.*{message}"):
        if where == "loaded":
            optimizer.load_state_dict(saved)
        else:
            optimizer.step()


def test_numbers_that_torchs_own_loader_has_cast_are_taken_back() -> None:
    """Wrappers that load through it hand on state of the parameter's dtype."""
    for row in ROWS:
        optimizer = stepped(started(row), 0, 2)
        twin = stepped(started(row), 0, 2)
        for p in params_of(optimizer):
            for key, value in own(optimizer.state[p]).items():
                if isinstance(value, Tensor) and value.is_floating_point():
                    optimizer.state[p][key] = value.to(p.dtype)
        stepped(optimizer, 2, 4)
        stepped(twin, 2, 4)
        for a, b in zip(params_of(optimizer), params_of(twin), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
