"""The policy that users get: what it buys first, what it leaves, and what it says of that."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from backward_steps import give, normal_gradients, params_of
from cosmic import Candidate, Cosmic, Rung, estimate_memory
from cosmic.capital.allocation import allocate
from cosmic.capital.calibrated import MOST_SIDE, CalibratedPolicy, worth
from cosmic.capital.named import DEFAULT_POLICY, policy_named
from cosmic.rungs import Geometry, combinations
from cosmic.state.roles import Role
from helpers import UNUSUAL, digest, normal, parameters, same_bits, take_steps, through_a_file

CONFIG = transformers.GPT2Config(
    vocab_size=800, n_positions=40, n_embd=64, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0
)
#: An embedding, layers as of a transformer, and a norm and a bias, by shape alone.
BARE = ((2000, 64), (64, 192), (64, 64), (64, 256), (256, 64), (64,), (256,))
BEST = {"table": "tier2:u4+v4", "matrix": "tier1:muon", "vector": "tier2:fp32+fp32"}
#: Budgets from nothing to more than the policy takes.
BUDGETS: tuple[int, ...] = (*range(0, 4000, 97), *range(4000, 200_000, 1300))


def bare(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float32) -> nn.Module:
    """Tensors without names, which take no memory."""
    made = [torch.zeros(s, dtype=dtype, device="meta") for s in shapes or BARE]
    return nn.ParameterList([nn.Parameter(t) for t in made])


def bought(model: Any, budget: int | str | None, **options: Any) -> dict[str, tuple[str, str]]:
    """Role and rung of each tensor by its name."""
    found = estimate_memory(model, budget, **options).tensors
    return {t.name.removeprefix("transformer."): (t.role, t.rung) for t in found}


def rungs(model: Any, budget: int | str | None, **options: Any) -> list[str]:
    return [rung for _, rung in bought(model, budget, **options).values()]


def gpt2() -> nn.Module:
    """A language model in small, with its names, which takes no memory."""
    with torch.device("meta"):
        model: nn.Module = transformers.GPT2LMHeadModel(CONFIG)
    return model


def lives(model: nn.Module, **options: Any) -> dict[str, list[str]]:
    """The rungs of each tensor, by its name, as the budget grows."""
    seen = [bought(model, budget, **options) for budget in BUDGETS]
    return {name: [row[name][1] for row in seen] for name in seen[0]}


def firmly(life: list[str], rung: str, role: Role) -> int:
    """The least budget from which on a tensor has a rung or one of more worth."""
    has = [worth(Rung.parse(name), role) >= worth(Rung.parse(rung), role) for name in life]
    first = len(has) - has[::-1].index(False)
    assert first < len(has), f"never has {rung}"
    return BUDGETS[first]


def test_it_is_what_users_get() -> None:
    assert DEFAULT_POLICY == "calibrated"
    assert isinstance(policy_named("calibrated"), CalibratedPolicy)
    assert Cosmic(parameters((3,))).policy == "calibrated"
    found = rungs(gpt2(), "5%")
    assert found == rungs(gpt2(), "5%", policy=CalibratedPolicy())
    assert found != rungs(gpt2(), "5%", policy="role")


# ---- the order in which bytes are spent ---------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "names"),
    [
        (gpt2(), ["h.0.attn.c_attn.weight", "h.1.mlp.c_proj.weight", "wte.weight", "ln_f.weight"]),
        (bare(), ["1", "4", "0", "5"]),
    ],
    ids=["gpt2", "bare"],
)
def test_whole_matrices_then_a_second_moment_for_tables_then_history_for_vectors(
    model: Any, names: list[str]
) -> None:
    first, last, table, vector = (lives(model)[name] for name in names)
    whole = max(firmly(first, "tier1:muon", "matrix"), firmly(last, "tier1:muon", "matrix"))
    second = firmly(table, "tier1:factored", "table")
    history = firmly(vector, "tier2:fp32+fp32", "vector")
    assert whole < second < history < firmly(table, "tier2:u4+v4", "table")
    assert set(first) | set(last) == {"tier0", "tier1:muon"}
    assert set(table) == {"tier0", "tier1", "tier1:factored", "tier2:u4+v4"}


def test_hidden_matrices_cost_a_count_and_come_before_everything_else() -> None:
    assert rungs(bare(), 8 * 4) == ["tier0", *["tier1:muon"] * 4, "tier0", "tier0"]
    few = rungs(bare(), 8 * 2)
    assert sorted(few) == ["tier0"] * 5 + ["tier1:muon"] * 2
    assert few[3] == few[4] == "tier1:muon", "the larger ones first"


def test_a_matrix_that_no_rule_steps_has_a_second_moment_before_a_first() -> None:
    """Positions, which are no hidden matrix, and all matrices where the rule is forbidden."""
    seen = lives(gpt2())["wpe.weight"]
    steps = ["tier1:factored", "tier2:q8+factored", "tier2:fp32+fp32"]
    firsts = [seen.index(rung) for rung in steps]
    assert firsts == sorted(firsts)
    assert set(seen) <= {"tier0", "tier1", *steps, "tier2:bf16+bf16"}, "no fewer bits than 8"
    off = lives(gpt2(), matrix_rule="off")
    assert not any("muon" in rung for life in off.values() for rung in life)
    for name in ("h.0.attn.c_attn.weight", "h.1.mlp.c_fc.weight"):
        assert off[name].index("tier1:factored") < off[name].index("tier2:q8+factored")


def test_vectors_have_more_history_for_more_bytes() -> None:
    seen = [Rung.parse(name) for name in lives(bare())["6"]]
    bits = [{"none": 0, "u4": 4, "q8": 8, "bf16": 16, "fp32": 32}[rung.m] for rung in seen]
    assert {0, 4, 8, 32} <= set(bits)
    worths = [worth(rung, "vector") for rung in seen[: BUDGETS.index(3880)]]
    assert worths == sorted(worths), "up to where the table can have its second moment"
    assert bits[-1] == 32


@pytest.mark.parametrize("model", [gpt2(), bare()], ids=["gpt2", "bare"])
def test_it_leaves_what_would_bring_nothing(model: Any) -> None:
    most = estimate_memory(model, "100%")
    assert most.state_bytes < 0.2 * most.adamw_bytes
    assert estimate_memory(model, "300%").state_bytes == most.state_bytes
    assert estimate_memory(model, most.state_bytes).tensors == most.tensors
    for name, (role, rung) in bought(model, "100%").items():
        assert rung == ("tier2:fp32+fp32" if name == "wpe.weight" else BEST[role]), name


def test_q8_with_rows_and_columns_is_a_rung_of_any_policy_s_ladder() -> None:
    ladders: list[tuple[Rung, ...]] = []

    class Watching:
        name, uses_signal = "watching", False

        def worths(self, candidates: Sequence[Candidate]) -> list[list[float]]:
            ladders.extend(c.ladder for c in candidates)
            return [[0.0] * len(c.ladder) for c in candidates]

    estimate_memory(bare((64, 64)), "50%", policy=Watching())
    (ladder,) = ladders
    at = ladder.index(Rung.parse("tier2:q8+factored"))
    prices = [rung.nbytes(Geometry(4096, (64, 64), (64, 64), 2)) for rung in ladder]
    assert prices == sorted(prices)
    assert 0 < at < ladder.index(Rung.parse("tier2:bf16+bf16"))


# ---- who steps hidden matrices ------------------------------------------------------------------


def matrix_rung(budget: int | str | None = "200%", **options: Any) -> str:
    """Of the second of three hidden matrices in a row."""
    dtype = options.pop("dtype", torch.float32)
    model = bare((64, 64), (64, 64), (64, 64), dtype=dtype)
    role = options.pop("role", None)
    return rungs(model, budget, groups=of_role(model, role), **options)[1]


def of_role(model: nn.Module, role: str | None) -> list[dict[str, Any]]:
    return [{"params": list(model.named_parameters()), "role": role}]


@pytest.mark.parametrize(
    "options",
    [
        {}, {"gate": "snr"}, {"min_tier": 1}, {"max_tier": 1}, {"max_tier": 2}, {"role": "matrix"},
        {"min_compress_size": 10**6}, {"exact": True, "gate": "snr"}, {"lr_scale": 2.0},
        {"dtype": torch.bfloat16}, {"dtype": torch.float16}, {"matrix_state_dtype": "none"},
    ],
    ids=str,
)  # fmt: skip
def test_hidden_matrices_are_stepped_as_a_whole(options: dict[str, Any]) -> None:
    assert matrix_rung(**options) == "tier1:muon"


@pytest.mark.parametrize(
    "options",
    [
        {"matrix_rule": "off"}, {"rung": "tier2:u4+factored"}, {"rung": "tier1:factored"},
        {"tier": 2}, {"tier": 1}, {"tier": 0}, {"state_dtype": "u4+factored"},
        {"state_dtype": "fp32"}, {"beta_slow": 0.99}, {"min_tier": 2}, {"gate": "agar"},
        {"max_tier": 0}, {"role": "head"}, {"role": "bias"}, {"role": "position"},
        {"dtype": torch.float64}, {"dtype": torch.complex64}, {"policy": "role"},
        {"policy": "uniform"}, {"policy": "signal"},
    ],
    ids=str,
)  # fmt: skip
def test_options_that_ask_for_something_else_get_it(options: dict[str, Any]) -> None:
    for budget in ("60%", "200%") if {"rung", "tier"} & set(options) else ("3%", "20%", "200%"):
        if not ("min_tier" in options and budget == "3%"):  # less than it asks for
            assert "muon" not in matrix_rung(budget, **options)
    if "rung" in options:
        assert matrix_rung(**options) == options["rung"]
    if "tier" in options:
        assert Rung.parse(matrix_rung(**options)).tier == options["tier"]
    if "min_tier" in options:
        assert Rung.parse(matrix_rung(**options)).tier == 2
    if options.get("gate") == "agar":
        assert matrix_rung(**options).endswith("+centered")


def test_a_group_s_option_is_of_that_group_alone() -> None:
    params = parameters((64, 64), (64, 64), (64, 64))
    groups: list[dict[str, Any]] = [
        {"params": params[:1], "matrix_rule": "off"}, {"params": params[1:]},
    ]  # fmt: skip
    optimizer = Cosmic(groups, budget="200%")
    take_steps(optimizer, 0, 1)
    assert [info.rung for info in optimizer.tiers()] == [
        "tier2:fp32+fp32", "tier1:muon", "tier1:muon",
    ]  # fmt: skip
    optimizer.param_groups[0]["matrix_rule"] = None
    optimizer.param_groups[1]["matrix_rule"] = "off"
    take_steps(optimizer, 1, 2)
    assert [info.rung for info in optimizer.tiers()] == [
        "tier1:muon", "tier2:fp32+fp32", "tier2:fp32+fp32",
    ]  # fmt: skip


def test_without_a_budget_no_rule_is_chosen() -> None:
    assert matrix_rung(None) == "tier2:u4+factored"


def test_a_rule_that_the_group_asks_for_stays_its_rule() -> None:
    assert matrix_rung(matrix_rule="muon") == "tier1:muon"
    assert matrix_rung(matrix_rule="muon", min_tier=2) == "tier2:muon:m1", "the least of its rungs"
    assert matrix_rung(matrix_rule="muon", matrix_state_dtype="m4", min_tier=2) == "tier2:muon:m4"


def test_a_role_that_a_group_gives_decides() -> None:
    params = parameters((2000, 64), (64, 64), (64, 64))
    roles = ("matrix", "head", "convolution")
    groups = [{"params": [p], "role": role} for p, role in zip(params, roles, strict=True)]
    optimizer = Cosmic(groups, budget="100%")
    take_steps(optimizer, 0, 1)
    assert [info.rung for info in optimizer.tiers()] == ["tier1:muon", "tier2:u4+v4", "tier1:muon"]


@pytest.mark.parametrize(
    ("sides", "whole"),
    [
        ((MOST_SIDE, MOST_SIDE), True), ((MOST_SIDE + 1, MOST_SIDE + 1), False),
        ((MOST_SIDE, 4 * MOST_SIDE), True), ((4 * MOST_SIDE, MOST_SIDE), True),
        ((MOST_SIDE + 1, 4 * MOST_SIDE), False), ((4 * MOST_SIDE, MOST_SIDE + 1), False),
    ],
)  # fmt: skip
def test_the_shorter_side_says_whether_it_takes_too_long(
    sides: tuple[int, int], whole: bool
) -> None:
    assert CalibratedPolicy().matrix_rule(sides) == ("muon" if whole else None)
    model = bare(sides)
    groups = of_role(model, "matrix")
    best = "tier1:muon" if whole else "tier2:fp32+fp32"
    assert rungs(model, "200%", groups=groups) == [best]
    assert rungs(model, "200%", groups=groups, matrix_rule="muon") == ["tier1:muon"], "as asked for"


@dataclass(frozen=True)
class Own:
    """A policy that has the two members that policies may have, and says nothing of why."""

    name: str = "own"
    uses_signal: bool = False
    lr_scale: Mapping[str, float] = field(default_factory=lambda: {"matrix": 0.25})

    def matrix_rule(self, sides: tuple[int, int]) -> str | None:
        return "muon" if sides[0] == 64 else None

    def worths(self, candidates: Sequence[Candidate]) -> list[list[float]]:
        return [[float(rung.of_matrix) for rung in c.ladder] for c in candidates]


def test_a_policy_of_ones_own_may_choose_a_rule_and_factors() -> None:
    optimizer, twin = (
        Cosmic(parameters((64, 128), (128, 64), (64,)), budget="5%", **UNUSUAL, **options)
        for options in ({"policy": Own()}, {"policy": Own(), "lr_scale": {"matrix": 0.25}})
    )
    for one in (optimizer, twin):
        take_steps(one, 0, 3)
    assert [info.rung for info in optimizer.tiers()] == ["tier1:muon", "tier0", "tier0"]
    assert digest(optimizer) == digest(twin)
    assert [info.why for info in optimizer.tiers()] == [
        "policy 'own'; learning rate times 0.25", "policy 'own'; learning rate times 0.25",
        "policy 'own'",
    ]  # fmt: skip


# ---- worths and budgets in general --------------------------------------------------------------

HISTORIES = [f"tier2:{m}+{v}" for m, v in combinations()]


@pytest.mark.parametrize("role", ["table", "matrix", "vector"])
def test_a_worth_is_of_every_rung_and_no_tier_is_worth_less_than_a_sign(role: Role) -> None:
    names = ["tier1", "tier1:factored", "tier1:v4", *HISTORIES, "tier2:muon:m1", "tier1:muon"]
    assert worth(Rung(0), role) == 0
    assert all(0 < worth(Rung.parse(name), role) < 1.01 for name in names)
    whole = worth(Rung.parse("tier1:muon"), role)
    assert worth(Rung.parse("tier2:muon:fp32"), role) == whole, "momentum adds nothing"
    assert whole > worth(Rung.parse("tier2:fp32+fp32"), "matrix")
    plain = worth(Rung.parse("tier1:factored"), role)
    for history in ("tier2:u1+factored", "tier2:u2+v4", "tier2:u4+factored", "tier2:q8+factored"):
        assert worth(Rung.parse(history), role) >= plain


shapes = st.lists(
    st.sampled_from([(2000, 64), (64, 64), (64, 192), (70, 33), (5, 8, 9), (300,), (64,), (7,)]),
    min_size=1,
    max_size=7,
)
options = st.sampled_from(
    [{}, {"matrix_rule": "off"}, {"gate": "snr"}, {"max_tier": 1}, {"state_dtype": "q8+factored"}]
)


def total(model: nn.Module, budget: int, options: dict[str, Any]) -> tuple[float, int]:
    """What all rungs are worth together, and what they cost."""
    estimate = estimate_memory(model, budget, **options)
    sizes = [torch.Size(t.shape).numel() for t in estimate.tensors]
    pairs = zip(sizes, estimate.tensors, strict=True)
    worths = [n * worth(Rung.parse(t.rung), t.role) for n, t in pairs]  # type: ignore[arg-type]
    return sum(worths), estimate.state_bytes


@settings(max_examples=60, deadline=None)
@given(shapes=shapes, options=options, steps=st.lists(st.integers(0, 30_000), max_size=5))
def test_more_bytes_never_bring_less_and_no_budget_is_exceeded(
    shapes: list[tuple[int, ...]], options: dict[str, Any], steps: list[int]
) -> None:
    model, floor = bare(*shapes), 32 * len(shapes) if "gate" in options else 0
    budgets = [floor, *(floor + sum(steps[: k + 1]) for k in range(len(steps)))]
    found = [total(model, budget, options) for budget in budgets]
    assert all(cost <= budget for (_, cost), budget in zip(found, budgets, strict=True))
    assert all(more >= less * (1 - 1e-12) for (less, _), (more, _) in pairwise(found))


@settings(max_examples=40, deadline=None)
@given(role=st.sampled_from(["table", "matrix", "vector"]), steps=st.lists(st.integers(0, 9000)))
def test_more_bytes_never_give_a_tensor_a_rung_of_less_worth(role: Role, steps: list[int]) -> None:
    ladder = tuple(Rung.parse(n) for n in ("tier0", "tier1", "tier1:factored", *HISTORIES))
    candidate = Candidate(0, 64 * 64, ladder, None, role, 0.0, (64, 64), dims=2)
    ladder = tuple(sorted(ladder, key=candidate.price))
    candidate = Candidate(0, 64 * 64, ladder, None, role, 0.0, (64, 64), dims=2)
    budgets = [sum(steps[:k]) for k in range(len(steps) + 1)]
    chosen = [allocate(CalibratedPolicy(), [candidate], budget)[0] for budget in budgets]
    assert all(candidate.price(r) <= b for r, b in zip(chosen, budgets, strict=True))
    worths = [worth(rung, role) for rung in chosen]
    assert worths == sorted(worths)


# ---- why ----------------------------------------------------------------------------------------


def whys(budget: int | str | None, **options: Any) -> list[str]:
    optimizer = Cosmic(parameters(*BARE), budget=budget, **options)
    take_steps(optimizer, 0, 1)
    return [info.why for info in optimizer.tiers()]


def test_why_names_what_the_next_rung_would_add_and_cost() -> None:
    optimizer = Cosmic(parameters(*BARE), budget=60)
    take_steps(optimizer, 0, 1)
    table = Geometry.of(parameters((2000, 64))[0])
    price = Rung.parse("tier1:factored").nbytes(table)
    told = {info.name: (info.rung, info.why) for info in optimizer.tiers()}
    assert told["0"] == (
        "tier1",
        f"table: worth 0.02 an element; tier1:factored would add 0.98 for {price - 24:,} bytes "
        "more; learning rate times 3",
    )
    assert told["1"] == ("tier1:muon", "matrix: worth 1 an element, as much as any rung's")
    assert told["5"] == (
        "tier0",
        "vector: worth 0 an element; tier1 would add 0.5 for 24 bytes more",
    )


def test_why_says_where_nothing_is_left_to_want() -> None:
    table, *others = whys("100%")
    assert table == ("table: worth 1.004 an element, as much as any rung's; learning rate times 3")
    assert others[0] == "matrix: worth 1 an element, as much as any rung's"
    assert others[-1] == "vector: worth 1 an element, as much as any rung's"


def test_why_of_matrices_that_no_rule_steps() -> None:
    matrix = whys("1%", matrix_rule="off")[1]
    found = re.fullmatch(
        r"matrix: worth (\S+) an element; (\S+) would add (\S+) for ([\d,]+) bytes more", matrix
    )
    assert found, matrix
    mine, better, gain, dearer = found.groups()
    best = worth(Rung.parse(better), "matrix")
    assert best - float(mine) == pytest.approx(float(gain), rel=0.06)
    assert int(dearer.replace(",", "")) > 0


def test_why_where_the_policy_has_not_chosen() -> None:
    assert set(whys(None)) == {"no budget"}
    assert set(whys(None, lr_scale=0.5)) == {"no budget; learning rate times 0.5"}
    assert set(whys("100%", tier=1)) == {"all that its group's options leave"}
    assert set(whys("100%", policy="role")) == {"policy 'role'"}


def test_why_goes_to_listeners_of_allocations_and_transitions() -> None:
    optimizer = Cosmic(parameters(*BARE), budget="100%")
    told: list[tuple[str, dict[str, Any]]] = []
    optimizer.add_listener(lambda event, fields: told.append((event, fields)))
    take_steps(optimizer, 0, 1)
    table = {info.name: info.why for info in optimizer.tiers()}
    changes = [fields for event, fields in told if event == "transition"]
    (allocation,) = [fields for event, fields in told if event == "allocation"]
    assert {c["name"]: c["why"] for c in changes} == table
    assert {t["name"]: t["why"] for t in allocation["tensors"]} == table
    assert all(table.values())


def test_why_of_a_masked_tensor_says_so() -> None:
    optimizer = Cosmic(
        parameters((64, 64), (64, 64)), budget=9500, reallocate_every=1, matrix_rule="off"
    )
    mask = torch.ones(64, 64)
    mask[(torch.arange(64)[:, None] + torch.arange(64)) % 3 > 0] = 0
    for step in range(3):
        for k, p in enumerate(params_of(optimizer)):
            p.grad = normal(10 * step + k, 64, 64) * mask
        optimizer.step()
    assert all("masked: no rows and columns" in info.why for info in optimizer.tiers())


# ---- steps, checkpoints -------------------------------------------------------------------------


def budgeted(budget: int | str = "3%", **options: Any) -> Cosmic:
    return Cosmic(
        parameters((800, 64), (64, 192), (64, 64), (64, 256), (256, 64), (64,)), budget=budget,
        **{**UNUSUAL, "reallocate_every": 3, **options},
    )  # fmt: skip


@pytest.mark.parametrize("lr_scale", [None, 0.5, {"table": 2.0, "matrix": 0.75}], ids=str)
@pytest.mark.parametrize("budget", [40, 4100, "3%", "60%"])
def test_a_checkpoint_goes_on_with_the_same_bits(budget: int | str, lr_scale: Any) -> None:
    straight, broken = (budgeted(budget, lr_scale=lr_scale) for _ in range(2))
    take_steps(straight, 0, 7)
    assert "tier1:muon" in {info.rung for info in straight.tiers()}
    for step in range(7):
        take_steps(broken, step, step + 1)
        resumed = budgeted(budget, lr_scale=lr_scale)
        resumed.load_state_dict(through_a_file(broken.state_dict()))
        with torch.no_grad():
            for p, q in zip(params_of(resumed), params_of(broken), strict=True):
                p.copy_(q)
        broken = resumed
    assert digest(broken) == digest(straight)


@pytest.mark.parametrize("lr_scale", [None, {"table": 2.0, "matrix": 0.75}], ids=str)
@pytest.mark.parametrize("budget", [40, "3%", "60%"])
def test_steps_within_backward_have_the_same_bits(budget: int | str, lr_scale: Any) -> None:
    ordinary, within = (budgeted(budget, lr_scale=lr_scale) for _ in range(2))
    take_steps(ordinary, 0, 7)
    with within.step_in_backward():
        for step in range(7):
            give(params_of(within), normal_gradients(within, step))
            within.step()
    assert digest(within) == digest(ordinary)
    assert [info.why for info in within.tiers()] == [info.why for info in ordinary.tiers()]


def test_a_checkpoint_of_another_policy_changes_to_it_within_the_budget() -> None:
    before = budgeted(policy="role")
    take_steps(before, 0, 3)
    assert not any("muon" in info.rung for info in before.tiers())
    after = budgeted()
    after.load_state_dict(through_a_file(before.state_dict()))
    limit = after.budget_bytes()
    for step in range(3, 8):
        take_steps(after, step, step + 1)
        assert limit is not None and after.state_bytes() <= limit
    assert [info.rung for info in after.tiers()[1:5]] == ["tier1:muon"] * 4


def test_tables_take_three_times_the_rate_and_others_once() -> None:
    """A sign moves each element by the learning rate times what the tensor's gradient says of it;
    here all gradients are alike, so that the ratio of the steps is the ratio of the rates."""
    optimizer, plain = (
        budgeted(0, lr_scale=scale, weight_decay=0.0, policy=policy)
        for scale, policy in ((None, "calibrated"), (1.0, "calibrated"))
    )
    moved = []
    for one in (optimizer, plain):
        before = [p.detach().clone() for p in params_of(one)]
        take_steps(one, 0, 1)
        moved.append([p.detach() - b for p, b in zip(params_of(one), before, strict=True)])
    for k, (mine, its) in enumerate(zip(*moved, strict=True)):
        if k == 0:
            torch.testing.assert_close(mine, 3 * its, rtol=1e-3, atol=1e-6)
        else:
            assert same_bits(mine, its)
