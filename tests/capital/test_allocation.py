"""What the optimizer makes of a policy: when it looks, what it carries over, what it tells."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import nn

from cosmic import Candidate, Cosmic, Rung
from cosmic.rungs import Geometry
from cosmic.state.entries import ROLE, SIGNAL
from cosmic.state.roles import ROLES
from helpers import UNUSUAL, digest, normal, parameters, refused, take_steps

FULL = Rung(2, "fp32", "none", "fp32")
LADDER = (Rung(0), Rung(1), Rung(1, v="v4"), FULL)
SIZE = 600


@dataclass
class AllOrNothing:
    """Full history goes to the strongest gradient; nothing else is worth much."""

    name: str = "all or nothing"
    uses_signal: bool = True
    calls: list[list[Candidate]] = field(default_factory=list)

    def worths(self, candidates: Sequence[Candidate]) -> list[list[float]]:
        self.calls.append(list(candidates))
        return [
            [(c.signal or 1.0) if r.tier == 2 else 1e-9 * r.tier for r in c.ladder]
            for c in candidates
        ]


def two_tensors(*, spare: int = 10, **options: Any) -> tuple[Cosmic, list[nn.Parameter]]:
    """Two vectors of the same size, and a budget for the full state of one."""
    params = parameters((SIZE,), (SIZE,))
    budget = FULL.nbytes(SIZE) + 16 + spare  # 16: two signals
    named = [("a", params[0]), ("b", params[1])]
    own = {"policy": AllOrNothing(), "state_dtype": "fp32", "reallocate_every": 5}
    return Cosmic(named, budget=budget, **{**UNUSUAL, **own, **options}), params


def feed(optimizer: Cosmic, params: list[nn.Parameter], steps: int, *scales: float) -> list[int]:
    for _ in range(steps):
        for p, scale in zip(params, scales, strict=True):
            p.grad = normal(7, SIZE, scale=scale)
        optimizer.step()
    return [info.tier for info in optimizer.tiers()]


def test_the_step_after_the_first_knows_the_gradients() -> None:
    for scales, expected in [((1.0, 3.0), [0, 2]), ((3.0, 1.0), [2, 0])]:
        optimizer, params = two_tensors()
        assert feed(optimizer, params, 1, *scales) == [2, 0], "a tie goes to the first parameter"
        assert feed(optimizer, params, 1, *scales) == expected


def test_rungs_follow_the_signal_every_so_many_steps() -> None:
    optimizer, params = two_tensors()
    assert feed(optimizer, params, 6, 3.0, 1.0) == [2, 0]
    assert feed(optimizer, params, 5, 1.0, 90.0) == [2, 0], "not before the next look"
    assert feed(optimizer, params, 1, 1.0, 90.0) == [0, 2]


def test_rungs_do_not_swap_over_nothing() -> None:
    optimizer, params = two_tensors()
    for scales in ((1.0, 0.9), (1.0, 1.2), (1.0, 0.9), (1.0, 1.2)):
        assert feed(optimizer, params, 15, *scales) == [2, 0]
    assert feed(optimizer, params, 15, 1.0, 1.4) == [0, 2]


def test_transitions_are_told_once_each() -> None:
    optimizer, params = two_tensors()
    told: list[dict[str, Any]] = []
    optimizer.add_listener(
        lambda event, fields: told.append(fields) if event == "transition" else None
    )
    feed(optimizer, params, 6, 3.0, 1.0)
    feed(optimizer, params, 6, 1.0, 90.0)
    full, sign = "tier2:fp32+fp32", "tier0"
    assert all(isinstance(fields.pop("why"), str) for fields in told)
    assert told == [
        {"step": 0, "name": "a", "before": None, "after": full},
        {"step": 0, "name": "b", "before": None, "after": sign},
        {"step": 11, "name": "a", "before": full, "after": sign},
        {"step": 11, "name": "b", "before": sign, "after": full},
    ]


@pytest.mark.parametrize(("spare", "lower"), [(10, 0), (24, 1)], ids=["tier0", "tier1"])
def test_a_promoted_tensor_starts_with_bias_correction_of_its_own(spare: int, lower: int) -> None:
    """Its first step in tier 2 is AdamW's first step: lr in every element."""
    optimizer, params = two_tensors(spare=spare, weight_decay=0.0, lr=1e-3, eps=1e-12)
    assert feed(optimizer, params, 6, 3.0, 1.0) == [2, lower]
    assert feed(optimizer, params, 5, 1.0, 90.0) == [2, lower]
    before = params[1].detach().clone()
    assert feed(optimizer, params, 1, 1.0, 90.0) == [lower, 2]
    moved = (params[1].detach() - before).abs()
    torch.testing.assert_close(moved, torch.full_like(moved, 1e-3), rtol=1e-3, atol=0.0)


