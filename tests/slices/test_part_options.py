"""The option `parts`: its forms, what does not fit, and what else goes by part."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from cosmic import (
    Cosmic,
    NonfiniteGradientError,
    UnsupportedTensorError,
    _core,
    estimate_memory,
    param_groups,
)
from helpers import digest, normal, parameter, refused
from part_runs import fused, go

QKV = {"q": 32, "k": 40, "v": 24}


def parts_of(optimizer: Cosmic) -> dict[str, int]:
    """Elements of every row after a step."""
    go(optimizer, 0, 1)
    return {t.name: t.numel for t in optimizer.tiers()}


# ---- forms ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "rows"),
    [
        (None, {"w": 6144, "b": 96}),
        ((0, 3), {"w[0]": 2048, "w[1]": 2048, "w[2]": 2048, "b[0]": 32, "b[1]": 32, "b[2]": 32}),
        ((0, [95, 1]), {"w[0]": 6080, "w[1]": 64, "b[0]": 95, "b[1]": 1}),
        ({"w": (1, {"a": 60, "c-d": 4})}, {"w[a]": 5760, "w[c-d]": 384, "b": 96}),
        ({"b": (0, 2)}, {"w": 6144, "b[0]": 48, "b[1]": 48}),
        ({"w": (0, 1), "*": (0, 2)}, {"w[0]": 6144, "b[0]": 48, "b[1]": 48}),
        ({"[vw]": (0, QKV)}, {"w[q]": 2048, "w[k]": 2560, "w[v]": 1536, "b": 96}),
        ({"b": None, "*": (0, 2)}, {"w[0]": 3072, "w[1]": 3072, "b": 96}),
        ({"*": (0, 1), "b": None}, {"w[0]": 6144, "b[0]": 96}),
        ({"w": None}, {"w": 6144, "b": 96}),
        ({}, {"w": 6144, "b": 96}),
    ],
)
def test_forms(parts: Any, rows: dict[str, int]) -> None:
    assert parts_of(Cosmic([("w", fused()), ("b", parameter(1, 96))], parts=parts)) == rows


@pytest.mark.parametrize(
    "name",
    ["module.h.w", "_orig_mod.module.h.w", "_fsdp_wrapped_module.h._checkpoint_wrapped_module.w",
     "h._orig_mod.w", "h.parametrizations.w.original"],
)  # fmt: skip
def test_patterns_are_with_or_without_what_wrappers_add(name: str) -> None:
    for pattern in ("h.w", "h.?", name):
        found = parts_of(
            Cosmic([(name, fused()), ("b", parameter(1, 96))], parts={pattern: (0, 2)})
        )
        assert found == {f"{name}[0]": 3072, f"{name}[1]": 3072, "b": 96}


def test_a_layer_that_is_called_as_wrappers_are_is_none() -> None:
    with pytest.raises(ValueError, match=r"has 'h\.w', which matches no parameter"):
        Cosmic([("h.module.w", fused())], parts={"h.w": (0, 2)})


def test_factors_may_name_the_parts_of_some_tensors() -> None:
    params = [("w", fused()), ("b", parameter(1, 96))]
    optimizer = Cosmic(params, parts={"b": None, "*": (0, QKV)}, lr_scale={"q": 0.5})
    assert list(parts_of(optimizer)) == ["w[q]", "w[k]", "w[v]", "b"]


def test_parameters_without_names_go_by_their_numbers() -> None:
    optimizer = Cosmic([parameter(0, 96), fused()], parts={"1": (0, 2)})
    assert parts_of(optimizer) == {"0": 96, "1[0]": 3072, "1[1]": 3072}
    optimizer.param_groups[0]["params"][1].grad = torch.full((96, 64), math.nan)
    optimizer.nonfinite = "raise"
    place = r"part '0' of parameter 1 \(param_groups\[0\]\['params'\]\[1\]\)"
    with pytest.raises(NonfiniteGradientError, match=place):
        optimizer.step()


def test_each_group_has_its_own() -> None:
    groups: list[dict[str, Any]] = [
        {"params": [("a", fused(0))], "parts": (0, 2)},
        {"params": [("b", fused(1))]},
        {"params": [("c", fused(2))], "parts": None},
    ]
    optimizer = Cosmic(groups, parts={"b": (1, 2)})
    assert list(parts_of(optimizer)) == ["a[0]", "a[1]", "b[0]", "b[1]", "c"]
    optimizer.add_param_group({"params": [("d", fused(3))], "parts": {"d": (0, 3)}})
    assert list(parts_of(optimizer))[5:] == ["d[0]", "d[1]", "d[2]"]


FORM = "expected None or a dimension, 0 or 1, and along it how many equal parts"


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (3, f"'parts'] is 3; {FORM}"),
        ((2, 3), FORM),
        ((True, 3), FORM),
        ((-1, 3), FORM),
        ((0, 0), FORM),
        ((0, 5000), FORM),
        ((0, "qkv"), FORM),
        ((0, ()), FORM),
        ((0, {}), FORM),
        ((0, (96, 0)), FORM),
        ((0, (48.0, 48.0)), FORM),
        ((0, {"q": True}), FORM),
        ((0, {0: 96}), FORM),
        ((0, 3, 3), FORM),
        ({"w": 3}, f"'parts']['w'] is 3; {FORM}"),
        ({"wq": None, "*": (0, 2)}, "'parts'] has 'wq', which matches no parameter"),
        ({0: (0, 3)}, FORM),
        ((0, {"q/k": 96}), "part named 'q/k'; expected letters, digits, '_' and '-'"),
        ((0, {"": 96}), "part named ''"),
        ({"w": (0, {"a.b": 96})}, "'parts']['w'] has a part named 'a.b'"),
        ((0, {"table": 96}), "'table'; expected letters, digits, '_' and '-', and none of 'table'"),
        ((0, (48, 47)), "'w': it is of shape (96, 64), and its group's parts add up to 95 along "
         "dimension 0, expected 96"),
        ((0, {"q": 50, "k": 50}), "add up to 100 along dimension 0, expected 96"),
        ((0, 5), "96 along dimension 0 are not 5 equal parts; give their sizes"),
        ({"b": (1, 2)}, "'b': it is of shape (96,), and its group's parts lie along dimension 1"),
        ({"wq": (0, 2)}, "'parts'] has 'wq', which matches no parameter of that group; expected a "
         "name or a pattern (as of fnmatch) of 'w', 'b'"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_at_once(parts: Any, message: str) -> None:
    params = [("w", fused()), ("b", parameter(1, 96))]
    with pytest.raises(ValueError) as caught:
        Cosmic(params, parts=parts)
    assert message in str(caught.value)
    optimizer = Cosmic(params)
    go(optimizer, 0, 1)
    optimizer.param_groups[0]["parts"] = parts
    with refused(optimizer, ValueError, message):
        optimizer.step()


def test_a_name_must_match_in_the_group_that_gives_it() -> None:
    optimizer = Cosmic([("a", fused(0))], parts={"a": (0, 2)})
    with pytest.raises(ValueError, match=r"has 'a', which matches no .* of 'b'"):
        optimizer.add_param_group({"params": [("b", fused(1))], "parts": {"a": (0, 2)}})
    optimizer.add_param_group({"params": [("b", fused(1))]})  # with the optimizer's
    assert list(parts_of(optimizer)) == ["a[0]", "a[1]", "b"]


def test_a_lazy_modules_parameter_is_cut_once_it_has_a_shape() -> None:
    model = nn.Sequential(nn.LazyLinear(96))
    optimizer = Cosmic(model.named_parameters(), parts={"*.weight": (1, 2)})
    model(normal(0, 4, 10)).sum().backward()
    optimizer.step()
    assert {t.name: t.numel for t in optimizer.tiers()} == {
        "0.weight[0]": 480, "0.weight[1]": 480, "0.bias": 96,
    }  # fmt: skip


# ---- gradients and memory ------------------------------------------------------------------------


def test_a_gradient_that_does_not_fit_changes_no_part() -> None:
    """Also one whose first rows would fit the first part."""
    optimizer = Cosmic([("w", fused())], parts=(0, QKV))
    go(optimizer, 0, 1)
    (param,) = optimizer.param_groups[0]["params"]
    param.grad = None
    param.data = torch.zeros(40, 64)
    param.grad = torch.ones(40, 64)
    with refused(optimizer, ValueError, "'w'", "add up to 96 along dimension 0, expected 40"):
        optimizer.step()


def test_a_sparse_gradient_is_refused_by_name() -> None:
    optimizer = Cosmic([("w", fused())], parts=(0, QKV))
    (param,) = optimizer.param_groups[0]["params"]
    param.grad = torch.sparse_coo_tensor(
        torch.tensor([[0]]), torch.ones(1, 64), (96, 64), check_invariants=True
    )
    with refused(optimizer, UnsupportedTensorError, "'w[q]'", "sparse"):
        optimizer.step()


def test_parameters_that_share_memory_are_refused() -> None:
    whole = torch.zeros(96, 64)
    pair = [("w", nn.Parameter(whole)), ("tail", nn.Parameter(whole[80:]))]
    optimizer = Cosmic(pair, parts={"w": (0, QKV)})
    for _, p in pair:
        p.grad = torch.ones_like(p)
    with refused(optimizer, ValueError, "'w[q]' and parameter 'tail' share memory"):
        optimizer.step()


@pytest.mark.parametrize(
    ("part", "prefix", "message"),
    [
        ((0, 5, 1), "a/", "a part begins at 5 of its parameter; expected it where the part before"),
        ((2, 0, 1), "a/", "1 elements from 0 on along dimension 2 of a parameter of shape (6, 4)"),
        ((0, 0, 7), "a/", "7 elements from 0 on along dimension 0"),
        ((1, 0, 0), "a/", "0 elements from 0"),
        ((0, -1, 3), "a/", "3 elements from -1"),
        ((0, 0, 6), "b/", "state 'b/exp_avg' of w is missing"),
    ],
)  # fmt: skip
def test_the_plan_checks_what_it_is_given(
    part: tuple[int, int, int], prefix: str, message: str
) -> None:
    plan, state = _core.Plan(0), {"a/step": torch.zeros((), dtype=torch.int64)}
    state["a/exp_avg"] = state["a/exp_avg_sq"] = torch.zeros(1, 4)
    about = ("adam", "fp32", "none", "fp32", "none", False)
    with pytest.raises(ValueError) as caught:
        plan.add_row(
            torch.zeros(6, 4), "w", 0, 0, *about, state, part=part, prefix=prefix
        )  # fmt: skip
    assert message in str(caught.value)


@pytest.mark.parametrize("mode", ["raise", "skip"])
def test_gradients_that_are_not_finite_name_the_parts(mode: str) -> None:
    seen: list[Any] = []
    optimizer = Cosmic([("w", fused())], parts=(0, QKV), nonfinite=mode)
    optimizer.add_listener(lambda event, fields: seen.append((event, fields.get("parameters"))))
    (param,) = optimizer.param_groups[0]["params"]
    param.grad = torch.ones(96, 64)
    param.grad[40, 3] = math.inf
    before = digest(optimizer)
    if mode == "raise":
        with pytest.raises(NonfiniteGradientError, match=r"'w\[k\]' has 1 non-finite"):
            optimizer.step()
    else:
        optimizer.step()
        assert seen == [("skipped", ["parameter 'w[k]'"])]
    assert digest(optimizer) == before


# ---- learning rates ------------------------------------------------------------------------------


def moved(lr_scale: Any, **options: Any) -> list[float]:
    """How far each part has gone in a step, in learning rates."""
    param = fused()
    optimizer = Cosmic([("w", param)], lr=1e-3, parts=(0, QKV), lr_scale=lr_scale, **options)
    before = param.detach().clone()
    go(optimizer, 0, 1)
    steps = torch.split(param.detach() - before, list(QKV.values()))
    return [float(step.abs().mean()) / 1e-3 for step in steps]


@pytest.mark.parametrize(
    ("lr_scale", "factors"),
    [
        ({"q": 0.9, "k": 0.8, "v": 1.1}, (0.9, 0.8, 1.1)),
        ({"q": 0.5}, (0.5, 1, 1)),
        ({"q": 0.5, "matrix": 2.0}, (1, 2, 2)),
        ({"k": 0.0, "table": 3.0}, (1, 0, 1)),
        (2.0, (2, 2, 2)),
        (None, (1, 1, 1)),
    ],
)
def test_factors_by_part(lr_scale: Any, factors: tuple[float, ...]) -> None:
    found = moved(lr_scale, state_dtype="fp32", role="matrix")
    assert found == pytest.approx(factors, rel=1e-4)


@pytest.mark.parametrize("lr_scale", [{"w": 1.0}, {"q": -1.0}, {"q": True}, {"0": 1.0}])
def test_factors_of_parts_that_are_not_there_are_refused(lr_scale: Any) -> None:
    expected = "by role or part ('table', 'matrix', 'vector', 'k', 'q', 'v')"
    with pytest.raises(ValueError) as caught:
        moved(lr_scale)
    assert expected in str(caught.value)


def test_a_factor_may_change_between_steps() -> None:
    optimizer = Cosmic([("w", fused())], parts=(0, QKV), lr_scale={"q": 1.0}, state_dtype="fp32")
    (param,) = optimizer.param_groups[0]["params"]
    go(optimizer, 0, 1)
    before = param.detach().clone()
    optimizer.param_groups[0]["lr_scale"]["q"] = 0.0
    go(optimizer, 1, 2)
    changed = (param.detach() != before).any(1)
    assert not changed[:32].any() and changed[32:].all()


# ---- models --------------------------------------------------------------------------------------


def gpt2() -> nn.Module:
    config = transformers.GPT2Config(
        vocab_size=800, n_positions=64, n_embd=64, n_layer=2, n_head=2, bos_token_id=0,
        eos_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    model: nn.Module = transformers.GPT2LMHeadModel(config)
    return model


@pytest.mark.parametrize("budget", [None, "10%"])
def test_an_estimate_is_to_the_byte(budget: str | None) -> None:
    model = gpt2()
    groups = param_groups(model, fused="split")
    scale = {"v": 1.1}
    for group in groups:
        group["lr_scale"] = scale if "parts" in group else None
    optimizer = Cosmic(groups, budget=budget, min_compress_size=0)
    tokens = torch.randint(0, 800, (4, 32))
    model(input_ids=tokens, labels=tokens).loss.backward()
    optimizer.step()
    estimate = estimate_memory(model, budget, groups=groups, min_compress_size=0)
    assert estimate.state_bytes == optimizer.state_bytes()
    held = {t.name: (t.rung, t.nbytes) for t in optimizer.tiers()}
    assert {t.name: (t.rung, t.state_bytes) for t in estimate.tensors} == held
    whole = estimate_memory(model, budget, groups=param_groups(model), min_compress_size=0)
    for field in ("weight_bytes", "gradient_bytes", "adamw_bytes"):
        assert getattr(estimate, field) == getattr(whole, field)
    name = "transformer.h.0.attn.c_attn.weight"
    shapes = {t.name: t.shape for t in estimate.tensors}
    assert [shapes[f"{name}[{part}]"] for part in "qkv"] == [(64, 64)] * 3


def test_largest_gradient_is_a_whole_parameters() -> None:
    model = nn.Linear(64, 96, bias=False)
    groups = [{"params": list(model.parameters()), "parts": (0, QKV)}]
    estimate = estimate_memory(model, groups=groups, release_gradients=True)
    assert estimate.gradient_bytes == 4 * 96 * 64


def test_roles_are_those_of_parameters_that_are_whole() -> None:
    """Three matrices of one layer are no table because they have an input in common."""

    def rungs(parts: Any) -> set[str]:
        params = [("a", fused(0)), ("b", fused(1, 64, 96))]
        optimizer = Cosmic(params, parts=parts, min_compress_size=0)
        go(optimizer, 0, 1)
        return {t.rung for t in optimizer.tiers()}

    assert rungs((0, 4)) == rungs((1, 2)) == rungs(None)


def test_a_step_is_seen_by_autograd_once() -> None:
    """The version of a parameter in parts counts a step, as that of any other."""
    params = [fused(0), fused(1)]
    optimizer = Cosmic([("a", params[0]), ("b", params[1])], parts={"a": (0, 3)})
    go(optimizer, 0, 4)
    versions: list[int] = [p._version for p in params]
    assert versions[0] == versions[1] == 4
