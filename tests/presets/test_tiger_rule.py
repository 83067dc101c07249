"""Rule ``tiger`` and gate ``tiger_literal``: Tiger's formulas to rounding, with the same bits
everywhere."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from conftest import Runner
from cosmic import Cosmic, _core
from helpers import digest, normal, parameters, refused
from literal_tiger import GATE, Literal, memory_options
from reference.tiger_literal import LiteralGroup, LiteralOptions, LiteralTensor

#: Matrices whose rows are no multiple of 16 and whose blocks lie in rows, a vector, a few numbers.
SHAPES = ((33, 17), (24, 128), (300,), (7,))

#: Each differs from the defaults in what its name says.
OPTIONS: dict[str, dict[str, Any]] = {
    "as it comes": {}, "alpha 1/2": {"precond_alpha": 0.5}, "alpha 0": {"precond_alpha": 0.0},
    "hard sign": {"sign_mode": "sign"}, "momentum alone": {"sign_blend": 1.0},
    "linear blend": {"blend_steps": 20, "blend_schedule": "linear"},
    "cosine blend": {"blend_steps": 20}, "by momentum": {"trust_space": "precond"},
    "no such space": {"trust_space": "none", "lr": 1e-5},
    "no trust": {"use_trust_ratio": False, "lr": 1e-5},
    "average of a group": {"trust_ema_beta": 0.9}, "clipped to the parameter": {"agc_clip": 0.02},
    "both clips": {"agc_clip": 0.2, "trust_clip": 3.0, "rms_clip_threshold": 1.0},
    "clipped by size": {"rms_clip_threshold": 1.0, "use_trust_ratio": False},
    "decay": {"weight_decay": 0.1, "lr": 0.01}, "wide": {"sign_tau": 10.0, "eps": 1e-3},
}  # fmt: skip


def gradients(step: int, dtype: torch.dtype) -> list[torch.Tensor]:
    """Of sizes that grow and shrink."""
    scale = 10.0 ** (step % 4 - 3)
    return [normal(100 * step + k, *s, dtype=dtype, scale=scale) for k, s in enumerate(SHAPES)]


def trained(options: LiteralOptions, codecs: str, dtype: torch.dtype, steps: int) -> Literal:
    params = parameters(*SHAPES, dtype=dtype)
    optimizer = Literal(params, options, codecs)
    for step in range(steps):
        for param, gradient in zip(params, gradients(step, dtype), strict=True):
            param.grad = gradient
        optimizer.step()
    return optimizer


def by_formulas(options: LiteralOptions, dtype: torch.dtype, steps: int) -> list[LiteralTensor]:
    starts = [param.detach().double().numpy().copy() for param in parameters(*SHAPES, dtype=dtype)]
    group = LiteralGroup(options, [LiteralTensor(start) for start in starts])
    for step in range(steps):
        group.step([g.double().numpy() for g in gradients(step, dtype)])
    return list(group.tensors)


def assert_near(optimizer: Literal, tensors: list[LiteralTensor], tolerance: float) -> None:
    for param, tensor in zip(optimizer.param_groups[0]["params"], tensors, strict=True):
        scale = float(np.abs(tensor.param).max())
        found = param.detach().double().numpy()
        np.testing.assert_allclose(found, tensor.param, rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize("name", OPTIONS)
def test_doubles_follow_the_formulas(name: str) -> None:
    options = LiteralOptions(factored=False, **OPTIONS[name])
    optimizer = trained(options, "fp64+fp64", torch.float64, 50)
    assert_near(optimizer, by_formulas(options, torch.float64, 50), 1e-12)


@pytest.mark.parametrize("factored", [False, True])
@pytest.mark.parametrize("name", OPTIONS)
def test_floats_follow_the_formulas(name: str, factored: bool) -> None:
    """With rows and columns: the step divides by what those are after it, as the formulas do."""
    options = LiteralOptions(factored=factored, **OPTIONS[name])
    codecs = "fp32+factored" if factored else "fp32+fp32"
    optimizer = trained(options, codecs, torch.float32, 50)
    tensors = by_formulas(options, torch.float32, 50)
    assert_near(optimizer, tensors, 2e-5)
    if factored:
        state = optimizer.state[optimizer.param_groups[0]["params"][1]]
        np.testing.assert_allclose(state["exp_avg_sq_row"], tensors[1].rows, rtol=1e-5)
        np.testing.assert_allclose(state["exp_avg_sq_col"], tensors[1].columns, rtol=1e-5)


def test_an_average_is_of_the_group_in_the_order_of_its_tensors() -> None:
    """The defect of runs that are to be reproduced: what a tensor takes depends on others."""
    options = LiteralOptions(factored=False, trust_ema_beta=0.9)
    both = trained(options, "fp32+fp32", torch.float32, 3).gate_factors()
    each = trained(replace(options, trust_ema_beta=0.0), "fp32+fp32", torch.float32, 3)
    ratio = {name: both[name] / factor for name, factor in each.gate_factors().items()}
    assert max(ratio.values()) / min(ratio.values()) > 1.05


def fingerprint(codecs: str, dtype: torch.dtype, threads: int) -> str:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        options = LiteralOptions(agc_clip=0.02, trust_ema_beta=0.5, blend_steps=3)
        return digest(trained(options, codecs, dtype, 4))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("codecs", ["fp32+fp32", "fp32+factored", "bf16+factored"])
def test_the_bits_are_the_same_everywhere(codecs: str, threads: int, on_isa: Runner) -> None:
    found = on_isa(fingerprint, codecs, torch.float32, threads)
    assert found == fingerprint(codecs, torch.float32, 1)


def test_a_group_s_average_is_saved_and_goes_on() -> None:
    options = LiteralOptions(factored=False, trust_ema_beta=0.9)
    memory = trained(options, "fp32+fp32", torch.float32, 3).memory
    copy = _core.GateMemory(GATE, True, memory_options(options))
    copy.load(memory.state())
    assert copy.state() == memory.state() and memory.state()["trust_average"] > 0
    assert copy.take(2.0) == memory.take(2.0)
    assert copy.take(float("nan")) == 1.0
    assert copy.state() == memory.state()  # what is no number is not kept


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"trust_clip": 0.0}, "trust_clip is 0.0; expected a finite number > 0"),
        ({"trust_ema_beta": 1.0}, "trust_ema_beta is 1.0; expected a number in [0, 1)"),
        ({"use_trust_ratio": 1}, "use_trust_ratio is 1; expected True or False"),
        ({"agc_clip": "much"}, "agc_clip is 'much'; expected a finite number >= 0"),
    ],
)
def test_the_memory_refuses_what_is_out_of_range(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError) as caught:
        _core.GateMemory(GATE, True, {**memory_options(LiteralOptions()), **change})
    assert said in str(caught.value)


def test_powers_are_multiples_of_a_half() -> None:
    optimizer = trained(LiteralOptions(factored=False), "fp32+fp32", torch.float32, 1)
    optimizer.param_groups[0]["precond_alpha"] = 0.75
    with refused(optimizer, ValueError, "['precond_alpha'] is 0.75; expected 0, 0.5 or 1"):
        optimizer.step()


def test_it_is_measured_before_the_step_or_not_at_all() -> None:
    params = parameters(*SHAPES)
    optimizer = Literal(params, LiteralOptions(), "fp32+fp32", exact=False)
    for param, gradient in zip(params, gradients(0, torch.float32), strict=True):
        param.grad = gradient
    with refused(optimizer, ValueError, GATE, "measures before the step; expected exact=True"):
        optimizer.step()


def test_the_rule_goes_with_its_gate_alone() -> None:
    params = [nn.Parameter(torch.zeros(3))]
    with pytest.raises(ValueError, match="goes with gate 'tiger_literal' alone"):
        Cosmic(params, rung="tier2:fp32+fp32+tiger")
    with pytest.raises(ValueError, match="expected None or 'softsign'"):
        Cosmic(params, rule="tiger")