def test_fixed_tiers_are_kept_and_paid_first() -> None:
    params = parameters((20, 30), (20, 30), (600,))
    groups: list[dict[str, Any]] = [{"params": params[:1]}, {"params": params[1:], "tier": 2}]
    optimizer = Cosmic(groups, budget=2 * FULL.nbytes(600) + 40)
    for step in range(4):
        for k, p in enumerate(params):
            p.grad = normal(step, *p.shape, scale=1e6 if k == 0 else 1e-6)
        optimizer.step()
        assert [info.tier for info in optimizer.tiers()] == [1, 2, 2]


def test_floors_and_ceilings_hold_whatever_the_budget() -> None:
    params = parameters((96, 64), (96, 64), (96, 64))
    groups = [
        {"params": params[:1], "min_tier": 1},
        {"params": params[1:2], "max_tier": 1},
        {"params": params[2:], "min_tier": 2, "max_tier": 2},
    ]
    wanted: list[tuple[int | str, list[int]]] = [(3000, [1, 1, 2]), ("100%", [1, 1, 2])]
    for budget, expected in wanted:
        optimizer = Cosmic([dict(group) for group in groups], budget=budget, policy="role")
        take_steps(optimizer, 0, 3)
        assert [info.tier for info in optimizer.tiers()] == expected
    floor = 24 + Rung.parse("tier2:u1+factored").nbytes(Geometry.of(params[2]))
    for budget, works in [(floor, True), (floor - 1, False)]:
        optimizer = Cosmic([dict(group) for group in groups], budget=budget, policy="role")
        if works:
            take_steps(optimizer, 0, 2)
            assert optimizer.state_bytes() == floor
        else:
            with pytest.raises(ValueError, match=f"at least {floor} bytes"):
                take_steps(optimizer, 0, 1)


def test_a_ceiling_without_a_budget_gives_the_best_below_it() -> None:
    names = {0: "tier0", 1: "tier1:factored", 2: "tier2:u4+factored", None: "tier2:u4+factored"}
    for most, name in names.items():
        optimizer = Cosmic(parameters((96, 64)), max_tier=most)
        take_steps(optimizer, 0, 1)
        assert [info.rung for info in optimizer.tiers()] == [name]


def test_without_a_budget_everything_is_tier_2() -> None:
    optimizer = Cosmic(parameters((20, 30), (5,)))
    take_steps(optimizer, 0, 2)
    assert {info.rung for info in optimizer.tiers()} == {"tier2:fp32+fp32"}


def test_when_a_policy_is_asked_and_what_it_sees() -> None:
    policy = AllOrNothing()
    optimizer, params = two_tensors(policy=policy)
    feed(optimizer, params, 12, 1.0, 2.0)
    assert len(policy.calls) == 4, "at the first step, and after each look: steps 1, 6 and 11"
    first, second = policy.calls[:2]
    assert [(c.index, c.numel, c.ladder, c.current, c.role, c.signal) for c in first] == [
        (0, SIZE, LADDER, None, "vector", 0.0), (1, SIZE, LADDER, None, "vector", 0.0),
    ]  # fmt: skip
    expected = [float(normal(7, SIZE, scale=s).abs().mean()) for s in (1.0, 2.0)]
    assert [c.signal for c in second] == pytest.approx(expected, rel=1e-6)
    assert [c.current for c in second] == [FULL, Rung(0)]


