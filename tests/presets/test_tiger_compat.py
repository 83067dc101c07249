"""``Tiger(compat="2.2")``: the formulas of that release, defects and all."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

from cosmic import Cosmic
from cosmic.presets import Tiger
from helpers import digest, parameter, refused, through_a_file
from reference.tiger_literal import LiteralGroup, LiteralOptions, LiteralTensor
from tiger_runs import Array, as_array, fresh, gradients, params_of, take_steps

#: What the preset must hand on; the rule and the gate have tests of their own, option by option.
OPTIONS: tuple[dict[str, Any], ...] = (
    {}, {"betas": (0.8, 0.99), "eps": 1e-4}, {"weight_decay": 0.1, "lr_scale": 0.5},
    {"factored": False, "sign_tau": 0.1}, {"precond_alpha": 0.5, "sign_mode": "sign"},
    {"precond_alpha": 0.0, "use_trust_ratio": False}, {"sign_blend": 0.7},
    {"blend_steps": 20, "blend_to": 0.9}, {"blend_steps": 20, "blend_schedule": "linear"},
    {"trust_space": "precond", "trust_clip": 0.05}, {"trust_ema_beta": 0.9},
    {"agc_clip": 0.5, "agc_eps": 0.1}, {"rms_clip_threshold": 0.4, "use_trust_ratio": False},
)  # fmt: skip


def reference(options: dict[str, Any], steps: int) -> list[Array]:
    tensors = [LiteralTensor(as_array(p)) for p in fresh()]
    group = LiteralGroup(LiteralOptions(**options), tensors)
    for step in range(steps):
        group.step([as_array(g) for g in gradients(step)])
    return [tensor.param for tensor in tensors]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_fifty_steps_are_those_of_the_formulas(options: dict[str, Any]) -> None:
    options = {"lr": 3e-4, **options}
    whole = {k: v for k, v in options.items() if k != "lr_scale"}
    group = {"params": fresh(), "lr_scale": options.get("lr_scale")}
    optimizer = take_steps(Tiger([group], compat="2.2", **whole), 0, 50)
    for p, expected, start in zip(
        params_of(optimizer), reference(options, 50), fresh(), strict=True
    ):
        moved = np.linalg.norm(expected - as_array(start))
        rounding = 4e-7 * np.linalg.norm(expected)
        assert np.linalg.norm(as_array(p) - expected) < 1e-4 * moved + rounding


def test_the_average_of_ratios_is_saved_copied_and_goes_on() -> None:
    options: dict[str, Any] = {"lr": 3e-4, "trust_ema_beta": 0.9, "compat": "2.2"}
    whole = digest(take_steps(Tiger(fresh(), **options), 0, 8))
    halfway = take_steps(Tiger(fresh(), **options), 0, 4)
    loaded = Tiger([p.detach().clone().requires_grad_() for p in params_of(halfway)], **options)
    loaded.load_state_dict(through_a_file(halfway.state_dict()))
    for several in (loaded, copy.deepcopy(halfway), halfway):
        assert digest(take_steps(several, 4, 8)) == whole
    anew = Tiger([p.detach().clone().requires_grad_() for p in fresh()], **options)
    saved = take_steps(Tiger(fresh(), **options), 0, 4).state_dict()
    saved["tiger"]["averages"] = [{"trust_average": None}]
    anew.load_state_dict(saved)
    with torch.no_grad():
        for p, q in zip(params_of(anew), params_of(take_steps(Tiger(fresh(), **options), 0, 4)),
                        strict=True):  # fmt: skip
            p.copy_(q)
    assert digest(take_steps(anew, 4, 8)) != whole


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rms_clip_granularity": "group"}, ("'param' under compat='2.2'",)),
        ({"trust_space": "parameter"}, ("'trust_space'] is 'parameter'", "'update' or 'precond'")),
        ({"precond_alpha": 0.3}, ("'precond_alpha'] is 0.3", "0.0, 0.5 or 1.0")),
        ({"block_trust_chunks": 2}, ("has block_trust_chunks", "whole tensors")),
        ({"mom_dtype": "u4"}, ("'mom_dtype'] is 'u4'", "'fp32' or 'bf16' under compat='2.2'")),
    ],
    ids=str,
)
def test_what_the_formulas_do_not_have_is_refused(
    options: dict[str, Any], words: tuple[str, ...]
) -> None:
    optimizer = Tiger([parameter(0, 8, 6)], compat="2.2")
    with refused(optimizer, ValueError, "param_groups[1]", *words):
        optimizer.add_param_group({"params": [parameter(1, 8, 6)], **options})


def test_slices_are_refused_by_their_own_name() -> None:
    p = parameter(0, 60, 8)
    with pytest.raises(ValueError, match=r"has qkv_rules; expected none under compat=.2\.2"):
        Tiger([{"params": [p], "qkv_rules": {p: (0, 3)}}], compat="2.2")


def test_a_step_within_backward_and_an_unknown_release_are_refused() -> None:
    optimizer = Tiger([parameter(0, 8, 6)], compat="2.2")
    with pytest.raises(RuntimeError, match=r"cannot step in backward under compat='2\.2'"):
        optimizer.step_in_backward()
    with pytest.raises(ValueError, match=r"compat is '2\.4'; expected None or '2\.2'"):
        Tiger([parameter(0, 8, 6)], compat="2.4")


def test_a_checkpoint_of_the_repaired_formulas_is_refused_and_the_other_way_round() -> None:
    literal = take_steps(Tiger(fresh(), compat="2.2"), 0, 1)
    repaired = take_steps(Tiger(fresh()), 0, 1)
    with refused(repaired, ValueError, "with compat='2.2'", "Tiger(params, compat='2.2')"):
        repaired.load_state_dict(literal.state_dict())
    with refused(literal, ValueError, "with no compat, and this optimizer has compat='2.2'"):
        literal.load_state_dict(repaired.state_dict())
    plain = Cosmic(fresh())
    with refused(plain, ValueError, "'gate'] is 'tiger_literal'", "(compat, where it had one)"):
        plain.load_state_dict(literal.state_dict())
