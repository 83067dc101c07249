"""Option `lr_scale`: a factor on the learning rate, by group, by role, or the policy's own."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler, OneCycleLR

from backward_steps import in_backward, params_of
from cosmic import Cosmic, _core
from cosmic.logging import EventLog
from helpers import UNUSUAL, digest, parameters, refused, same_bits, take_steps, through_a_file
from scenarios import SCENARIOS, make, run, steps_of

#: A table, two hidden matrices and a vector, by shape.
SHAPES = ((600, 40), (64, 40), (40, 64), (40,))
ROLES = ("table", "matrix", "matrix", "vector")
FACTOR = 0.37


def made(**options: Any) -> Cosmic:
    return Cosmic(parameters(*SHAPES), **{**UNUSUAL, **options})


def stepped(optimizer: Cosmic, steps: int = 4) -> Cosmic:
    take_steps(optimizer, 0, steps)
    return optimizer


def same(one: Cosmic, other: Cosmic) -> bool:
    """Of parameters alone: states may differ in what a budget notes down."""
    return all(same_bits(p, q) for p, q in zip(params_of(one), params_of(other), strict=True))


# ---- it is a factor on the learning rate, bit for bit -------------------------------------------


def one_of_each_rule() -> list[str]:
    """A row of the table of combinations for each rule, arithmetic and codec of the first moment,
    and every other scenario."""
    rows = {tuple(name.split()[:3]): name for name in _core.combinations()}
    return [*rows.values(), *(name for name in SCENARIOS if name not in _core.combinations())]


def scaled(scenario: str, factor: float, *, by_rate: bool) -> Cosmic:
    optimizer = make(scenario, split=2)
    for group in optimizer.param_groups:
        group["lr_scale"] = 1.0 if by_rate else factor
        group["lr"] = group["lr"] * factor if by_rate else group["lr"]
    return optimizer


@pytest.mark.parametrize("scenario", one_of_each_rule())
def test_it_is_as_that_learning_rate(scenario: str) -> None:
    """Of the update and of weight decay, with every rule, codec and gate, and under budgets."""
    last = steps_of(scenario)
    option, rate = (
        run(scaled(scenario, FACTOR, by_rate=by_rate), scenario, 0, last)
        for by_rate in (False, True)
    )
    assert digest(option) == digest(rate)
    one = run(scaled(scenario, 1.0, by_rate=False), scenario, 0, last)
    assert not same(option, one)


@pytest.mark.parametrize("factor", [0, 0.0, 1e-300, 0.5, 1, 3, 7.25])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_any_factor_will_do(factor: float, weight_decay: float) -> None:
    option = stepped(made(lr_scale=factor, weight_decay=weight_decay))
    rate = stepped(made(lr=UNUSUAL["lr"] * factor, weight_decay=weight_decay))
    assert digest(option) == digest(rate)
    if factor == 0:
        assert all(
            same_bits(p, q) for p, q in zip(params_of(option), parameters(*SHAPES), strict=True)
        )


@pytest.mark.parametrize(
    "scenario", ["ordinary", "tier1", "without-momentum", "matrices-in-turn", "bfloat16"]
)
def test_steps_within_backward_are_as_long(scenario: str) -> None:
    last = steps_of(scenario)
    ordinary = run(scaled(scenario, FACTOR, by_rate=False), scenario, 0, last)
    within = in_backward(scaled(scenario, FACTOR, by_rate=False), scenario, 0, last)
    assert digest(within) == digest(ordinary)


def test_a_learning_rate_in_a_tensor_is_scaled_too() -> None:
    option, rate = made(lr=torch.tensor(0.25), lr_scale=0.5), made(lr=0.125)
    assert digest(stepped(option)) == digest(stepped(rate))
    assert float(option.param_groups[0]["lr"]) == 0.25


def test_a_group_s_own_is_of_that_group() -> None:
    params = parameters(*SHAPES)
    groups: list[dict[str, Any]] = [
        {"params": params[:1]}, {"params": params[1:3], "lr_scale": 3.0},
        {"params": params[3:], "lr_scale": None},
    ]  # fmt: skip
    optimizer = Cosmic(groups, lr_scale=0.5, **UNUSUAL)
    assert [g["lr_scale"] for g in optimizer.param_groups] == [0.5, 3.0, None]
    twin = Cosmic([{"params": group["params"]} for group in as_groups()], **UNUSUAL)
    for group, factor in zip(twin.param_groups, (0.5, 3.0, 3.0, 1.0), strict=True):
        group["lr"] *= factor
    assert same(stepped(optimizer), stepped(twin))
    assert made().param_groups[0]["lr_scale"] is None


def as_groups() -> list[dict[str, Any]]:
    return [{"params": [p]} for p in parameters(*SHAPES)]


# ---- by role ------------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", [None, 0, "3%", "100%"])
@pytest.mark.parametrize(
    "factors",
    [
        {"table": 3.0, "matrix": 0.5, "vector": 0.25}, {"table": 3.0}, {"matrix": 0.5},
        {"vector": 2}, {},
    ],
    ids=str,
)  # fmt: skip
def test_by_role_it_is_the_factor_of_each_tensor_s_role(
    factors: dict[str, float], budget: int | str | None
) -> None:
    optimizer = made(lr_scale=factors, budget=budget)
    twin = Cosmic(as_groups(), budget=budget, lr_scale=1.0, **UNUSUAL)
    for group, role in zip(twin.param_groups, ROLES, strict=True):
        group["lr"] *= factors.get(role, 1.0)
    assert same(stepped(optimizer), stepped(twin))


def test_a_role_that_the_group_gives_is_the_one_that_counts() -> None:
    optimizer = made(role="vector", lr_scale={"vector": 0.5, "table": 9.0, "matrix": 9.0})
    twin = made(role="vector", lr=UNUSUAL["lr"] * 0.5)
    assert digest(stepped(optimizer)) == digest(stepped(twin))


# ---- the policy's own ---------------------------------------------------------------------------


def test_a_budget_s_policy_has_factors_for_what_it_chooses() -> None:
    for budget in (0, "3%", "100%"):
        default, given = made(budget=budget), made(budget=budget, lr_scale={"table": 3.0})
        assert digest(stepped(default)) == digest(stepped(given))
        assert not same(default, stepped(made(budget=budget, lr_scale=1.0)))
        assert default.param_groups[0]["lr_scale"] is None, "the option is the user's"


@pytest.mark.parametrize("policy", ["role", "uniform", "signal"])
def test_other_policies_have_none(policy: str) -> None:
    options = {"budget": "3%", "policy": policy}
    assert digest(stepped(made(**options))) == digest(stepped(made(**options, lr_scale=1.0)))


@pytest.mark.parametrize("options", [{}, {"tier": 1}, {"max_tier": 1}, {"matrix_rule": "muon"}])
def test_without_a_budget_the_policy_s_factors_are_not_applied(options: dict[str, Any]) -> None:
    assert digest(stepped(made(**options))) == digest(stepped(made(**options, lr_scale=1.0)))


@pytest.mark.parametrize(
    "options", [{"tier": 2}, {"tier": 1}, {"tier": 0}, {"rung": "tier2:u4+v4"}, {"max_tier": 0}]
)
def test_rungs_that_the_budget_does_not_choose_are_not_scaled(options: dict[str, Any]) -> None:
    """What a group fixes, it has tuned its learning rate for."""
    groups = [[{**group, **options} for group in as_groups()] for _ in range(2)]
    fixed, one = (
        Cosmic(groups[k], budget="200%", lr_scale=scale, **UNUSUAL)
        for k, scale in enumerate((None, 1.0))
    )
    assert digest(stepped(fixed)) == digest(stepped(one))


def test_a_fixed_table_beside_free_ones_is_not_scaled() -> None:
    def mixed(scale: float | None) -> Cosmic:
        fixed, free = (parameters((600, 40)) for _ in range(2))
        groups: list[dict[str, Any]] = [
            {"params": fixed, "rung": "tier1:factored"},
            {"params": [*free, *parameters((64, 40), (40, 64))]},
        ]
        return stepped(Cosmic(groups, budget="50%", lr_scale=scale, **UNUSUAL))

    default, one = params_of(mixed(None)), params_of(mixed(1.0))
    assert [same_bits(p, q) for p, q in zip(default, one, strict=True)] == [True, False, True, True]


# ---- beside schedulers, and in what is told -----------------------------------------------------


@pytest.mark.parametrize(
    "schedule",
    [
        lambda o: LambdaLR(o, lambda step: 1 / (1 + step)),
        lambda o: CosineAnnealingLR(o, T_max=7),
    ],
    ids=["lambda", "cosine"],
)
def test_schedulers_turn_the_learning_rate_and_leave_it(
    schedule: Callable[[Cosmic], LRScheduler],
) -> None:
    option, rate = made(lr_scale=0.5), made(lr=UNUSUAL["lr"] * 0.5)
    schedulers = schedule(option), schedule(rate)
    for step in range(6):
        for one, scheduler in zip((option, rate), schedulers, strict=True):
            take_steps(one, step, step + 1)
            scheduler.step()
        assert option.param_groups[0]["lr"] == 2 * rate.param_groups[0]["lr"]
        assert option.param_groups[0]["lr_scale"] == 0.5
    assert digest(option) == digest(rate)


def test_one_cycle_ends_where_it_would() -> None:
    option, plain = made(lr_scale={"table": 0.25}), torch.optim.AdamW(parameters(*SHAPES))
    rates = []
    for optimizer in (option, plain):
        scheduler = OneCycleLR(optimizer, max_lr=0.1, total_steps=5)
        seen = []
        for step in range(4):
            for p in parameters(*SHAPES):
                assert p.grad is None
            take_steps(optimizer, step, step + 1)  # type: ignore[arg-type]
            scheduler.step()
            seen.append(optimizer.param_groups[0]["lr"])
        rates.append(seen)
    assert rates[0] == rates[1]
    assert option.param_groups[0]["lr_scale"] == {"table": 0.25}


@pytest.mark.parametrize("options", [{}, {"tier": 0}, {"tier": 1}, {"rung": "tier1:factored"},
                                     {"matrix_rule": "muon"}], ids=str)  # fmt: skip
def test_the_length_of_updates_is_told_before_it(options: dict[str, Any]) -> None:
    """As before the learning rate."""
    option, rate, one = made(lr_scale=5.0, **options), made(lr=0.9, **options), made(**options)
    for optimizer in (option, rate, one):
        stepped(optimizer)
    assert option.stats() == one.stats() == rate.stats()
    assert one.stats()[0]["update_rms"] > 0


def test_a_log_says_it(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    with EventLog(path).attach(made(lr_scale={"table": 3.0})):
        pass
    assert '"lr_scale": {"table": 3.0}' in path.read_text(encoding="utf-8")


# ---- changes between steps ----------------------------------------------------------------------


def assign(optimizer: Cosmic, factor: float) -> None:
    optimizer.param_groups[0]["lr_scale"] = factor


def assign_by_role(optimizer: Cosmic, factor: float) -> None:
    optimizer.param_groups[0]["lr_scale"] = dict.fromkeys(("table", "matrix", "vector"), factor)


def change_in_place(optimizer: Cosmic, factor: float) -> None:
    held = optimizer.param_groups[0]["lr_scale"]
    held.update(dict.fromkeys(("table", "matrix", "vector"), factor))


@pytest.mark.parametrize("change", [assign, assign_by_role, change_in_place])
@pytest.mark.parametrize("budget", [None, "5%"])
def test_what_changes_between_steps_takes_effect_at_the_next(
    budget: str | None, change: Callable[[Cosmic, float], None]
) -> None:
    optimizer = made(lr_scale={"table": 1.0}, budget=budget)
    twin = made(lr_scale=1.0, budget=budget)
    for step, factor in enumerate((None, 0.5, 0.5, 4.0, 0.0)):
        if factor is not None:
            change(optimizer, factor)
            twin.param_groups[0]["lr"] = UNUSUAL["lr"] * factor
        take_steps(optimizer, step, step + 1)
        take_steps(twin, step, step + 1)
        assert digest(optimizer) == digest(twin), step


# ---- checkpoints --------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [None, 0.5, 2, {"table": 3.0, "vector": 0}, {}], ids=str)
def test_it_survives_a_checkpoint_a_copy_and_a_pickle(scale: Any) -> None:
    straight, before = made(lr_scale=scale), made(lr_scale=scale)
    stepped(before, 2)
    after = made(lr_scale=7.0)
    after.load_state_dict(through_a_file(before.state_dict()))
    with torch.no_grad():
        for p, q in zip(params_of(after), params_of(before), strict=True):
            p.copy_(q)
    others = copy.deepcopy(before), pickle.loads(pickle.dumps(before))
    stepped(straight)
    for optimizer in (after, *others):
        held = optimizer.param_groups[0]["lr_scale"]
        assert held == scale and type(held) is type(scale)
        take_steps(optimizer, 2, 4)
        assert digest(optimizer) == digest(straight)


@pytest.mark.parametrize("scale", [None, 0.5, {"table": 3.0}], ids=str)
def test_a_checkpoint_that_lacks_it_leaves_the_optimizer_s(scale: Any) -> None:
    before = stepped(made(), 2)
    saved = through_a_file(before.state_dict())
    for group in saved["param_groups"]:
        del group["lr_scale"]
    after = made(lr_scale=scale)
    after.load_state_dict(saved)
    assert after.param_groups[0]["lr_scale"] == scale
    with torch.no_grad():
        for p, q in zip(params_of(after), params_of(before), strict=True):
            p.copy_(q)
    before.param_groups[0]["lr_scale"] = scale
    for optimizer in (before, after):
        take_steps(optimizer, 2, 4)
    assert digest(before) == digest(after)


# ---- mistakes -----------------------------------------------------------------------------------

BAD: list[Any] = [
    -1.0, -1e-300, math.nan, math.inf, -math.inf, True, False, "3", 10**400, [1.0], (1.0,),
    torch.tensor(0.5), {"table": -1.0}, {"table": math.nan}, {"table": math.inf}, {"table": True},
    {"table": None}, {"table": "3"}, {"tables": 3.0}, {"head": 3.0}, {None: 1.0},
    {"table": 1.0, 3: 1.0}, {"matrix": {"table": 1.0}},
]  # fmt: skip


@pytest.mark.parametrize("bad", BAD, ids=str)
def test_what_is_no_factor_is_refused_with_what_is(bad: Any) -> None:
    fragments = (
        "param_groups[0]['lr_scale'] is ", repr(bad), "expected None, a finite number >= 0",
        "'table', 'matrix', 'vector'",
    )  # fmt: skip
    with pytest.raises(ValueError) as caught:
        made(lr_scale=bad)
    assert all(fragment in str(caught.value) for fragment in fragments)
    optimizer = stepped(made())
    optimizer.param_groups[0]["lr_scale"] = bad
    with refused(optimizer, ValueError, *fragments):
        optimizer.step()


def test_a_group_that_is_refused_is_not_added() -> None:
    optimizer = made()
    with pytest.raises(ValueError, match=r"param_groups\[1\]\['lr_scale'\] is -3"):
        optimizer.add_param_group({"params": parameters((3,)), "lr_scale": -3})
    assert len(optimizer.param_groups) == 1


def test_one_that_was_removed_is_named() -> None:
    optimizer = stepped(made())
    del optimizer.param_groups[0]["lr_scale"]
    with refused(optimizer, ValueError, "param_groups[0] has no 'lr_scale'; was it removed?"):
        optimizer.step()