@pytest.mark.parametrize(
    ("policy", "rung"), [("role", Rung(1)), ("uniform", Rung(1, v="v4"))], ids=["role", "uniform"]
)
def test_without_signals_none_are_paid_for(policy: str, rung: Rung) -> None:
    optimizer, params = two_tensors(policy=policy)
    feed(optimizer, params, 3, 1.0, 1.0)
    assert not any(SIGNAL in state for state in optimizer.state.values())
    assert optimizer.state_bytes() == 2 * rung.nbytes(SIZE)


def test_a_step_that_a_policy_spoils_has_changed_nothing() -> None:
    """Wherever the budget is spent, the step that raises because of it has not been taken."""

    class Moody(AllOrNothing):
        def worths(self, candidates: Sequence[Candidate]) -> list[list[float]]:
            if len(self.calls) == 2:
                raise ValueError("not today")
            return super().worths(candidates)

    optimizer, params = two_tensors(policy=Moody())
    for _ in range(8):
        before = digest(optimizer)
        try:
            feed(optimizer, params, 1, 1.0, 2.0)
        except ValueError as error:
            assert "not today" in str(error)
            assert digest(optimizer) == before
            return
    pytest.fail("the policy was not asked again")


# ---- checkpoints -------------------------------------------------------------------------------


def model_params() -> list[nn.Parameter]:
    """An embedding whose shape does not tell, two hidden matrices, a vector."""
    return parameters((100, 64), (64, 64), (64, 96), (64,))


def embedding_like_gradients(params: Sequence[nn.Parameter], step: int) -> None:
    for k, p in enumerate(params):
        p.grad = normal(100 * step + k, *p.shape)
    assert params[0].grad is not None
    params[0].grad[torch.arange(100) % 9 != step % 9] = 0.0


def budgeted(params: Sequence[nn.Parameter], policy: str) -> Cosmic:
    return Cosmic(params, **UNUSUAL, budget="6%", policy=policy, reallocate_every=4)


@pytest.mark.parametrize("policy", ["calibrated", "role", "signal", "uniform"])
def test_a_checkpoint_between_any_two_steps_resumes_with_the_same_bits(policy: str) -> None:
    """Also between the step that looks and the one that spends the budget anew."""
    params = model_params()
    optimizer = budgeted(params, policy)
    expected: list[str] = []
    saved: list[tuple[list[torch.Tensor], dict[str, Any]]] = []
    for step in range(11):
        saved.append(([p.detach().clone() for p in params], copy.deepcopy(optimizer.state_dict())))
        embedding_like_gradients(params, step)
        optimizer.step()
        expected.append(digest(optimizer))
    assert [info.role for info in optimizer.tiers()] == ["table", "matrix", "matrix", "vector"]
    for first, (values, state_dict) in enumerate(saved):
        again = model_params()
        with torch.no_grad():
            for p, value in zip(again, values, strict=True):
                p.copy_(value)
        resumed = budgeted(again, policy)
        resumed.load_state_dict(state_dict)
        for step in range(first, 11):
            embedding_like_gradients(again, step)
            resumed.step()
            assert digest(resumed) == expected[step], (first, step)


def test_roles_are_known_before_the_first_gradient() -> None:
    params = model_params()
    optimizer = budgeted(params, "role")
    for step in range(3):
        embedding_like_gradients(params, step)
        optimizer.step()
        assert [info.role for info in optimizer.tiers()] == ["table", "matrix", "matrix", "vector"]
        assert optimizer.tiers()[0].rung == "tier2:u4+v4"


