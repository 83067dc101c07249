"""Steps under ``matrix_rule``: in backward, under gates, with closures, on many threads."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch

from cosmic import Cosmic, NonfiniteGradientError
from helpers import digest, parameters, refused, same_bits
from matrix_runs import CODECS, give, go, gradient, mixed, muons, params_of


def in_backward(optimizer: Cosmic, first: int, last: int) -> None:
    params = params_of(optimizer)
    with optimizer.step_in_backward():
        for step in range(first, last):
            grads = [gradient(step, k, p) for k, p in enumerate(params)]
            torch.autograd.backward(params, grads)
            assert all(p.grad is None for p in params)
            optimizer.step()


OPTIONS: list[dict[str, Any]] = [
    {},
    {"matrix_state_dtype": "fp32"},
    {"matrix_state_dtype": "m4", "min_compress_size": 0},
    {"gate": "snr"},
    {"gate": "snr", "exact": True},
    {"gate": "agar"},
    {"matrix_every": 2},
    {"matrix_every": 3, "matrix_blocks": 2},
    {"budget": "30%", "reallocate_every": 2},
    {"matrix_state_dtype": "none"},
    {"matrix_state_dtype": "none", "matrix_every": 2, "gate": "snr", "exact": True},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_steps_in_backward_have_the_bits_of_ordinary_ones(options: dict[str, Any]) -> None:
    ordinary, hooked = mixed(**options), mixed(**options)
    go(ordinary, 0, 5)
    in_backward(hooked, 0, 5)
    assert digest(hooked) == digest(ordinary)
    assert hooked.stats() == ordinary.stats()


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("threads", [2, 3, 7])
def test_any_number_of_threads_gives_the_same_bits(
    options: dict[str, Any], threads: int, set_threads: Callable[[int], None]
) -> None:
    found = []
    for count in (1, threads):
        set_threads(count)
        optimizer = mixed(**options)
        go(optimizer, 0, 4)
        found.append((digest(optimizer), optimizer.stats()))
    assert found[0] == found[1]


def trained(options: dict[str, Any]) -> str:
    optimizer = mixed(**options)
    go(optimizer, 0, 4)
    return digest(optimizer)


def test_every_instruction_set_gives_the_same_bits(on_isa: Callable[..., Any]) -> None:
    for options in OPTIONS:
        assert on_isa(trained, options) == trained(options)


def test_a_closure_is_called_first_and_its_loss_comes_back() -> None:
    plain, closed = mixed(), mixed()
    for step in range(3):
        go(plain, step, step + 1)

        def closure(step: int = step) -> float:
            assert torch.is_grad_enabled()
            give(closed, step)
            return 0.5 + step

        assert closed.step(closure) == 0.5 + step
    assert digest(closed) == digest(plain)


# ---- gradients that are not finite --------------------------------------------------------------

BAD = (float("nan"), float("inf"), float("-inf"))


def spoiled(optimizer: torch.optim.Optimizer, step: int, bad: float) -> None:
    """Gradients with one bad element, of the first parameter."""
    give(optimizer, step)
    grad = params_of(optimizer)[0].grad
    assert grad is not None
    grad[3, 5] = bad


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_gradient_spoils_its_whole_matrix_and_nothing_else(bad: float) -> None:
    spoilt, clean = mixed(), mixed()
    go(spoilt, 0, 2)
    go(clean, 0, 3)
    spoiled(spoilt, 2, bad)
    with pytest.warns(RuntimeWarning, match="a matrix that is stepped as a whole, all of it"):
        spoilt.step()
    first, *others = params_of(spoilt)
    assert first.isnan().all()
    for mine, other in zip(others, params_of(clean)[1:], strict=True):
        assert same_bits(mine, other)
    assert spoilt.stats()[0]["nonfinite_gradients"] == 1


def test_the_warning_speaks_of_matrices_where_there_are_some() -> None:
    optimizer = Cosmic(parameters((40, 70)))
    spoiled(optimizer, 0, BAD[0])
    with pytest.warns(RuntimeWarning, match=r"they spoil their own elements\. Further"):
        optimizer.step()


@pytest.mark.parametrize("bad", BAD)
def test_torchs_own_spoils_the_whole_matrix_too(bad: float) -> None:
    theirs, ours = torch.optim.Muon(parameters((40, 70))), muons((40, 70))
    for optimizer in (theirs, ours):
        spoiled(optimizer, 0, bad)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            optimizer.step()
        assert params_of(optimizer)[0].isnan().all()


@pytest.mark.parametrize("bad", BAD)
def test_raise_and_skip_look_before_anything_moves(bad: float) -> None:
    strict, lenient = mixed(nonfinite="raise"), mixed(nonfinite="skip")
    for optimizer in (strict, lenient):
        go(optimizer, 0, 2)
        spoiled(optimizer, 2, bad)
    with refused(strict, NonfiniteGradientError, "parameter 0", "1 non-finite"):
        strict.step()
    before = digest(lenient)
    lenient.step()
    assert digest(lenient) == before and lenient.stats()[0]["skipped_steps"] == 1
    for optimizer in (strict, lenient):
        go(optimizer, 2, 3)
        assert all(p.isfinite().all() for p in params_of(optimizer))


def test_skip_in_backward_leaves_out_the_matrix_alone() -> None:
    optimizer, clean = mixed(nonfinite="skip"), mixed()
    go(clean, 0, 1)
    params = params_of(optimizer)
    before = params[0].detach().clone()
    grads = [gradient(0, k, p) for k, p in enumerate(params)]
    grads[0][3, 5] = BAD[0]
    with optimizer.step_in_backward():
        torch.autograd.backward(params, grads)
        optimizer.step()
    assert torch.equal(params[0], before)
    for mine, other in zip(params[1:], params_of(clean)[1:], strict=True):
        assert same_bits(mine, other)


# ---- gates --------------------------------------------------------------------------------------


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("codec", CODECS)
def test_gate_snr_scales_the_update_of_a_matrix_and_not_its_decay(exact: bool, codec: str) -> None:
    options: dict[str, Any] = {
        "matrix_rule": "muon", "matrix_state_dtype": codec, "min_compress_size": 0, "lr": 0.01,
        "weight_decay": 0.5,
    }  # fmt: skip
    gated = Cosmic([("w", p) for p in parameters((40, 70))], gate="snr", exact=exact, **options)
    (param,) = params_of(gated)
    for step in range(30):
        param.grad = gradient(step, 0, param, scale=1 + 2 * (step % 2))
        gated.step()
    plain = Cosmic([("w", p) for p in parameters((40, 70))], **options)
    (twin,) = params_of(plain)
    groups = plain.state_dict()["param_groups"]
    plain.load_state_dict({**gated.state_dict(), "param_groups": groups})
    twin.data.copy_(param)
    before = param.detach().clone()
    for p, optimizer in ((param, gated), (twin, plain)):
        p.grad = 40 * gradient(30, 0, p)  # a jump, which `exact` sees at once
        optimizer.step()
    factor = gated.gate_factors()["w"]  # of this step
    assert factor < 0.9
    decayed = (1 - 0.01 * 0.5) * before
    ours, full = param.detach() - decayed, twin.detach() - decayed
    torch.testing.assert_close(ours, factor * full, rtol=0, atol=1e-6)


def test_gate_agar_leaves_matrices_alone() -> None:
    gated, plain = mixed(gate="agar"), mixed()
    go(gated, 0, 4)
    go(plain, 0, 4)
    for k in (0, 1):
        assert same_bits(params_of(gated)[k], params_of(plain)[k])
    assert not same_bits(params_of(gated)[2], params_of(plain)[2])
