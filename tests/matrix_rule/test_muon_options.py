"""What the preset refuses, when, and in which words."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import nn

from cosmic.presets import Muon
from helpers import parameter, refused
from matrix_runs import give, go, muons, params_of


@pytest.mark.parametrize(
    ("tensor", "named"),
    [
        (torch.zeros(3), r"shape \(3,\)"),
        (torch.zeros(()), r"shape \(\)"),
        (torch.zeros(0, 4), r"shape \(0, 4\)"),
        (torch.zeros(3, 4, dtype=torch.complex64), r"complex, of shape \(3, 4\)"),
        (torch.zeros(3, 4, dtype=torch.float64), "float64"),
    ],
)
def test_what_is_no_matrix_is_refused_at_once_by_name(tensor: torch.Tensor, named: str) -> None:
    with pytest.raises(ValueError, match=rf"'head\.weight' is .*{named}"):
        Muon([("body", parameter(0, 8, 9)), ("head.weight", nn.Parameter(tensor))])
    with pytest.raises(ValueError, match=r"parameter 1 \(param_groups\[0\]\['params'\]\[1\]\)"):
        Muon([parameter(0, 8, 9), nn.Parameter(tensor)])


def test_a_group_with_what_is_no_matrix_is_not_added() -> None:
    optimizer = muons((8, 9))
    with pytest.raises(ValueError, match="two dimensions or more"):
        optimizer.add_param_group({"params": [parameter(0, 5)]})
    assert len(optimizer.param_groups) == 1
    go(optimizer, 0, 1)


def test_a_lazy_parameter_is_looked_at_when_it_has_a_shape() -> None:
    layer = nn.LazyLinear(5, bias=False)
    optimizer = Muon(layer.parameters())
    layer(torch.randn(3, 7)).sum().backward()
    optimizer.step()
    assert [info.rung for info in optimizer.tiers()] == ["tier2:muon:fp32"]
    bias = nn.LazyLinear(5)
    optimizer = Muon(bias.parameters())
    bias(torch.randn(3, 7)).sum().backward()
    with pytest.raises(ValueError, match=r"shape \(5,\)"):
        optimizer.step()


OUT_OF_RANGE: list[tuple[dict[str, Any], str]] = [
    ({"lr": -1.0}, "'lr'"),
    ({"weight_decay": -0.1}, "'weight_decay'"),
    ({"momentum": 1.0}, r"'momentum'\] is 1.0; expected a number in \[0, 1\)"),
    ({"momentum": -0.1}, r"'momentum'\] is -0.1; expected a number in \[0, 1\)"),
    ({"nesterov": 1}, r"'nesterov'\] is 1; expected True or False"),
    ({"ns_coefficients": (1.0, 2.0)}, "expected three finite numbers"),
    ({"ns_coefficients": 3.0}, "expected three finite numbers"),
    ({"ns_coefficients": (1.0, 2.0, float("nan"))}, "expected three finite numbers"),
    ({"eps": -1e-9}, "'eps'"),
    ({"ns_steps": 0}, r"'ns_steps'\] is 0; expected an int from 1 to 99"),
    ({"ns_steps": 100}, "expected an int from 1 to 99"),
    ({"ns_steps": 5.0}, "expected an int from 1 to 99"),
    ({"ns_steps": True}, "expected an int from 1 to 99"),
    ({"adjust_lr_fn": "mine"}, "expected None, 'original' or 'match_rms_adamw'"),
    ({"adjust_lr_fn": 1}, "expected None, 'original' or 'match_rms_adamw'"),
    ({"matrix_every": 0}, r"'matrix_every'\] is 0; expected an int from 1 to 1000000"),
    ({"matrix_every": 1.5}, "expected an int from 1 to 1000000"),
    ({"matrix_blocks": 0}, r"'matrix_blocks'\] is 0; expected an int from 1 to 1000000"),
    ({"parts": (2, (4, 4))}, r"'parts'\] is \(2, \(4, 4\)\); expected None or a dimension"),
    ({"parts": (0, ())}, "expected None or a dimension"),
    ({"parts": (0, (4, -4))}, "expected None or a dimension"),
    ({"parts": (0, (4.0, 4.0))}, "expected None or a dimension"),
    ({"parts": 5}, "expected None or a dimension"),
    ({"state_dtype": "u4"}, r"'state_dtype'\] is 'u4'; expected 'fp32', 'bf16', 'm8'"),
    ({"state_dtype": None}, r"'state_dtype'\] is None; expected 'fp32'"),
    ({"state_dtype": torch.float16}, r"is torch.float16; expected 'fp32'"),
    ({"min_compress_size": -1}, "'min_compress_size'"),
    ({"maximize": None}, "'maximize'"),
    ({"stochastic_rounding": 1}, "'stochastic_rounding'"),
]


@pytest.mark.parametrize(("options", "message"), OUT_OF_RANGE)
def test_an_option_out_of_range_is_refused_by_name(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        muons((8, 9), **options)
    optimizer = muons((8, 9))
    with pytest.raises(ValueError, match=message):
        optimizer.add_param_group({"params": [parameter(1, 8, 9)], **options})
    go(optimizer, 0, 1)
    optimizer.param_groups[0].update(options)
    give(optimizer, 1)
    with refused(optimizer, ValueError, next(iter(options))):
        optimizer.step()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tier": 1}, "tier"),
        ({"max_tier": 1}, "max_tier"),
        ({"beta_slow": 0.99}, "beta_slow"),
        ({"rung": "tier0"}, "state_dtype makes it 'tier2:muon:fp32'"),
        ({"seed": 5}, "option of the whole optimizer"),
    ],
)
def test_what_would_step_a_group_otherwise_is_refused(
    options: dict[str, Any], message: str
) -> None:
    optimizer = muons((8, 9))
    with pytest.raises(ValueError, match=message):
        optimizer.add_param_group({"params": [parameter(1, 8, 9)], **options})


def test_a_budget_is_refused() -> None:
    optimizer = muons((8, 9))
    optimizer.budget = "10%"
    give(optimizer, 0)
    with refused(optimizer, ValueError, "budget is '10%'", "state_dtype"):
        optimizer.step()


@pytest.mark.parametrize("option", ["adjust_lr_fn", "nesterov", "ns_coefficients", "state_dtype"])
def test_an_option_that_was_removed_is_missed(option: str) -> None:
    optimizer = muons((8, 9))
    go(optimizer, 0, 1)
    del optimizer.param_groups[0][option]
    give(optimizer, 1)
    with refused(optimizer, ValueError, f"param_groups[0] has no '{option}'"):
        optimizer.step()


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ((0, (4, 5)), "add up to 9 along dimension 0, expected 8"),
        ((1, (4, 4)), "add up to 8 along dimension 1, expected 9"),
    ],
)
def test_parts_that_do_not_fit_name_the_parameter(
    parts: tuple[int, tuple[int, ...]], message: str
) -> None:
    with pytest.raises(ValueError, match=rf"'qkv': it is of shape \(8, 9\), .*{message}"):
        Muon([("qkv", parameter(0, 8, 9))], parts=parts)


def test_the_first_dimension_amid_the_others_is_refused_by_name() -> None:
    amid = nn.Parameter(torch.zeros(3, 4, 5).permute(1, 0, 2))
    optimizer = Muon([("amid", amid)])
    give(optimizer, 0)
    with refused(optimizer, ValueError, "'amid'", "make it contiguous"):
        optimizer.step()


def test_messages_do_not_speak_of_what_the_preset_has_not() -> None:
    with pytest.raises(ValueError) as caught:
        muons((8, 9), state_dtype="x")
    assert not re.search("matrix_state_dtype", str(caught.value))
    assert params_of(muons((8, 9)))
