"""Groups that are exchanged between the calls of one step, as DeepSpeed does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cosmic import Cosmic
from helpers import digest, give_gradients, parameters, refused, same_bits

SHAPES = ((64, 65), (70, 65), (300,))


def in_turns(optimizer: Cosmic, first: int, last: int) -> None:
    """Each group's parameters by a call of their own: a list of one group, as in stages 1 and 2."""
    groups = optimizer.param_groups
    for step in range(first, last):
        give_gradients([p for group in groups for p in group["params"]], step)
        for group in groups:
            optimizer.param_groups = [group]
            try:
                optimizer.step()
            finally:
                optimizer.param_groups = groups


def in_lists(optimizer: Cosmic, first: int, last: int) -> None:
    """All groups, but lists of parameters that are empty until their turn comes, as in stage 3."""
    lists = [group["params"] for group in optimizer.param_groups]
    for step in range(first, last):
        give_gradients([p for params in lists for p in params], step)
        for group in optimizer.param_groups:
            group["params"] = []
        for group, params in zip(optimizer.param_groups, lists, strict=True):
            group["params"] = list(params)
            optimizer.step()
            group["params"] = []
        for group, params in zip(optimizer.param_groups, lists, strict=True):
            group["params"] = params


ways = pytest.mark.parametrize("taken", [in_turns, in_lists])


def groups_of() -> list[dict[str, Any]]:
    return [{"params": [p]} for p in parameters(*SHAPES)]


def alone(last: int, **options: Any) -> list[Cosmic]:
    """An optimizer for each parameter."""
    found = [Cosmic([p], **options) for p in parameters(*SHAPES)]
    for step in range(last):
        give_gradients([o.param_groups[0]["params"][0] for o in found], step)
        for optimizer in found:
            optimizer.step()
    return found


@ways
@pytest.mark.parametrize("options", [{"state_dtype": "u4+v4"}, {"budget": "30%"}], ids=str)
def test_turns_keep_the_state_of_those_whose_turn_it_is_not(
    taken: Callable[..., None], options: dict[str, Any]
) -> None:
    optimizer = Cosmic(groups_of(), **options)
    taken(optimizer, 0, 5)
    for group, other in zip(optimizer.param_groups, alone(5, **options), strict=True):
        (ours,), (theirs,) = group["params"], other.param_groups[0]["params"]
        assert same_bits(ours, theirs)
        kept, wanted = optimizer.state[ours], other.state[theirs]
        assert kept.keys() == wanted.keys()
        assert int(kept["step"]) == 5


@ways
def test_a_run_in_turns_goes_on_from_a_checkpoint(taken: Callable[..., None]) -> None:
    whole, other = Cosmic(groups_of()), Cosmic(groups_of())
    taken(whole, 0, 2)
    for ours, theirs in zip(whole.param_groups, other.param_groups, strict=True):
        theirs["params"][0].data.copy_(ours["params"][0].data)
    other.load_state_dict(whole.state_dict())
    taken(whole, 2, 4)
    taken(other, 2, 4)
    assert digest(other) == digest(whole)


@pytest.mark.parametrize("budget", [20_000, "20KB"])
def test_bytes_of_a_budget_are_refused_where_each_turn_would_spend_them(budget: int | str) -> None:
    optimizer = Cosmic(groups_of(), budget=budget)
    in_turns(optimizer, 0, 1)
    with refused(optimizer, ValueError, "parameters are stepped some at a time", "one group"):
        in_turns(optimizer, 1, 2)


@pytest.mark.parametrize("exchanged", ["groups", "params"])
def test_a_parameter_that_stays_away_loses_its_state(exchanged: str) -> None:
    """A second step of the same lists shows it."""
    kept, gone = parameters((64, 65), (64, 65))
    optimizer = Cosmic([kept, gone])
    give_gradients([kept, gone], 0)
    optimizer.step()
    if exchanged == "groups":
        optimizer.param_groups = [{**optimizer.param_groups[0], "params": [kept]}]
    else:
        optimizer.param_groups[0]["params"] = [kept]
    give_gradients([kept], 1)
    optimizer.step()
    assert gone in optimizer.state
    give_gradients([kept], 2)
    optimizer.step()
    assert gone not in optimizer.state
    assert optimizer.state_bytes() == optimizer.tiers()[0].nbytes


def test_a_deleted_parameter_loses_its_state_at_once() -> None:
    kept, gone = parameters((64, 65), (64, 65))
    optimizer = Cosmic([kept, gone])
    give_gradients([kept, gone], 0)
    optimizer.step()
    del optimizer.param_groups[0]["params"][1]
    optimizer.step()
    assert gone not in optimizer.state
