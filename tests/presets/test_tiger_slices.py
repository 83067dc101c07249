"""Slices and blocks of Tiger's groups, which become parts of their parameters."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from cosmic.presets import Tiger
from helpers import digest, normal, parameter, refused, through_a_file
from tiger_runs import as_array, params_of

THIRDS = {"q": 20, "k": 20, "v": 20}


def named(*shapes: tuple[int, ...]) -> list[tuple[str, nn.Parameter]]:
    return [(f"p{k}", parameter(k, *shape)) for k, shape in enumerate(shapes)]


def sliced(*shapes: tuple[int, ...], **options: Any) -> Tiger:
    """All tensors cut into thirds."""
    pairs = named(*shapes)
    rules = {id(p): (0, 3) for _, p in pairs}
    group = {"params": pairs, "qkv_rules": rules, "qkv_trust_split": True, **options}
    return Tiger([group], lr=1e-2)


def step(optimizer: Tiger, seed: int = 0) -> None:
    for k, p in enumerate(params_of(optimizer)):
        p.grad = normal(100 * seed + k, *p.shape)
    optimizer.step()


def test_thirds_become_parts_and_their_scales_multiply_the_groups() -> None:
    group = sliced((60, 8), qkv_lr_scales=(0.9, 0.8, 1.1), lr_scale=0.5).param_groups[0]
    assert group["parts"] == (0, THIRDS)
    by_role = {"table": 0.5, "matrix": 0.5, "vector": 0.5}  # which those of parts multiply
    assert group["lr_scale"] == {**by_role, "q": 0.9, "k": 0.8, "v": 1.1}
    assert not any(key.startswith("qkv") for key in group)


def test_where_only_some_are_cut_they_are_told_apart_by_name() -> None:
    pairs = named((60, 8), (7,))
    rules = {"qkv_rules": {id(pairs[0][1]): (0, 3)}}
    with pytest.raises(ValueError, match="they have no names; give named parameters"):
        Tiger([{"params": [p for _, p in pairs], **rules}])
    assert Tiger([{"params": pairs, **rules}]).param_groups[0]["parts"] == {"p0": (0, THIRDS)}


@pytest.mark.parametrize("key", ["id", "tensor"])
def test_rules_alone_cut_and_a_refusal_to_split_does_not(key: str) -> None:
    def parts(**more: Any) -> Any:
        p = parameter(0, 60, 8)
        rules = {id(p) if key == "id" else p: (0, 3)}
        return Tiger([{"params": [p], "qkv_rules": rules, **more}]).param_groups[0]["parts"]

    assert parts() == parts(qkv_trust_split=True) == (0, THIRDS)
    assert parts(qkv_trust_split=False) is None
    p = parameter(0, 60, 8)
    from_the_end = Tiger([{"params": [p], "qkv_rules": {p: (-2, 3)}}])
    assert from_the_end.param_groups[0]["parts"] == (0, THIRDS)


def test_blocks_of_rows_become_parts_of_the_matrices_that_they_divide() -> None:
    group = {"params": named((60, 8), (50, 8), (60,)), "block_trust_chunks": 4}
    with pytest.warns(UserWarning, match=r"not divide the rows of p1 \(50, 8\): not cut"):
        optimizer = Tiger([group])
    assert optimizer.param_groups[0]["parts"] == {"p0": (0, 4)}
    step(optimizer)
    assert [name for name in optimizer.gate_factors() if name.startswith("p0")] == [
        f"p0[{k}]" for k in range(4)
    ]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"qkv_rules": {12345: (0, 3)}}, "12345, the id of no parameter of the group"),
        ({"qkv_rules": 3}, "qkv_rules is 3; expected a dict"),
        ({"qkv_rules": "", "qkv_trust_split": False}, "qkv_rules is ''; expected a dict"),
        ({"qkv_rules": {}}, "qkv_trust_split is True without qkv_rules"),
        ({"qkv_rules": {torch.ones(2): (0, 3)}}, r"a tensor of shape \(2,\), which is no param"),
        ({"qkv_trust_split": "yes"}, "qkv_trust_split is 'yes'; expected True or False"),
        ({"qkv_lr_scales": (1.0, 2.0)}, "expected three numbers >= 0"),
        ({"qkv_lr_scales": {"x": 2}}, "expected three numbers >= 0"),
        ({"qkv_lr_scales": {"q": 1, "k": 1, "v": 1, "x": 2}}, "expected three numbers >= 0"),
        ({"qkv_trust_split": False, "qkv_lr_scales": (1, 1, 1)}, "none of its parameters is cut"),
        ({"qkv_rules": None, "qkv_trust_split": None, "qkv_lr_scales": {"x": 2}}, "three numbers"),
        ({"parts": (0, 2)}, "has qkv_rules and parts; expected one of them"),
        ({"qkv_rules": None, "qkv_trust_split": None, "block_trust_chunks": 7},
         r"expected a number that divides the rows of the group's matrices, p0 \(60, 8\)"),
        ({"qkv_lr_scales": (1, 1, 1), "lr_scale": {"matrix": 2.0}}, "expected one number"),
        ({"block_trust_chunks": 2}, "expected one of them: a parameter is cut in one way"),
        ({"block_trust_chunks": -1}, "block_trust_chunks is -1; expected an int >= 0"),
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_cut_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises((ValueError, TypeError), match=words):
        sliced((60, 8), **options)


def test_a_dimension_that_three_does_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(61, 8\); expected a dimension that 3 divides"):
        sliced((61, 8))


def test_rules_come_in_with_a_group_between_steps_too() -> None:
    optimizer = Tiger(named((60, 8)), lr=1e-2)
    step(optimizer)
    with refused(optimizer, ValueError, "the id of no parameter"):
        optimizer.add_param_group(
            {"params": [("x", parameter(9, 60, 8))], "qkv_rules": {1: (0, 3)},
             "qkv_trust_split": True}
        )  # fmt: skip
    assert len(optimizer.param_groups) == 1


def test_d8_slices_outlive_a_checkpoint() -> None:
    """In the package they were keyed by ``id()``, and a loaded checkpoint had none."""
    first = sliced((60, 8), qkv_lr_scales=(0.9, 0.8, 1.1))
    step(first)
    fresh = [(name, p.detach().clone().requires_grad_()) for name, p in named((60, 8))]
    with torch.no_grad():
        fresh[0][1].copy_(params_of(first)[0])
    loaded = Tiger([{"params": fresh, "parts": (0, THIRDS)}], lr=1e-2)
    loaded.load_state_dict(through_a_file(first.state_dict()))
    for optimizer in (first, loaded):
        step(optimizer, 1)
    assert digest(first) == digest(loaded)
    assert set(loaded.gate_factors()) == {"p0[q]", "p0[k]", "p0[v]"}
    assert loaded.param_groups[0]["lr_scale"] == first.param_groups[0]["lr_scale"]


def test_a_checkpoint_of_the_package_goes_into_parts() -> None:
    m, v = normal(1, 60, 8), normal(2, 60, 8).square()
    saved: dict[str, Any] = {
        "state": {0: {"m": m, "vr": v.mean(dim=1), "vc": v.mean(dim=0)}},
    }
    optimizer = Tiger([{"params": named((60, 8)), "parts": (0, THIRDS)}], min_compress_size=0)
    saved["param_groups"] = [{**optimizer.state_dict()["param_groups"][0], "lr": 0.1}]
    optimizer.load_tiger_state_dict(saved, steps=100)
    (p,) = params_of(optimizer)
    moments = optimizer.moments(p)
    assert moments.exp_avg is not None and moments.exp_avg_sq is not None
    assert torch.equal(moments.exp_avg, m)
    estimate = torch.outer(v.mean(dim=1), v.mean(dim=0)) / v.mean()
    torch.testing.assert_close(moments.exp_avg_sq, estimate)
    step(optimizer)
    assert {int(optimizer.state[p][f"{part}/step"]) for part in THIRDS} == {101}
    assert optimizer.param_groups[0]["parts"] == (0, THIRDS)


@pytest.mark.parametrize("trust", [True, False])
def test_d12_each_slice_has_its_own_ratio_and_a_rate_beside_the_groups(trust: bool) -> None:
    """In the package a slice's rate replaced the group's, and was nothing without trust."""
    pairs = [("p0", parameter(0, 60, 8, dtype=torch.float64))]
    with torch.no_grad():
        pairs[0][1][20:40] *= 10
    group = {
        "params": pairs, "qkv_rules": {id(pairs[0][1]): (0, 3)}, "qkv_trust_split": True,
        "qkv_lr_scales": (0.5, 1.0, 2.0), "lr_scale": 0.5, "use_trust_ratio": trust,
    }  # fmt: skip
    optimizer = Tiger([group], lr=1e-2, trust_clip=100.0)
    (p,) = params_of(optimizer)
    before = as_array(p)
    p.grad = normal(1, 60, 8, dtype=torch.float64)
    optimizer.step()
    moved = [abs(as_array(p) - before)[20 * k : 20 * k + 20] for k in range(3)]
    sizes = [float((x * x).mean() ** 0.5) for x in moved]
    held = [float((before[20 * k : 20 * k + 20] ** 2).mean() ** 0.5) for k in range(3)]
    rates = [1e-2 * 0.5 * scale for scale in (0.5, 1.0, 2.0)]
    if trust:
        expected = [rate * size for rate, size in zip(rates, held, strict=True)]
        assert sizes == pytest.approx(expected)
    else:
        # the first update is of equal signs: (1 - b) / (1 + tau) + b
        assert sizes == pytest.approx([rate * (0.8 / 1.3 + 0.2) for rate in rates], rel=1e-6)
