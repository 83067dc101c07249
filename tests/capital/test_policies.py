"""What the policies find state worth, and what that is for models."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from cosmic import (
    CalibratedPolicy,
    Candidate,
    Cosmic,
    RolePolicy,
    Rung,
    SignalPolicy,
    UniformPolicy,
)
from cosmic.capital.allocation import HYSTERESIS, allocate
from cosmic.capital.named import policy_named
from cosmic.rungs import Geometry
from cosmic.state.entries import role_of
from cosmic.state.roles import Role
from helpers import normal, parameters, same_bits

LADDER = tuple(
    Rung.parse(name)
    for name in (
        "tier0", "tier1", "tier1:factored", "tier2:u1+factored", "tier2:u4+factored", "tier2:u4+v4",
        "tier2:fp32+fp32",
    )
)  # fmt: skip
POLICIES = (CalibratedPolicy(), RolePolicy(), UniformPolicy(), SignalPolicy())


def candidate(index: int, rows: int, role: Role = "matrix", **more: Any) -> Candidate:
    return Candidate(
        index, rows * 64, LADDER, more.get("current"), role, more.get("signal", 0.0), (rows, 64),
        dims=2,
    )  # fmt: skip


def spent(candidates: list[Candidate], rungs: list[Rung]) -> int:
    return sum(c.price(r) for c, r in zip(candidates, rungs, strict=True))


# ---- roles -------------------------------------------------------------------------------------


def trained_roles(model: nn.Module, inputs: Tensor, budget: str = "3%") -> dict[str, Any]:
    """The role of each parameter after two steps."""
    optimizer = Cosmic(model.named_parameters(), budget=budget, lr=1e-3)
    for _ in range(2):
        optimizer.zero_grad()
        model(inputs).square().sum().backward()
        optimizer.step()
    return {name: role_of(optimizer.state[p]) for name, p in model.named_parameters()}


def test_an_embedding_is_found_by_the_side_that_nothing_takes_in() -> None:
    """Its shape alone would make it a hidden matrix."""
    model = nn.Sequential(nn.Embedding(100, 32), nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 8))
    for batch in (1, 8, 100):
        assert trained_roles(model, torch.arange(batch)) == {
            "0.weight": "table", "1.weight": "matrix", "1.bias": "vector", "3.weight": "table",
            "3.bias": "vector",
        }  # fmt: skip


def test_a_table_in_float64_stays_one() -> None:
    param = parameters((600, 40), dtype=torch.float64)[0]
    optimizer = Cosmic([param], budget="10%")
    param.grad = normal(0, 600, 40, dtype=torch.float64)
    optimizer.step()
    assert optimizer.tiers()[0].role == "table"


def test_a_low_rank_factor_is_no_table() -> None:
    """Its shape alone would make it one."""
    model = nn.Sequential(nn.Linear(1024, 16, bias=False), nn.Linear(16, 1024, bias=False))
    assert set(trained_roles(model, normal(0, 20, 1024)).values()) == {"matrix"}


def test_an_embedding_of_few_columns_is_a_table_too() -> None:
    """It has no codec of rows and columns, but bytes."""
    model = nn.Sequential(nn.Embedding(900, 8), nn.Linear(8, 8))
    optimizer = Cosmic(model.named_parameters(), budget="13.05%", policy="role", lr=1e-3)
    for _ in range(2):
        model(torch.arange(20)).square().sum().backward()
        optimizer.step()
    table, matrix, vector = optimizer.tiers()
    assert (table.role, matrix.role, vector.role) == ("table", "matrix", "vector")
    assert (table.rung, vector.rung) == ("tier2:u4+v4", "tier1")


def test_a_complex_vector_is_a_vector() -> None:
    param = nn.Parameter(normal(0, 700, dtype=torch.complex64))
    optimizer = Cosmic([param], budget="10%")
    param.grad = normal(1, 700, dtype=torch.complex64)
    optimizer.step()
    assert optimizer.tiers()[0].role == "vector"


def test_convolutions_are_hidden_matrices() -> None:
    model = nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3))
    roles = trained_roles(model, normal(0, 2, 3, 12, 12))
    assert roles["0.weight"] == roles["2.weight"] == "matrix"


# ---- policies ----------------------------------------------------------------------------------


def test_tables_come_before_hidden_matrices_and_those_evenly() -> None:
    candidates = [candidate(0, 64), candidate(1, 64, "table"), candidate(2, 64)]
    floor = 3 * candidates[0].price(LADDER[2])
    rungs = allocate(RolePolicy(), candidates, floor)
    assert [r.name for r in rungs] == ["tier1:factored"] * 3
    rich = floor + candidates[0].price(LADDER[4]) - candidates[0].price(LADDER[2])
    rungs = allocate(RolePolicy(), candidates, rich)
    assert [r.name for r in rungs] == ["tier1:factored", "tier2:u4+factored", "tier1:factored"]


def test_signal_goes_by_the_gradient() -> None:
    candidates = [candidate(k, 64, signal=s) for k, s in enumerate((1.0, 9.0, 2.0))]
    one = candidates[0].price(LADDER[2])
    chosen = [allocate(SignalPolicy(), candidates, k * one) for k in (1, 2, 3)]
    assert [[r.v != "none" for r in rungs] for rungs in chosen] == [
        [False, True, False], [False, True, True], [True, True, True],
    ]  # fmt: skip


sizes = st.sampled_from([2, 9, 64, 700])
populations = st.lists(
    st.tuples(sizes, st.sampled_from(["table", "matrix"]), st.floats(0, 1e30)), max_size=8
)


@settings(max_examples=150, deadline=None)
@given(
    population=populations,
    budget=st.integers(0, 10**6),
    more=st.integers(0, 10**5),
    policy=st.sampled_from(POLICIES),
)
def test_no_allocation_costs_more_than_its_budget(
    population: list[tuple[int, Role, float]], budget: int, more: int, policy: Any
) -> None:
    candidates = [candidate(k, *row[:2], signal=row[2]) for k, row in enumerate(population)]
    rungs = allocate(policy, candidates, budget)
    assert spent(candidates, rungs) <= budget
    assert rungs == allocate(policy, candidates, budget), "deterministic"
    held = [replace(c, current=r) for c, r in zip(candidates, rungs, strict=True)]
    assert allocate(policy, held, budget) == rungs, "what is best is kept"
    assert spent(held, allocate(policy, held, budget + more)) <= budget + more
    assert spent(held, allocate(policy, held, budget // 2)) <= budget // 2


def test_what_is_held_stays_unless_the_gain_is_clear() -> None:
    full, sign = LADDER[-1], LADDER[0]
    for factor, moves in ((1 + HYSTERESIS / 2, False), (1 + 2 * HYSTERESIS, True)):
        candidates = [
            candidate(0, 64, signal=1.0, current=full),
            candidate(1, 64, signal=factor, current=sign),
        ]  # fmt: skip
        ladder = (sign, full)
        two = [Candidate(c.index, c.numel, ladder, c.current, c.role, c.signal) for c in candidates]
        rungs = allocate(SignalPolicy(), two, two[0].price(full))
        assert (rungs == [sign, full]) is moves, factor


def test_a_policy_by_name_or_of_ones_own() -> None:
    class Mine:
        name, uses_signal = "mine", False

        def worths(self, candidates: Sequence[Candidate]) -> list[list[float]]:
            return [[float(c.index * k) for k in range(len(c.ladder))] for c in candidates]

    assert isinstance(policy_named("uniform"), UniformPolicy)
    params = parameters((40, 64), (40, 64), (40, 64))
    optimizer = Cosmic(params, policy=Mine(), budget=600)
    for p in params:
        p.grad = normal(0, 40, 64)
    optimizer.step()
    assert [info.tier for info in optimizer.tiers()] == [0, 1, 1]
    with pytest.raises(
        ValueError, match="'rolle'; expected 'calibrated', 'role', 'signal', 'uniform'"
    ):
        Cosmic(params, policy="rolle")
    with pytest.raises(TypeError, match="3; expected"):
        Cosmic(params, policy=3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="Mine"):
        Cosmic(params, policy=Mine)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("worths", "fragment"),
    [
        ([], "one worth for each rung"),
        ([[0.0]], "one worth for each rung"),
        ([[float("nan")] * 99], "not finite"),
        ([["many"] * 99], "a list of numbers"),
        ([[10**400] * 99], "a list of numbers"),
        (None, "a list of numbers"),
        ([1.0, 2.0], "a list of numbers"),
    ],
)
def test_a_policy_that_breaks_its_word_is_named(worths: Any, fragment: str) -> None:
    class Broken:
        name, uses_signal = "broken", False

        def worths(self, candidates: Sequence[Candidate]) -> list[list[float]]:
            cut = len(candidates[0].ladder)
            given: list[list[float]] = worths
            if given and isinstance(given[0], list):
                return [row[:cut] for row in given]
            return given

    (param,) = parameters((40, 64))
    optimizer = Cosmic([param], policy=Broken(), budget=600)
    before = param.detach().clone()
    param.grad = normal(0, 40, 64)
    with pytest.raises(ValueError, match=f"policy 'broken'.*{fragment}"):
        optimizer.step()
    assert same_bits(param, before) and not optimizer.state


def test_prices_are_those_of_the_state() -> None:
    for rung in LADDER:
        assert candidate(0, 64).price(rung) == rung.nbytes(Geometry(64 * 64, (64, 64), dims=2))


class Extended:
    """A policy with what a policy may have beside its three members."""

    name, uses_signal = "extended", False

    def __init__(self, **more: object) -> None:
        for key, value in more.items():
            setattr(self, key, value)

    def worths(self, candidates: Sequence[Candidate]) -> list[list[float]]:
        return [[c.numel * rung.tier for rung in c.ladder] for c in candidates]


@pytest.mark.parametrize(
    "scale", [{"table": math.nan}, {"table": -1.0}, {"embedding": 2.0}, {"table": "x"}, "abc", [1]]
)
def test_a_policy_s_lr_scale_is_checked(scale: object) -> None:
    with pytest.raises(ValueError, match=r"lr_scale is .* expected a mapping"):
        Cosmic([torch.zeros(4, 4)], budget="10%", policy=Extended(lr_scale=scale))


def test_a_policy_s_matrix_rule_is_checked() -> None:
    param = torch.nn.Parameter(torch.randn(64, 64))
    for rule in ("off", "nonsense", ["muon"]):
        given = Extended(matrix_rule=lambda sides, rule=rule: rule)
        optimizer = Cosmic([{"params": [param], "role": "matrix"}], budget="50%", policy=given)
        param.grad = torch.ones_like(param)
        with pytest.raises(ValueError, match=r"'extended': matrix_rule gave .* None or 'muon'"):
            optimizer.step()
        assert not optimizer.state
    with pytest.raises(TypeError, match="policy 'extended': matrix_rule is 'muon'"):
        Cosmic([param], budget="10%", policy=Extended(matrix_rule="muon"))


def test_a_policy_s_why_must_be_text() -> None:
    param = torch.nn.Parameter(torch.randn(64, 64))
    optimizer = Cosmic([param], budget="50%", policy=Extended(why=lambda candidate, rung: None))
    param.grad = torch.ones_like(param)
    optimizer.step()
    with pytest.raises(TypeError, match="policy 'extended': why gave None; expected text"):
        optimizer.tiers()
