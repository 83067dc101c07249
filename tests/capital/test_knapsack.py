"""The allocator's arithmetic: a multiple-choice knapsack."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosmic import _core

Items = list[list[tuple[int, float]]]


def solve(items: Items, budget: int) -> list[int]:
    prices = [[price for price, _ in item] for item in items]
    worths = [[worth for _, worth in item] for item in items]
    return _core.solve_knapsack(prices, worths, budget)


def price(items: Items, chosen: list[int]) -> int:
    return sum(item[k][0] for item, k in zip(items, chosen, strict=True))


def worth(items: Items, chosen: list[int]) -> float:
    return sum(item[k][1] for item, k in zip(items, chosen, strict=True))


def best_worth(items: Items, budget: int) -> float:
    """By trying everything."""
    choices = itertools.product(*(range(len(item)) for item in items))
    affordable = (list(c) for c in choices if price(items, list(c)) <= budget)
    return max(worth(items, chosen) for chosen in affordable)


def dearest_step(items: Items) -> float:
    """The most that one step from an option of an item to another can be worth."""
    return max(max(w for _, w in item) - min(w for _, w in item) for item in items)


options = st.tuples(st.integers(0, 60), st.integers(0, 40).map(float))
ladders = st.lists(options, min_size=1, max_size=4).map(sorted)
populations = st.lists(ladders, min_size=1, max_size=5)


@settings(max_examples=400, deadline=None)
@given(items=populations, spare=st.integers(0, 120))
def test_within_the_budget_and_one_step_of_the_best(items: Items, spare: int) -> None:
    budget = sum(item[0][0] for item in items) + spare
    chosen = solve(items, budget)
    assert price(items, chosen) <= budget
    assert worth(items, chosen) >= best_worth(items, budget) - dearest_step(items)
    assert worth(items, chosen) >= sum(item[0][1] for item in items)
    assert chosen == solve(items, budget), "deterministic"


@settings(max_examples=200, deadline=None)
@given(items=populations)
def test_with_bytes_for_everything_every_item_has_its_best(items: Items) -> None:
    chosen = solve(items, 10**6)
    assert [item[k][1] for item, k in zip(items, chosen, strict=True)] == [
        max(w for _, w in item) for item in items
    ]


def test_the_steps_up_the_hull_go_by_worth_per_byte() -> None:
    items: Items = [[(0, 0.0), (10, 10.0), (30, 12.0)], [(0, 0.0), (20, 12.0)]]
    assert solve(items, 9) == [0, 0]
    assert solve(items, 10) == [1, 0]
    assert solve(items, 30) == [1, 1]
    assert solve(items, 49) == [1, 1]
    assert solve(items, 50) == [2, 1]


def test_an_option_below_the_hull_fills_what_is_left() -> None:
    """It is never the best buy, but better than nothing for the last bytes."""
    items: Items = [[(0, 0.0), (5, 1.0), (20, 20.0)]]
    assert solve(items, 19) == [1]
    assert solve(items, 20) == [2]


def test_ties_go_to_the_first_item() -> None:
    items: Items = [[(0, 0.0), (10, 1.0)] for _ in range(3)]
    assert solve(items, 20) == [1, 1, 0]


@pytest.mark.parametrize(
    ("prices", "worths", "budget", "fragment"),
    [
        ([[5, 3]], [[0.0, 1.0]], 9, "item 0 must have its cheapest option first"),
        ([[-1]], [[0.0]], 9, "cheapest"),
        ([[1, 2]], [[0.0]], 9, "one worth for each"),
        ([[]], [[]], 9, "at least one"),
        ([[1], [1, 2]], [[0.0], [0.0, float("nan")]], 9, "item 1 has a worth that is not finite"),
        ([[1]], [], 9, "as many items"),
        ([[7], [5]], [[0.0], [0.0]], 11, "cheapest options cost 12, the budget is 11"),
    ],
)
def test_what_cannot_be_solved_is_refused(
    prices: list[list[int]], worths: list[list[float]], budget: int, fragment: str
) -> None:
    with pytest.raises(ValueError, match=fragment):
        _core.solve_knapsack(prices, worths, budget)
