"""Preset Tiger's checkpoints: its own, and those of the package, of Cosmic and of AdamW."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cosmic import Cosmic
from cosmic.presets import Tiger
from helpers import digest, normal, parameter, refused, through_a_file
from reference.tiger_literal import LiteralGroup, LiteralOptions, LiteralTensor
from tiger_runs import as_array, fresh, gradients, params_of, take_steps

CASES: dict[str, dict[str, Any]] = {
    "exact": {},
    "lagged": {"exact": False},
    "smoothed": {"trust_ema_beta": 0.9, "agc_clip": 0.02},
    "bf16": {"mom_dtype": "bf16"},
    "few-bits": {"state_dtype": "u4+factored", "min_compress_size": 0},
    "scheduled": {"blend_steps": 9, "blend_to": 0.9},
    "group": {
        "rms_clip_granularity": "group",
        "rms_clip_threshold": 0.1,
        "use_trust_ratio": False,
    },
}


@pytest.mark.parametrize("case", CASES)
def test_a_run_goes_on_with_the_same_bits(case: str) -> None:
    """After a save, a copy and a pickle in the middle."""
    options = {"lr": 3e-3, **CASES[case]}
    whole = digest(take_steps(Tiger(fresh(), **options), 0, 8))
    halfway = take_steps(Tiger(fresh(), **options), 0, 4)
    loaded = Tiger([p.detach().clone().requires_grad_() for p in params_of(halfway)])
    loaded.load_state_dict(through_a_file(halfway.state_dict()))
    for several in (loaded, copy.deepcopy(halfway), pickle.loads(pickle.dumps(halfway)), halfway):
        assert digest(take_steps(several, 4, 8)) == whole


def test_what_waits_and_what_loops_know_is_saved() -> None:
    options: dict[str, Any] = {"lr": 3e-3, "plateau_patience": 2, "reflect_interval": 6}

    def begun() -> Tiger:
        optimizer = Tiger(fresh(), **options)
        for step in range(4):
            optimizer.report_metrics(1.0)
            take_steps(optimizer, step, step + 1)
        optimizer.stage_group_update(0, {"weight_decay": [("set", 0.1), ("mul", 2.0)]})
        return optimizer

    def ended(optimizer: Tiger) -> tuple[str, float, float]:
        for step in range(4, 8):
            optimizer.report_metrics(1.0)
            take_steps(optimizer, step, step + 1)
        group = optimizer.param_groups[0]
        return digest(optimizer), group["blend"], group["weight_decay"]

    first = begun()
    assert first.param_groups[0]["blend"] > 0.2
    loaded = Tiger([p.detach().clone().requires_grad_() for p in params_of(first)], **options)
    loaded.load_state_dict(through_a_file(first.state_dict()))
    found = ended(loaded)
    assert found == ended(copy.deepcopy(first)) == ended(first)
    assert found[2] == 0.2


# ---- the package's own --------------------------------------------------------------------------


def packages(steps: int) -> tuple[LiteralGroup, dict[str, Any]]:
    """A run of the package's formulas, and its checkpoint."""
    group = LiteralGroup(LiteralOptions(lr=3e-3), [LiteralTensor(as_array(p)) for p in fresh()])
    for step in range(steps):
        group.step([as_array(g) for g in gradients(step)])
    options = {
        "lr": 3e-3, "betas": (0.9, 0.98), "eps": 1e-8, "weight_decay": 0.01, "factored": True,
        "precond_alpha": 1.0, "sign_mode": "softsign", "sign_tau": 0.3, "sign_blend": 0.3,
        "use_trust_ratio": True, "trust_clip": 5.0, "trust_space": "update", "agc_clip": 0.0,
        "use_foreach": True, "bucket_scalarless": True, "block_tag": "mlp",
        "qkv_rules": {140000: (0, 3)}, "qkv_trust_split": True, "block_trust_chunks": 0,
    }  # fmt: skip
    state = {k: _entries(tensor) for k, tensor in enumerate(group.tensors)}
    return group, {"state": state, "param_groups": [{**options, "params": [0, 1, 2, 3]}]}


def _entries(tensor: LiteralTensor) -> dict[str, Tensor]:
    moments = {"m": tensor.m, "v": tensor.v}
    if tensor.param.ndim >= 2:
        moments = {"m": tensor.m, "vr": tensor.rows, "vc": tensor.columns}
    return {key: torch.tensor(x, dtype=torch.float32) for key, x in moments.items()}


@pytest.mark.parametrize("steps", [None, 7])
def test_a_checkpoint_of_the_package_loads(steps: int | None) -> None:
    group, saved = packages(7)
    optimizer = Tiger(fresh(), min_compress_size=0)
    if steps is None:
        optimizer.load_state_dict(through_a_file(saved))
    else:
        optimizer.load_tiger_state_dict(through_a_file(saved), steps=steps)
    for p, tensor in zip(params_of(optimizer), group.tensors, strict=True):
        moments = optimizer.moments(p)
        for moment, expected in ((moments.exp_avg, tensor.m), (moments.exp_avg_sq, tensor.v)):
            assert moment is not None
            np.testing.assert_allclose(as_array(moment), expected, rtol=1e-5, atol=1e-12)
    found = optimizer.param_groups[0]
    assert (found["blend"], found["kappa"], found["trust_clip"]) == (0.3, 0.3, 5.0)
    assert (found["tag"], found["parts"]) == ("mlp", None)
    take_steps(optimizer, 7, 8)
    counts = {int(optimizer.state[p]["step"]) for p in params_of(optimizer)}
    # the averages of 7 steps, or averages that no bias is left in: 0.98^t below 2^-54
    assert counts == ({8} if steps else {1854})
    rows = optimizer.state[params_of(optimizer)[0]]["exp_avg_sq_row"]
    g = as_array(gradients(7)[0])
    expected = 0.98 * group.tensors[0].rows + 0.02 * (g * g).mean(axis=1)
    np.testing.assert_allclose(as_array(rows), expected, rtol=1e-5)


