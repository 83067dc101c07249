"""Group option `role`: what a group's tensors are is not guessed then, and a budget goes by it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from cosmic import Cosmic, estimate_memory, param_groups
from cosmic.cli import main as cli
from cosmic.rungs import Geometry
from cosmic.state.entries import ROLE, role_of
from cosmic.state.roles import KINDS, given_role, is_hidden_matrix, structural_role
from cosmic.state.structure import Structure
from helpers import digest, give_gradients, normal, parameters, refused, take_steps, through_a_file
from role_models import TinyGPT, gpt2

SHAPES = ((600, 32), (64, 64), (64,))  # by shape: a table, a matrix, a vector


def groups(params: list[nn.Parameter], *roles: str | None) -> list[dict[str, Any]]:
    return [{"params": [p], "role": role} for p, role in zip(params, roles, strict=True)]


def made(*roles: str | None, **options: Any) -> Cosmic:
    return Cosmic(groups(parameters(*SHAPES), *roles), **{"budget": "2%", **options})


def params_of(optimizer: Cosmic) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def alone(param: Tensor, name: str = "0") -> Structure:
    """Of an optimizer that has nothing else."""
    return Structure([(name, param)])


def table_like_gradients(optimizer: Cosmic, seed: int) -> None:
    """Of few rows, whatever the tensor."""
    for k, p in enumerate(params_of(optimizer)):
        gradient = 1e-4 * normal(seed + k, *p.shape)
        gradient[:2] *= 1e5
        p.grad = gradient


def roles(optimizer: Cosmic) -> list[str | None]:
    return [info.role for info in optimizer.tiers()]


# ---- what a budget does with it ----------------------------------------------------------------


def test_the_role_is_told_and_the_budget_goes_by_it() -> None:
    plain = made(None, None, None, budget="10%", policy="role")
    turned = made("matrix", "head", "bias", budget="10%", policy="role")
    for optimizer in (plain, turned):
        take_steps(optimizer, 0, 1)
    assert roles(plain) == ["table", "matrix", "vector"]
    assert roles(turned) == ["matrix", "table", "vector"]
    assert [info.tier for info in plain.tiers()][:2] == [2, 1]
    assert [info.tier for info in turned.tiers()][:2] == [1, 2]
    assert turned.state_bytes() <= (turned.budget_bytes() or 0)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_one_of_the_budget_s_roles_or_none(kind: str) -> None:
    plain, optimizer = made(None, None, None), made(kind, kind, kind)
    for one in (plain, optimizer):
        take_steps(one, 0, 1)
    expected = KINDS[kind]
    assert roles(optimizer) == (roles(plain) if expected is None else [expected] * 3)


@pytest.mark.parametrize("in_backward", [False, True])
def test_looks_at_the_gradients_do_not_change_it(in_backward: bool) -> None:
    """Gradients that say the contrary, over several allocations; neither what is found without."""
    plain = made(None, None, None, reallocate_every=1)
    told = made("matrix", "matrix", "vector", reallocate_every=1)
    for optimizer in (plain, told):
        for step in range(3):
            if in_backward:
                with optimizer.step_in_backward():
                    table_like_gradients(optimizer, step)
                    for p in params_of(optimizer):
                        gradient, p.grad = p.grad, None
                        assert gradient is not None
                        torch.autograd.backward((p * gradient).sum())
                    optimizer.step()
            else:
                table_like_gradients(optimizer, step)
                optimizer.step()
    assert roles(plain) == ["table", "matrix", "vector"]
    assert roles(told) == ["matrix", "matrix", "vector"]
    assert not any(ROLE in state for state in told.state.values()), "looks have found nothing"


def test_a_role_that_changes_makes_another_plan_and_none_is_a_guess_again() -> None:
    optimizer = made(None, None, None, policy="role")
    take_steps(optimizer, 0, 2)
    before = [info.rung for info in optimizer.tiers()]
    optimizer.param_groups[0]["role"], optimizer.param_groups[1]["role"] = "matrix", "embedding"
    take_steps(optimizer, 2, 3)
    assert roles(optimizer) == ["matrix", "table", "vector"]
    assert [info.tier for info in optimizer.tiers()][:2] == [1, 2]
    for group in optimizer.param_groups:
        group["role"] = None
    take_steps(optimizer, 3, 4)
    assert roles(optimizer) == ["table", "matrix", "vector"]
    assert [info.rung for info in optimizer.tiers()] == before
    assert [role_of(optimizer.state[p]) for p in params_of(optimizer)] == roles(optimizer)


def test_without_a_budget_it_changes_nothing_but_what_is_told() -> None:
    plain, told = made(None, None, None, budget=None), made("head", "lora_a", "norm", budget=None)
    for optimizer in (plain, told):
        take_steps(optimizer, 0, 3)
    assert digest(plain) == digest(told)
    assert roles(plain) == [None] * 3 and roles(told) == ["table", "matrix", "vector"]


def test_the_constructor_s_is_every_group_s_that_has_none() -> None:
    params = parameters(*SHAPES)
    two: list[dict[str, Any]] = [{"params": params[:1]}, {"params": params[1:], "role": None}]
    optimizer = Cosmic(two, budget="2%", role="matrix")
    assert [group["role"] for group in optimizer.param_groups] == ["matrix", None]
    assert Cosmic(params).param_groups[0]["role"] is None


def test_a_whole_model_s_groups() -> None:
    model = TinyGPT()
    optimizer = Cosmic(param_groups(model), budget="3%")
    give_gradients(model.parameters(), 0)
    optimizer.step()
    held = {info.name: info.role for info in optimizer.tiers()}
    assert held["wte.weight"] == held["out.weight"] == "table"
    assert held["wpe.weight"] == "matrix", "gradients reach all of its rows"
    assert held["blocks.0.fc_in.weight"] == "matrix" and held["ln_f.weight"] == "vector"


# ---- checkpoints -------------------------------------------------------------------------------


def test_it_survives_a_checkpoint_a_copy_and_a_pickle() -> None:
    kinds = ("matrix", "head", "convolution")
    straight, before = made(*kinds), made(*kinds)
    take_steps(before, 0, 2)
    after = made(None, None, None)
    after.load_state_dict(through_a_file(before.state_dict()))
    with torch.no_grad():
        for p, q in zip(params_of(after), params_of(before), strict=True):
            p.copy_(q)
    assert [group["role"] for group in after.param_groups] == list(kinds)
    copied = copy.deepcopy(before)
    take_steps(straight, 0, 4)
    for optimizer in (after, copied):
        take_steps(optimizer, 2, 4)
        assert digest(optimizer) == digest(straight)
        assert roles(optimizer) == ["matrix", "table", "matrix"]


def test_a_checkpoint_of_before_leaves_it_as_the_groups_have_it() -> None:
    before = made(None, None, None)
    take_steps(before, 0, 2)
    saved = before.state_dict()
    for group in saved["param_groups"]:
        del group["role"]
    after = made("matrix", "head", "bias")
    after.load_state_dict(saved)
    take_steps(after, 2, 3)
    assert roles(after) == ["matrix", "table", "vector"]


# ---- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["table", "Matrix", "", 2, True, ["matrix"], torch.zeros(2)])
def test_a_role_that_there_is_not(role: Any) -> None:
    with pytest.raises(ValueError, match=r"param_groups\[1\]\['role'\] is .*; expected None or '"):
        made("matrix", role, None)
    optimizer = made(None, None, None)
    take_steps(optimizer, 0, 1)
    give_gradients(params_of(optimizer), 1)
    optimizer.param_groups[2]["role"] = role
    with refused(optimizer, ValueError, "param_groups[2]['role'] is ", "expected None or "):
        optimizer.step()


def test_a_role_that_was_removed() -> None:
    optimizer = made(None, None, None)
    take_steps(optimizer, 0, 1)
    give_gradients(params_of(optimizer), 1)
    del optimizer.param_groups[0]["role"]
    with refused(optimizer, ValueError, "param_groups[0] has no 'role'"):
        optimizer.step()


# ---- estimates ---------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", [None, "1%", "3%", "30%"])
def test_an_estimate_of_groups_is_what_their_first_step_makes(budget: str | None) -> None:
    model = gpt2(tied=False)
    optimizer = Cosmic(param_groups(model), budget=budget, gate="snr")
    give_gradients(model.parameters(), 0)
    optimizer.step()
    held = [(info.name, info.rung, info.nbytes) for info in optimizer.tiers()]
    for of_model in (param_groups, param_groups(model)):
        estimate = estimate_memory(model, budget, groups=of_model, gate="snr")
        assert [(t.name, t.rung, t.state_bytes) for t in estimate.tensors] == held
    if budget is not None:
        assert [t.role for t in estimate.tensors] == roles(optimizer)


def test_an_estimate_s_groups_may_have_any_option_and_pairs_of_names() -> None:
    model = TinyGPT()
    frozen = model.wpe.weight.requires_grad_(False)
    tables: list[dict[str, Any]] = [
        {"params": model.wte.weight, "role": "embedding", "tier": 1},
        {"params": [("anything", model.out.weight), ("frozen", frozen)], "rung": "tier0"},
    ]
    estimate = estimate_memory(model, "1%", groups=tables)
    assert [(t.name, t.rung, t.role) for t in estimate.tensors] == [
        ("wte.weight", "tier1", "table"), ("out.weight", "tier0", "table")
    ]  # fmt: skip
    with pytest.raises(ValueError, match=r"param_groups\[0\]\['role'\] is 'tables'"):
        estimate_memory(model, groups=[{"params": [model.wte.weight], "role": "tables"}])
    with pytest.raises(ValueError, match=r"groups\[0\] has parameters that are not the model's"):
        estimate_memory(model, groups=param_groups(TinyGPT()))


def test_the_plan_of_the_command_line_asks_modules(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", "--budget", "2%", "--roles", "modules"]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = [line.split()[0] for line in lines if line.strip().startswith("transformer.")]
    first_bias = next(k for k, name in enumerate(names) if name.endswith("bias"))
    assert not any(name.endswith("bias") for name in names[:first_bias]), "group by group"
    assert all(".c_" in name for name in names[-12:])


# ---- without a model ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "is_matrix"),
    [
        ((768, 768), True), ((768, 3072), True), ((3072, 768), True), ((64, 64), True),
        ((64, 192), True), ((512, 128), True), ((511, 128), True),
        ((50257, 768), False), ((768, 50257), False), ((512, 64), False),
        ((256, 64), False), ((64, 256), False), ((256, 32), False), ((65, 16), False),
        ((7, 64), False), ((64, 4), False), ((1, 768), False), ((768,), False), ((), False),
        ((100_000,), False), ((1, 197, 768), False), ((8, 64, 64), False), ((64, 64, 3, 3), False),
    ],
)  # fmt: skip
def test_the_shape_of_a_hidden_matrix(shape: tuple[int, ...], is_matrix: bool) -> None:
    param = torch.empty(shape, device="meta")
    assert is_hidden_matrix(param, Geometry.of(param), "0", {}, alone(param)) == is_matrix


@given(st.lists(st.integers(1, 4096), max_size=3))
def test_no_table_and_no_vector_is_a_hidden_matrix(shape: list[int]) -> None:
    param = torch.empty(shape, device="meta")
    geometry = Geometry.of(param)
    if is_hidden_matrix(param, geometry, "0", {}, alone(param)):
        assert structural_role(param, geometry, "0", alone(param)) == "matrix"
        assert len(shape) == 2 and min(shape) >= 8 and max(shape) < 8 * min(shape)


@pytest.mark.parametrize("shape", [(64, 64), (256, 64), (4, 64, 64)])
def test_a_group_s_word_is_before_the_shape_s(shape: tuple[int, ...]) -> None:
    param = torch.empty(shape, device="meta")
    given = param, Geometry.of(param), "h.0.weight"
    said = {kind: is_hidden_matrix(*given, {"role": kind}, alone(param)) for kind in KINDS}
    matrices = {"matrix", "lora_a", "lora_b"} if len(shape) == 2 else set()
    assert {kind for kind, hidden in said.items() if hidden} == matrices | {"convolution"}
    for group in ({}, {"role": None}):
        assert is_hidden_matrix(*given, group, alone(param)) == (shape == (64, 64))


@pytest.mark.parametrize(
    "name",
    ["wpe.weight", "model.embed_tokens.weight", "pos_embed", "lm_head.weight", "score.weight"],
)
def test_a_name_may_speak_against_a_matrix(name: str) -> None:
    param = torch.empty(64, 64, device="meta")
    given = param, Geometry.of(param), name
    assert not is_hidden_matrix(*given, {}, alone(param, name))
    assert is_hidden_matrix(*given, {"role": "matrix"}, alone(param, name))


def test_what_a_group_says() -> None:
    assert [given_role({"role": kind}) for kind in KINDS] == list(KINDS.values())
    assert given_role({}) is given_role({"role": None}) is given_role({"role": 3}) is None
