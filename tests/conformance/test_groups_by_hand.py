"""``param_groups`` edited by hand: what works in AdamW works, or is refused by name and place."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import AdamW

from cosmic import Cosmic
from helpers import UNUSUAL, digest, give_gradients, parameter, refused, same_bits, through_a_file
from optimizers import FEW, ROWS, SHAPES, Row, each, few, params_of, started, stepped

Edit = Callable[[Any], None]
Group = dict[str, Any]


def named() -> list[tuple[str, nn.Parameter]]:
    return [(f"layer.{k}", parameter(k, *shape)) for k, shape in enumerate(SHAPES)]


def plain(seed: int, *shape: int) -> Tensor:
    return parameter(seed, *shape).detach().clone()


# ---- what works --------------------------------------------------------------------------------


def append(optimizer: Any) -> None:
    optimizer.param_groups[0]["params"].append(parameter(9, 5))


def append_nothing(optimizer: Any) -> None:
    optimizer.param_groups[0]["params"].append(parameter(9, 0))


def insert(optimizer: Any) -> None:
    optimizer.param_groups[0]["params"].insert(0, parameter(9, 5))


def drop_a_name(optimizer: Any) -> None:
    optimizer.param_groups[0]["param_names"].pop()


def add_a_name(optimizer: Any) -> None:
    optimizer.param_groups[0]["param_names"].append("more")


def drop_names(optimizer: Any) -> None:
    del optimizer.param_groups[0]["param_names"]


def names_of_none(optimizer: Any) -> None:
    optimizer.param_groups[0]["param_names"] = None


def names_as_text(optimizer: Any) -> None:
    optimizer.param_groups[0]["param_names"] = "layer"


def as_a_tuple(optimizer: Any) -> None:
    optimizer.param_groups[0]["params"] = tuple(optimizer.param_groups[0]["params"])


def exchange_for_plain(optimizer: Any) -> None:
    old = optimizer.param_groups[0]["params"][1]
    optimizer.param_groups[0]["params"][1] = plain(9, 5, 7)
    optimizer.state.pop(old, None)


def whole_group(optimizer: Any) -> None:
    """With all options, as some write it."""
    group = {**optimizer.param_groups[0], "params": [parameter(9, 5)], "lr": 0.01}
    optimizer.param_groups.append({**group, "param_names": ["late"]})


WORKS: dict[str, tuple[Edit, list[str]]] = {
    "append": (append, ["layer.0", "layer.1", "layer.2", "layer.3", "4"]),
    "append-nothing": (append_nothing, ["layer.0", "layer.1", "layer.2", "layer.3", "4"]),
    "insert": (insert, ["layer.0", "layer.1", "layer.2", "layer.3", "4"]),
    "name-dropped": (drop_a_name, ["layer.0", "layer.1", "layer.2", "3"]),
    "name-added": (add_a_name, ["layer.0", "layer.1", "layer.2", "layer.3"]),
    "names-dropped": (drop_names, ["0", "1", "2", "3"]),
    "names-none": (names_of_none, ["0", "1", "2", "3"]),
    "names-text": (names_as_text, ["0", "1", "2", "3"]),
    "tuple": (as_a_tuple, ["layer.0", "layer.1", "layer.2", "layer.3"]),
    "plain-tensor": (exchange_for_plain, ["layer.0", "layer.1", "layer.2", "layer.3"]),
    "group": (whole_group, ["layer.0", "layer.1", "layer.2", "layer.3", "late"]),
}


#: After how many steps an edit is made.
STARTS = [*((row, 2) for row in ROWS), *((row, 0) for row in FEW)]


@pytest.mark.parametrize("case", WORKS)
@pytest.mark.parametrize(("row", "steps"), STARTS, ids=lambda value: getattr(value, "name", None))
def test_an_edit_that_adamw_takes_is_taken(row: Row, steps: int, case: str) -> None:
    """Every parameter steps; one without a name is called by its index, as text."""
    edit, names = WORKS[case]
    ours, theirs = stepped(row.make(named()), 0, steps), AdamW(named(), **UNUSUAL)
    transitions: list[str] = []
    ours.add_listener(lambda e, f: transitions.append(f["name"]) if e == "transition" else None)
    for optimizer in (ours, theirs):
        edit(optimizer)
    if case == "group" and row.name.startswith("casmo"):
        with refused(ours, RuntimeError, "groups come by add_param_group()"):
            ours.step()
        return
    for step in range(steps, steps + 2):
        give_gradients(params_of(ours), step)
        give_gradients(params_of(theirs), step)  # type: ignore[arg-type]
        before = [p.detach().clone() for p in params_of(ours)]
        ours.step()
        theirs.step()
    moved = [not same_bits(p, q) for p, q in zip(params_of(ours), before, strict=True) if p.numel()]
    assert len(params_of(ours)) == len(names) and all(moved)
    assert [info.name for info in ours.tiers()] == names
    if steps == 0 and not ours.budget:
        assert transitions == names
    assert set(ours.gate_factors()) <= set(names)
    assert len(ours.stats()) == len(ours.param_groups)
    ours.load_state_dict(through_a_file(ours.state_dict()))
    if row.adamw and steps == 0:
        for p, q in zip(params_of(ours), params_of(theirs), strict=True):  # type: ignore[arg-type]
            torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-7)


@each
def test_a_tuple_of_parameters_changes_no_bit(row: Row) -> None:
    """Nor is a plan made anew for it at every step."""
    ours, twin = started(row), started(row)
    as_a_tuple(ours)
    stepped(ours, 0, 1)
    plan = ours._compiled
    stepped(ours, 1, 3)
    assert row.shared or ours._compiled is plan
    assert digest(ours) == digest(stepped(twin, 0, 3))


def test_a_parameter_without_a_name_is_named_by_its_place() -> None:
    optimizer = stepped(Cosmic(named()), 0, 1)
    append(optimizer)
    late = params_of(optimizer)[4]
    give_gradients(params_of(optimizer), 1)
    late.grad = torch.ones(5).to_sparse()
    with refused(optimizer, RuntimeError, "parameter 4 (param_groups[0]['params'][4])", "sparse"):
        optimizer.step()
    late.grad = torch.full((5,), float("nan"))
    optimizer.nonfinite = "raise"
    with refused(optimizer, RuntimeError, "parameter 4 (param_groups[0]['params'][4])"):
        optimizer.step()


@each
def test_no_groups_at_all_are_no_error(row: Row) -> None:
    """But of CASMO, whose calibrations are of groups."""
    optimizer = stepped(started(row), 0, 1)
    optimizer.param_groups = []
    if row.name.startswith("casmo"):
        with refused(optimizer, RuntimeError, "0 parameter groups", "calibrations of 1"):
            optimizer.step()
        return
    optimizer.step()
    assert optimizer.tiers() == [] and optimizer.stats() == [] and optimizer._steps == 2


def test_an_empty_list_of_parameters_is_no_error() -> None:
    optimizer = stepped(started(ROWS[0]), 0, 1)
    optimizer.param_groups[0]["params"] = []
    optimizer.step()
    assert optimizer.tiers() == []


def test_state_of_a_parameter_that_was_taken_away_is_dropped_but_what_others_keep_is_named() -> (
    None
):
    optimizer = stepped(Cosmic(named()), 0, 1)
    gone = optimizer.param_groups[0]["params"].pop(1)
    assert optimizer.state[nn.Parameter(torch.zeros(2))] == {}  # looking makes it
    assert sorted(optimizer.state_dict()["state"]) == [0, 1, 2]
    assert gone not in optimizer.state
    optimizer.state[gone]["slow_params"] = torch.zeros(5, 7)
    with refused(optimizer, ValueError, "1 in all", "(5, 7)", "delete optimizer.state[param]"):
        optimizer.state_dict()
    del optimizer.state[gone]
    assert sorted(optimizer.state_dict()["state"]) == [0, 1, 2]


# ---- what is refused ---------------------------------------------------------------------------


def set_params(change: Callable[[list[nn.Parameter]], Any]) -> Edit:
    def edit(optimizer: Any) -> None:
        group = optimizer.param_groups[0]
        group["params"] = change(group["params"])

    return edit


def remove(key: str) -> Edit:
    def edit(optimizer: Any) -> None:
        del optimizer.param_groups[0][key]

    return edit


def append_groups(make: Callable[[Any], Any]) -> Edit:
    def edit(optimizer: Any) -> None:
        optimizer.param_groups.append(make(optimizer))

    return edit


def set_groups(change: Callable[[list[Group]], Any]) -> Edit:
    def edit(optimizer: Any) -> None:
        optimizer.param_groups = change(optimizer.param_groups)

    return edit


LIST = "expected a list of tensors, such as list(model.parameters())"
LAST = "param_groups[0]['params'][4] is "
REFUSED: dict[str, tuple[Edit, type[Exception], tuple[str, ...]]] = {
    "named": (
        set_params(lambda old: [*old, ("late", parameter(9, 5))]), TypeError,
        (LAST + "a tuple of str, Parameter", "the tensor alone", "'param_names'"),
    ),
    "module": (
        set_params(lambda old: [*old, nn.Linear(2, 2)]), TypeError,
        (LAST + "a Linear", "the module's parameters()"),
    ),
    "none": (set_params(lambda old: [*old, None]), TypeError, (LAST + "None", "a tensor")),
    "number": (set_params(lambda old: [*old, 1.0]), TypeError, (LAST + "a float", "a tensor")),
    "array": (
        set_params(lambda old: [*old, plain(9, 5).numpy()]), TypeError, (LAST + "a ndarray",)
    ),
    "nested": (
        set_params(lambda old: [*old, [parameter(9, 5)]]), TypeError,
        (LAST + "a list of Parameter", "extend the list"),
    ),
    "in-a-tuple": (set_params(lambda old: (*old, None)), TypeError, (LAST + "None",)),
    "generator": (
        set_params(lambda old: (p for p in old)), TypeError,
        ("param_groups[0]['params'] is a generator", LIST),
    ),
    "set": (set_params(set), TypeError, ("param_groups[0]['params'] is a set", LIST)),
    "tensor": (
        set_params(lambda old: old[0]), TypeError,
        ("param_groups[0]['params'] is a Parameter", LIST),
    ),
    "params-none": (
        set_params(lambda _: None), TypeError, ("param_groups[0]['params'] is None", LIST)
    ),
    "model": (
        set_params(lambda _: nn.Linear(2, 2)), TypeError,
        ("param_groups[0]['params'] is a Linear", LIST),
    ),
    "text": (
        set_params(lambda _: "weights"), TypeError, ("param_groups[0]['params'] is a str", LIST)
    ),
    "no-params": (remove("params"), ValueError, ("param_groups[0] has no 'params'",)),
    "no-lr": (remove("lr"), ValueError, ("param_groups[0] has no 'lr'",)),
    "no-gate": (remove("gate"), ValueError, ("param_groups[0] has no 'gate'",)),
    "group-of-params-alone": (
        append_groups(lambda _: {"params": [parameter(9, 5)]}), ValueError,
        ("param_groups[1] has no ", "add_param_group"),
    ),
    "group-is-a-list": (
        append_groups(lambda _: [parameter(9, 5)]), TypeError,
        ("param_groups[1] is a list of Parameter", "expected a dict", "add_param_group"),
    ),
    "group-is-a-parameter": (
        append_groups(lambda _: parameter(9, 5)), TypeError, ("param_groups[1] is a Parameter",)
    ),
    "group-is-no-dict": (
        set_groups(lambda old: [UserDict(old[0])]), TypeError, ("param_groups[0] is a UserDict",)
    ),
    "groups-none": (set_groups(lambda _: None), TypeError, ("param_groups is None", "of dicts")),
    "groups-tuple": (set_groups(tuple), TypeError, ("param_groups is a tuple of dict",)),
    "groups-dict": (set_groups(lambda old: old[0]), TypeError, ("param_groups is a dict",)),
}  # fmt: skip


@contextmanager
def mended(optimizer: Cosmic) -> Iterator[None]:
    """At its end the groups are what they were."""
    groups = optimizer.param_groups
    saved = [(group, dict(group)) for group in groups]
    yield
    for group, options in saved:
        group.clear()
        group.update(options)
    groups[:] = [group for group, _ in saved]
    optimizer.param_groups = groups


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("steps", [0, 2])
@few
def test_an_edit_that_nothing_can_be_made_of_is_named(row: Row, steps: int, case: str) -> None:
    """Before anything has changed; when it is mended the run goes on."""
    edit, error, fragments = REFUSED[case]
    optimizer = stepped(started(row), 0, steps)
    give_gradients(params_of(optimizer), steps)
    before = digest(optimizer)
    with mended(optimizer):
        edit(optimizer)
        for _ in range(2):
            with pytest.raises(error) as caught:
                optimizer.step()
            missing = [text for text in fragments if text not in str(caught.value)]
            assert not missing, str(caught.value)
    assert digest(optimizer) == before
    optimizer.step()
    assert digest(optimizer) == digest(stepped(started(row), 0, steps + 1))


#: What is no mistake for those that look at parameters alone.
OPTIONS_ONLY = ("no-lr", "no-gate", "group-of-params-alone")


@pytest.mark.parametrize("case", [case for case in REFUSED if case not in OPTIONS_ONLY])
def test_whoever_asks_is_told_the_place(case: str) -> None:
    """Not the step alone: what shows the state does so, too, where it cannot show it."""
    edit, error, fragments = REFUSED[case]
    for ask in ("tiers", "stats", "budget_bytes", "to_adamw_state_dict"):
        optimizer = stepped(Cosmic(named()), 0, 1)
        edit(optimizer)
        with pytest.raises(error) as caught:
            getattr(optimizer, ask)()
        assert all(text in str(caught.value) for text in fragments)


@pytest.mark.parametrize("case", ["named", "none", "generator", "params-none", "no-params"])
def test_a_step_in_backward_names_the_place(case: str) -> None:
    edit, error, fragments = REFUSED[case]
    optimizer = Cosmic([p for _, p in named()])
    with optimizer.step_in_backward():
        with mended(optimizer):
            edit(optimizer)
            with pytest.raises(error) as caught:
                optimizer.step()
        assert all(text in str(caught.value) for text in fragments)
        loss: Any = sum(p.square().sum() for p in params_of(optimizer))
        loss.backward()
        optimizer.step()
    assert len(optimizer.tiers()) == len(SHAPES)


@each
def test_a_parameter_in_two_groups_is_refused(row: Row) -> None:
    """torch's AdamW would step it twice, on one state."""
    optimizer = stepped(started(row), 0, 1)
    group = optimizer.param_groups[0]
    optimizer.param_groups.append({**group, "params": group["params"][:1]})
    give_gradients(params_of(optimizer), 1)
    place, casmo = "(param_groups[1]['params'][0]) share memory", row.name.startswith("casmo")
    error = RuntimeError if casmo else ValueError
    with refused(optimizer, error, "groups come by add_param_group()" if casmo else place):
        optimizer.step()