@pytest.mark.parametrize("own", [None, 0.5])
def test_the_packages_width_of_a_sign_stays_behind(own: float | None) -> None:
    """It is in units of the momentum, and these formulas have Adam's update."""
    _, saved = packages(2)
    saved["param_groups"][0]["sign_tau"] = 1e-3
    optimizer = Tiger(fresh(), sign_tau=own)
    with pytest.warns(
        UserWarning, match=r"sign_tau 0\.001, in units of the momentum; it stays 0\."
    ):
        optimizer.load_state_dict(saved)
    group = optimizer.param_groups[0]
    assert group["sign_tau"] == group["kappa"] == (own or 0.3)
    literal = Tiger(fresh(), compat="2.2", sign_tau=0.5)
    literal.load_state_dict(saved)
    assert literal.param_groups[0]["kappa"] == 1e-3


def test_with_the_count_the_moments_go_on_as_if_counted_from_the_start() -> None:
    """The same averages: a Tiger from the start and one that takes over after 7 steps."""
    _, saved = packages(7)
    start = Tiger(fresh(), lr=0.0, factored=False)
    take_steps(start, 0, 7)
    loaded = Tiger(fresh(), lr=0.0, factored=False)
    state = {k: dict(s) for k, s in saved["state"].items() if "v" in s}
    whole = {"state": state, "param_groups": saved["param_groups"]}
    whole["param_groups"][0]["factored"] = False
    loaded.load_tiger_state_dict(whole, steps=7)
    for p, q in zip(params_of(start)[2:], params_of(loaded)[2:], strict=True):
        for key in ("exp_avg", "exp_avg_sq"):
            torch.testing.assert_close(loaded.state[q][key], start.state[p][key])
        assert int(loaded.state[q]["step"]) == int(start.state[p]["step"]) == 7


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s["state"][0].update(vr=torch.ones(3)), "3 rows and 65 columns"),
        (lambda s: s["state"][1].update(m=3), "has m 3; expected a tensor"),
        (lambda s: s["param_groups"][0].update(trust_space="precond"), "expected 'update'"),
        (lambda s: s["param_groups"][0].update(bucket_standardize=True), "expected False"),
        (lambda s: s["param_groups"][0].update(sign_blend=-1), "'sign_blend'] is -1"),
    ],
)
def test_a_checkpoint_of_the_package_that_does_not_fit_changes_nothing(
    change: Any, words: str
) -> None:
    _, saved = packages(2)
    change(saved)
    optimizer = take_steps(Tiger(fresh()), 0, 1)
    with refused(optimizer, ValueError, words):
        optimizer.load_state_dict(saved)


def test_a_count_that_is_none_and_another_optimizers_checkpoint_are_refused() -> None:
    _, saved = packages(2)
    optimizer = take_steps(Tiger(fresh()), 0, 1)
    with refused(optimizer, ValueError, "steps is 0; expected None or an int >= 1"):
        optimizer.load_tiger_state_dict(saved, steps=0)
    with refused(optimizer, ValueError, "not one of Tiger's own"):
        optimizer.load_tiger_state_dict(optimizer.state_dict())


# ---- others' ------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["cosmic", "adamw"])
def test_other_optimizers_moments_go_on_under_tigers_options(source: str) -> None:
    params = fresh()
    theirs: torch.optim.Optimizer = torch.optim.AdamW(params, lr=0.25)
    if source == "cosmic":
        theirs = Cosmic(params, lr=0.25, state_dtype="fp32")
    for step in range(2):
        for p, g in zip(params, gradients(step), strict=True):
            p.grad = g
        theirs.step()
    optimizer = Tiger(fresh(), sign_blend=0.5)
    optimizer.load_state_dict(theirs.state_dict())
    for p, q in zip(params_of(optimizer), params, strict=True):
        torch.testing.assert_close(
            optimizer.moments(p).exp_avg, theirs.state[q]["exp_avg"], rtol=0, atol=0
        )
    group = optimizer.param_groups[0]
    assert (group["lr"], group["blend"], group["gate"]) == (0.25, 0.5, "trust")
    take_steps(optimizer, 2, 3)
    assert optimizer.tiers()[0].rung == "tier2:fp32+factored+softsign"


def test_adamw_takes_over() -> None:
    optimizer = take_steps(Tiger(fresh(), factored=False), 0, 3)
    theirs = torch.optim.AdamW(fresh())
    theirs.load_state_dict(optimizer.to_adamw_state_dict())
    for p, q in zip(params_of(optimizer), theirs.param_groups[0]["params"], strict=True):
        torch.testing.assert_close(theirs.state[q]["exp_avg"], optimizer.state[p]["exp_avg"])


def test_a_models_dict_is_not_taken_for_state() -> None:
    layer = nn.Linear(3, 3)
    optimizer = Tiger(layer.parameters())
    with pytest.raises((ValueError, KeyError)):
        optimizer.load_state_dict(layer.state_dict())
    layer.weight.grad = normal(0, 3, 3)
    optimizer.step()
    assert int(optimizer.state[layer.weight]["step"]) == 1
    assert parameter(0, 3).shape == (3,)