@pytest.mark.parametrize("change", [{"max_tier": None}, {"rung": None}, {"state_dtype": None}])
def test_bytes_that_a_changed_option_frees_are_spent(change: dict[str, Any]) -> None:
    params = model_params()
    tight: dict[str, Any] = {"max_tier": 1, "rung": "tier1", "state_dtype": "u1+factored"}
    (option,) = change
    optimizer = Cosmic(params, budget="20%", policy="uniform", **{option: tight[option]})
    for step in range(3):
        embedding_like_gradients(params, step)
        optimizer.step()
    before = optimizer.state_bytes()
    optimizer.param_groups[0].update(change)
    embedding_like_gradients(params, 3)
    optimizer.step()
    assert optimizer.state_bytes() > 2 * before


def test_going_back_to_a_checkpoint_repeats_the_bits() -> None:
    """In the same optimizer, from right after a look at the gradients."""
    params = model_params()
    optimizer = budgeted(params, "role")
    embedding_like_gradients(params, 0)
    optimizer.step()
    values = [p.detach().clone() for p in params]
    saved = copy.deepcopy(optimizer.state_dict())
    found = []
    for _ in range(2):
        with torch.no_grad():
            for p, value in zip(params, values, strict=True):
                p.copy_(value)
        optimizer.load_state_dict(saved)
        for step in range(1, 4):
            embedding_like_gradients(params, step)
            optimizer.step()
        found.append(digest(optimizer))
    assert found[0] == found[1]


def test_a_look_survives_a_changed_cadence() -> None:
    params = model_params()
    optimizer = budgeted(params, "role")
    for step in range(6):
        for k, p in enumerate(params):
            p.grad = normal(100 * step + k, *p.shape)
        if step == 4:
            embedding_like_gradients(params, step)
        optimizer.step()
        if step == 4:
            optimizer.reallocate_every = 1
    assert optimizer.tiers()[0].rung == "tier2:u4+v4"


def test_a_gradient_of_zeros_at_a_look_changes_nothing() -> None:
    params = model_params()
    optimizer = Cosmic(params, **UNUSUAL, budget="6%", policy="role", reallocate_every=1)
    embedding_like_gradients(params, 0)
    optimizer.step()
    embedding_like_gradients(params, 1)
    optimizer.step()
    before = [info.rung for info in optimizer.tiers()]
    for p in params:
        p.grad = torch.zeros_like(p)
    optimizer.step()
    embedding_like_gradients(params, 2)
    optimizer.step()
    assert [info.rung for info in optimizer.tiers()] == before


def of_f64(signal: float) -> torch.Tensor:
    return torch.tensor(signal, dtype=torch.float64)


@pytest.mark.parametrize(
    ("signal", "expected"),
    [
        (of_f64(float("nan")), "expected a number >= 0"), (of_f64(-1.0), "expected a number >= 0"),
        ("a", "expected a tensor of torch.float64"), (0.5, "expected a tensor of torch.float64"),
        (torch.tensor(0.5, dtype=torch.float16), "needs torch.float64 and shape ()"),
    ],
    ids=repr,
)  # fmt: skip
def test_a_checkpoint_with_a_spoiled_signal_is_refused(signal: object, expected: str) -> None:
    params = model_params()
    optimizer = budgeted(params, "signal")
    embedding_like_gradients(params, 0)
    optimizer.step()
    saved = copy.deepcopy(optimizer.state_dict())
    saved["state"][0][SIGNAL] = signal
    with refused(optimizer, ValueError, "parameter 0 ", f"has {SIGNAL} ", expected):
        optimizer.load_state_dict(saved)


@pytest.mark.parametrize("role", ["matrices", "table", 3, -1, None, True, ROLES.index("vector")])
def test_a_checkpoint_with_an_unknown_role_is_refused(role: Any) -> None:
    params = model_params()
    optimizer = budgeted(params, "role")
    embedding_like_gradients(params, 0)
    optimizer.step()
    saved = optimizer.state_dict()
    saved["state"][0][ROLE] = role
    expected = rf"parameter 0 .*has {ROLE} .*expected 0 \(table\) or 1 \(matrix\)"
    with pytest.raises(ValueError, match=expected):
        optimizer.load_state_dict(saved)
