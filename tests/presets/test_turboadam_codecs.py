"""TurboAdam's codecs against the package's: what they lose of the moments, and costate's steps.

Random bits differ, so that ``ustate`` and ``vlog`` can only be compared in distribution. For 20
seeds, both go through the same gradients; errors against the exact averages are summed up as mean,
shrinkage, root mean square and quantiles (``turboadam_errors.statistics``). The differences between
preset and package, seed by seed, must be within five standard errors of zero, their own spread over
the seeds. A codec that is wrong in where its levels lie, in how it rounds, in what it divides by or
in what it leaves out moves one of these by more; that is shown by codecs that are wrong on purpose,
put together of the package's own functions. How far apart codes are lags by a step and hardly shows
in errors: it is compared as such.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cosmic.presets import TurboAdam
from helpers import normal
from reference.packed import pack
from turboadam_errors import (
    NAMES,
    WRONG,
    Run,
    emulated_run,
    exact_moments,
    gradients,
    package_run,
    preset_run,
    statistics,
)
from turboadam_packages import release_0_1_0, release_0_2_0

SEEDS = 20
STANDARD_ERRORS = 5.0
V_BITS = (2, 3, 4, 6, 8)
#: With a last block of 57 elements, of 100 and of 64.
SIZES = (5177, 4196, 4160)
#: Every width of codes, and every last block at the narrowest, the common one and the widest.
PAIRS = [*((bits, SIZES[0]) for bits in V_BITS), *product((2, 4, 8), SIZES[1:])]


def over_seeds(run: Callable[[list[Tensor], int, int], Run], numel: int, v_bits: int) -> Any:
    """(seeds, statistics), and (seeds, steps, 2) of how far apart codes are."""
    found, steps = [], []
    for seed in range(SEEDS):
        given = gradients(numel, seed)
        done = run(given, v_bits, seed + 1)
        found.append(statistics(done, *exact_moments(given)))
        steps.append(torch.tensor(done.steps, dtype=torch.float64))
    return torch.stack(found), torch.stack(steps)


@cache
def of_the_package(numel: int, v_bits: int) -> Any:
    return over_seeds(package_run, numel, v_bits)


@cache
def of_the_preset(numel: int, v_bits: int) -> Any:
    return over_seeds(preset_run, numel, v_bits)


def apart(ours: Tensor, theirs: Tensor) -> dict[str, float]:
    """The mean differences, in standard errors."""
    off = ours - theirs
    error = off.std(0) / SEEDS**0.5
    found = torch.where(off.any(0), off.mean(0) / error, 0.0)
    return dict(zip(NAMES, found.abs().tolist(), strict=True))


def steps_apart(ours: Tensor, theirs: Tensor) -> float:
    """The largest relative difference of a step between codes, in the mean over seeds."""
    return float((ours.mean(0) / theirs.mean(0) - 1).abs().max())


@pytest.mark.parametrize(("v_bits", "numel"), PAIRS)
def test_errors_are_the_packages(v_bits: int, numel: int) -> None:
    found = apart(of_the_preset(numel, v_bits)[0], of_the_package(numel, v_bits)[0])
    assert {name: x for name, x in found.items() if x > STANDARD_ERRORS} == {}


@pytest.mark.parametrize("v_bits", V_BITS)
def test_the_step_between_codes_lags_as_the_packages(v_bits: int) -> None:
    """At every step of the run, in which gradients grow threefold at once: the step that codes
    were made with and the one for the next, within a percent. With 2 and 3 bits a second moment is
    so rough that first moments in its units have a long tail: there their spread over the seeds
    decides, where it allows more."""
    ours, theirs = of_the_preset(SIZES[0], v_bits)[1], of_the_package(SIZES[0], v_bits)[1]
    off = (ours - theirs).mean(0).abs()
    allowed = 0.01 * theirs.mean(0)
    if v_bits < 4:
        allowed = torch.maximum(allowed, STANDARD_ERRORS * (ours - theirs).std(0) / SEEDS**0.5)
    assert bool((off <= allowed).all())
    assert torch.equal(ours[:, 1:, 0], ours[:, :-1, 1])
    assert torch.equal(ours[:, 0, 0], torch.full((SEEDS,), 1.1).double())


def test_the_emulation_of_the_package_is_the_package() -> None:
    given = gradients(1000, 3)
    emulated, real = emulated_run(given, 4, 7), package_run(given, 4, 7)
    assert torch.equal(emulated.m, real.m) and torch.equal(emulated.v, real.v)
    assert emulated.steps == real.steps


@pytest.mark.parametrize("wrong", [name for name in WRONG if name != "scale-not-lagged"])
def test_the_errors_of_a_wrong_codec_would_be_seen(wrong: str) -> None:
    def run(given: list[Tensor], v_bits: int, seed: int) -> Run:
        return emulated_run(given, v_bits, seed, **WRONG[wrong])

    found = apart(over_seeds(run, SIZES[0], 4)[0], of_the_package(SIZES[0], 4)[0])
    assert max(found.values()) > 2 * STANDARD_ERRORS


def test_a_scale_that_does_not_lag_would_be_seen() -> None:
    def run(given: list[Tensor], v_bits: int, seed: int) -> Run:
        return emulated_run(given, v_bits, seed, **WRONG["scale-not-lagged"])

    wrong, theirs = over_seeds(run, SIZES[0], 4)[1], of_the_package(SIZES[0], 4)[1]
    assert steps_apart(wrong, theirs) > 0.1


# ---- costate: nothing is random, so that it is the same step for step --------------------------

NUMEL = 5177
OPTIONS: dict[str, Any] = {"lr": 1e-2, "betas": (0.9, 0.99), "weight_decay": 0.1}


def costate_pair(**options: Any) -> tuple[Any, TurboAdam]:
    """Of 0.1.0 and ours, with the second moment in float32."""
    theirs = release_0_1_0().TurboAdam(
        [nn.Parameter(normal(0, NUMEL))], compress_v=False, **OPTIONS, **options
    )
    ours = TurboAdam(
        [nn.Parameter(normal(0, NUMEL))], compress_v=False, m_codec="costate", **OPTIONS, **options
    )
    return theirs, ours


def params_of(*optimizers: Any) -> list[nn.Parameter]:
    return [optimizer.param_groups[0]["params"][0] for optimizer in optimizers]


def step_both(theirs: Any, ours: TurboAdam, t: int) -> None:
    for param in params_of(theirs, ours):
        param.grad = normal(100 + t, NUMEL) * torch.exp(normal(1, NUMEL)) + 0.1
    theirs.step()
    ours.step()


def give_momentum(theirs: Any, ours: TurboAdam, null_pct: float, amp_pct: float) -> None:
    """The same encoded rest and share for both, as if momentum had come from elsewhere."""
    costate = release_0_1_0().costate
    m = normal(7, NUMEL) * torch.exp(normal(8, NUMEL))
    _, delta = costate.decompose(m, normal(9, NUMEL))
    ratios = costate.compute_block_ratios(delta, m)
    labels = costate.classify_blocks(ratios, *costate.compute_thresholds(ratios, null_pct, amp_pct))
    encoded = costate.encode_blocks(delta, labels)
    their_param, our_param = params_of(theirs, ours)
    manager = theirs.state[their_param]["m_mgr"]
    manager._encoded, manager._alpha = encoded, torch.tensor(0.25)

    scales = torch.where(labels == 0, 0.0, encoded["block_norms"] / 128**0.5)
    scales = torch.where(labels == 2, encoded["scales"].float(), scales)
    signs = np.zeros((-(-NUMEL // 128), 128), np.int64)
    signs.reshape(-1)[:NUMEL] = (delta < 0).numpy()
    state = ours.state[our_param]
    state["exp_avg_costate_codes"].copy_(torch.from_numpy(pack(signs, 1)))
    state["exp_avg_costate_scale"].copy_(scales)
    state["exp_avg_costate_alpha"].fill_(0.25)


@pytest.mark.parametrize(("null_pct", "amp_pct"), [(0.1, 0.9), (0.0, 1.0), (0.4, 0.5)])
def test_costate_from_momentum_is_the_package_step_for_step(
    null_pct: float, amp_pct: float
) -> None:
    """To float rounding, of which parameters of about 1 take 1e-7 a step."""
    theirs, ours = costate_pair(null_pct=null_pct, amp_pct=amp_pct)
    step_both(theirs, ours, 0)
    give_momentum(theirs, ours, null_pct, amp_pct)
    p, q = params_of(theirs, ours)
    for t in range(1, 20):
        step_both(theirs, ours, t)
        torch.testing.assert_close(q, p, rtol=1e-6, atol=3e-6)
        manager, state = theirs.state[p]["m_mgr"], ours.state[q]
        torch.testing.assert_close(
            state["exp_avg_costate_alpha"], manager._alpha, rtol=1e-5, atol=1e-7
        )
        labels = manager._encoded["labels"]
        assert torch.equal(state["exp_avg_costate_scale"] == 0, labels == 0)
        if null_pct < amp_pct < 1:
            assert set(labels.tolist()) == {0, 1, 2}
        scales = manager._encoded["block_norms"] / 128**0.5
        scales = torch.where(labels == 2, manager._encoded["scales"].float(), scales)
        # a half next to another is 2^-10 away
        torch.testing.assert_close(
            state["exp_avg_costate_scale"][labels > 0], scales[labels > 0], rtol=2.0**-10, atol=1e-7
        )


def test_what_costate_starts_from_is_felt() -> None:
    """The test above would not pass if momentum were left out: it moves parameters."""
    without, with_it = costate_pair(), costate_pair()
    for pair in (without, with_it):
        step_both(*pair, 0)
    give_momentum(*with_it, 0.1, 0.9)
    for t in range(1, 4):
        step_both(*without, t)
        step_both(*with_it, t)
    for p, q in zip(params_of(*without), params_of(*with_it), strict=True):
        assert float((p - q).detach().abs().max()) > 1e-3


def test_costate_gathers_no_momentum_of_its_own() -> None:
    """From zero, m stays a multiple of the newest gradient: it is one after the first step, what
    is kept of it is the multiple, the next gradient takes the old one's place, and the rest stays
    rounding noise. So alpha is 1 - beta1^t, in the package as here, and the update is that of Adam
    without a first moment. Nor does momentum from elsewhere last: the rest decays by beta1."""
    theirs, ours = costate_pair()
    p, q = params_of(theirs, ours)
    for t in range(15):
        step_both(theirs, ours, t)
        manager, state = theirs.state[p]["m_mgr"], ours.state[q]
        for alpha in (manager._alpha, state["exp_avg_costate_alpha"]):
            assert float(alpha) == pytest.approx(1 - 0.9 ** (t + 1), rel=1e-5)
        for scales in (manager._encoded["scales"].float(), state["exp_avg_costate_scale"]):
            assert float(scales.max()) < 1e-5  # of gradients of 1 and more
    torch.testing.assert_close(q, p, rtol=1e-6, atol=3e-6)

    give_momentum(theirs, ours, 0.0, 1.0)
    before = float(ours.state[q]["exp_avg_costate_scale"].max())
    for t in range(15, 45):
        step_both(theirs, ours, t)
    encoded = theirs.state[p]["m_mgr"]._encoded
    for scales in (encoded["scales"], ours.state[q]["exp_avg_costate_scale"]):
        assert float(scales.max()) < 2 * 0.9**30 * before


# ---- without compression -----------------------------------------------------------------------


def test_without_compression_it_is_adamw_and_the_package() -> None:
    """200 steps, to float rounding."""
    shapes = ((40, 129), (511,), (1,))
    options: dict[str, Any] = {"lr": 3e-3, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.1}
    off = {"compress_m": False, "compress_v": False}
    params = [[nn.Parameter(normal(k, *s)) for k, s in enumerate(shapes)] for _ in range(4)]
    optimizers: list[Any] = [
        TurboAdam(params[0], **options, **off),  # type: ignore[arg-type]
        torch.optim.AdamW(params[1], **options),
        release_0_2_0().TurboAdam(params[2], **options, **off),
        release_0_1_0().TurboAdam(params[3], **options, **off),
    ]
    for t in range(200):
        for optimizer, own in zip(optimizers, params, strict=True):
            for k, param in enumerate(own):
                param.grad = normal(1000 * t + k, *param.shape)
            optimizer.step()
    for theirs in params[1:]:
        for ours, other in zip(params[0], theirs, strict=True):
            torch.testing.assert_close(ours, other, rtol=3e-6, atol=3e-6)


def test_the_packages_are_not_mixed_up() -> None:
    """Loading the old release leaves the installed one in its place."""
    old, new = release_0_1_0(), release_0_2_0()
    assert (old.__version__, new.__version__) == ("0.1.0", "0.2.0")
    assert importlib.import_module("turboadam") is new
    assert sys.modules["turboadam.quantize"] is new.quantize
