"""What cannot hold within backward, bad gradients, and clipping."""

from __future__ import annotations

import io
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from backward_steps import (
    give,
    normal_gradients,
    ordinary_step,
    pair,
    params_of,
    tied,
)
from cosmic import Cosmic
from helpers import UNUSUAL, digest, normal, parameter, refused, same_bits

# ---- what cannot hold --------------------------------------------------------------------------


def test_a_second_gradient_is_refused_and_named() -> None:
    a, b = parameter(0, 30), parameter(1, 40)
    optimizer = Cosmic([("first", a), ("second", b)])
    with optimizer.step_in_backward():
        give([a], [normal(1, 30)])
        with refused(optimizer, RuntimeError, "'first'", "call step() after every backward"):
            give([a], [normal(2, 30)])
        optimizer.zero_grad()
        give([a, b], [normal(3, 30), normal(4, 40)])  # the step before counts, as far as it came
        optimizer.step()
    assert optimizer._steps == 2
    assert int(optimizer.state[a]["step"]) == 2 and int(optimizer.state[b]["step"]) == 1


def test_create_graph_is_refused() -> None:
    p = parameter(0, 30)
    optimizer = Cosmic([p])
    loss = (p * p * p).sum()
    with optimizer.step_in_backward(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with refused(optimizer, RuntimeError, "parameter 0", "create_graph=True"):
            loss.backward(create_graph=True)  # type: ignore[no-untyped-call]
        optimizer.zero_grad()
        (p * p).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert optimizer._steps == 1


def test_a_graph_that_still_needs_the_parameter_refuses() -> None:
    """Version counters move: autograd does not differentiate with values that have changed."""
    p = parameter(0, 30)
    optimizer = Cosmic([p])
    with optimizer.step_in_backward():
        loss = (p * p).sum()
        loss.backward(retain_graph=True)  # type: ignore[no-untyped-call]
        optimizer.step()
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()  # type: ignore[no-untyped-call]


def test_an_error_leaves_its_tensor_and_the_optimizer_usable() -> None:
    """What was stepped before it has been stepped; the tensor itself is as it was."""
    ours, ordinary = pair()
    params = params_of(ours)
    grads = normal_gradients(ours, 0)
    with ours.step_in_backward():
        give(params, grads)
        ours.step()
        ours.param_groups[0]["lr"] = -1.0
        with refused(ours, ValueError, "['lr'] is -1.0"):
            give(params, normal_gradients(ours, 7))
        ours.zero_grad()
        ours.param_groups[0]["lr"] = UNUSUAL["lr"]
        give(params, normal_gradients(ours, 1))
        ours.step()
    ordinary_step(ordinary, grads)
    ordinary_step(ordinary, normal_gradients(ordinary, 1))
    assert digest(ours) == digest(ordinary)
    assert ours._steps == ordinary._steps


@pytest.mark.parametrize("end", ["step", "zero_grad"])
def test_an_error_in_mid_backward(end: str) -> None:
    a, b = parameter(0, 30), parameter(1, 40, 50)
    optimizer = Cosmic([a, b], tier=2)
    with optimizer.step_in_backward():
        give([a, b], [normal(1, 30), normal(2, 40, 50)])
        optimizer.step()
        before = b.detach().clone()
        give([a], [normal(3, 30)])
        optimizer.state[b]["exp_avg"] = torch.zeros(3)
        with pytest.raises(ValueError, match=r"parameter 1 .*exp_avg of .*\(3,\); its rung needs"):
            give([b], [normal(4, 40, 50)])
        assert same_bits(b, before) and int(optimizer.state[a]["step"]) == 2
        del optimizer.state[b]
        if end == "step":
            b.grad = None
            optimizer.step()
        else:
            optimizer.zero_grad()
        give([a, b], [normal(5, 30), normal(6, 40, 50)])
        optimizer.step()
    assert optimizer._steps == 3
    assert int(optimizer.state[a]["step"]) == 3 and int(optimizer.state[b]["step"]) == 1


def test_sparse_gradients_are_refused_as_ordinarily() -> None:
    model = nn.Embedding(10, 4, sparse=True)
    optimizer = Cosmic(model.parameters())
    with optimizer.step_in_backward(max_norm=1.0), refused(optimizer, TypeError, "gradient"):
        model(torch.tensor([1, 2])).sum().backward()


def test_a_grad_scaler_is_refused_with_a_reason() -> None:
    p = parameter(0, 30)
    optimizer = Cosmic([p])
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    handle = optimizer.step_in_backward()
    scaler.scale((p * p).sum()).backward()  # type: ignore[no-untyped-call]
    with pytest.raises(RuntimeError, match="GradScaler cannot be used with step_in_backward"):
        scaler.step(optimizer)
    handle.remove()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.scale((p * p).sum()).backward()  # type: ignore[no-untyped-call]
    scaler.step(optimizer)
    scaler.update()


def test_the_model_is_checked() -> None:
    model, optimizer, _ = tied()
    extra = nn.Linear(3, 3)
    whole = nn.ModuleDict({"model": model, "extra": extra})
    with pytest.raises(ValueError, match=r"extra\.weight, extra\.bias; give them"):
        optimizer.step_in_backward(whole)
    extra.requires_grad_(False)
    optimizer.step_in_backward(whole).remove()
    with pytest.raises(ValueError, match=r"not the model's: .*'embedding\.weight'.* and 4 more"):
        optimizer.step_in_backward(extra)
    optimizer.step_in_backward(None).remove()
    optimizer.step_in_backward(model).remove()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clip": "global"}, "clip is 'global'; expected one of 'previous', 'tensor'"),
        ({"max_norm": 0.0}, "max_norm is 0.0; expected None or a number > 0"),
        ({"max_norm": float("nan")}, "max_norm is nan"),
        ({"max_norm": -1.0}, "max_norm is -1.0"),
    ],
)
def test_a_bad_option_is_refused(options: dict[str, Any], message: str) -> None:
    ours, _ = pair()
    with pytest.raises(ValueError, match=message):
        ours.step_in_backward(**options)
    ours.step_in_backward().remove()


# ---- gradients that are not finite -------------------------------------------------------------


def test_raise_cannot_hold() -> None:
    ours, _ = pair(nonfinite="raise")
    with pytest.raises(ValueError, match="nonfinite='raise' cannot hold"):
        ours.step_in_backward()
    ours.nonfinite = "propagate"
    with ours.step_in_backward():
        ours.nonfinite = "raise"
        with refused(ours, ValueError, "nonfinite='raise' cannot hold"):
            give(params_of(ours), normal_gradients(ours, 0))
        with refused(ours, ValueError, "nonfinite='raise' cannot hold"):
            ours.step()
        ours.nonfinite = "rase"
        with refused(ours, ValueError, "'propagate', 'raise' or 'skip'"):
            ours.step()


def test_propagate_counts_over_the_whole_step_and_warns_at_its_end() -> None:
    ours, ordinary = pair()
    grads = normal_gradients(ours, 0)
    grads[0][3] = grads[2][0, 0, 0] = grads[2][1, 1, 1] = float("nan")
    with ours.step_in_backward():
        give(params_of(ours), grads)
        with pytest.warns(RuntimeWarning, match="3 elements of gradients") as warned:
            ours.step()
        assert warned[0].filename == __file__
    with pytest.warns(RuntimeWarning):
        ordinary_step(ordinary, grads)
    assert digest(ours) == digest(ordinary)
    assert repr(ours.stats()) == repr(ordinary.stats())


def test_skip_leaves_out_the_tensor_alone() -> None:
    ours, ordinary = pair(nonfinite="skip")
    told: list[tuple[str, Any]] = []
    ours.add_listener(lambda event, fields: told.append((event, fields)))
    with ours.step_in_backward():
        for step in range(4):
            grads: list[Tensor | None] = [*normal_gradients(ours, step)]
            bad = normal(5, 65, 70)
            bad[1, 2] = bad[60, 1] = float("inf")
            if step == 2:
                grads[1] = bad
            give(params_of(ours), grads)
            assert all(p.grad is None for p in params_of(ours))
            ours.step()
            if step == 2:
                grads[1] = None
            ordinary_step(ordinary, grads)
    assert digest(ours) == digest(ordinary)
    assert (ours.stats()[0]["skipped_steps"], ours.stats()[0]["nonfinite_gradients"]) == (1, 2)
    skips = [fields for event, fields in told if event == "skipped"]
    assert skips == [{"step": 2, "parameters": ["parameter 1 (param_groups[0]['params'][1])"]}]
    assert ours._steps == 4


def test_a_step_in_which_all_is_skipped_leaves_no_trace() -> None:
    """As ordinarily: the trajectory is that of a run in which it never happened."""
    p, q = parameter(0, 300, dtype=torch.bfloat16), parameter(0, 300, dtype=torch.bfloat16)
    ours, ordinary = Cosmic([p], nonfinite="skip", tier=0), Cosmic([q], nonfinite="skip", tier=0)
    with ours.step_in_backward():
        for step in range(4):
            g = normal(step, 300, dtype=torch.bfloat16)
            if step in (0, 2):
                g[5] = float("nan")
            give([p], [g])
            ours.step()
            ordinary_step(ordinary, [g])
    assert digest(ours) == digest(ordinary)
    assert ours._steps == ordinary._steps == 2
    assert ours.stats()[0]["skipped_steps"] == 2


# ---- clipping ----------------------------------------------------------------------------------


def clipped_ordinarily(
    optimizer: Cosmic, grads: list[Tensor], max_norm: float, previous: float | None
) -> float:
    """One step on gradients clipped by hand; the norm of the whole gradient."""
    norms = [float(torch.linalg.vector_norm(g)) for g in grads]
    factors = [max_norm / ((norm if previous is None else previous) + 1e-6) for norm in norms]
    ordinary_step(optimizer, [g * f if f < 1 else g for g, f in zip(grads, factors, strict=True)])
    total = 0.0
    for norm in reversed(norms):  # as backward of leaves comes; the last bit is not the point
        total += norm * norm
    return float(total**0.5)


@pytest.mark.parametrize("clip", ["tensor", "previous"])
@pytest.mark.parametrize("state_dtype", ["u4+factored", "fp32"])
def test_clipping(state_dtype: str, clip: str) -> None:
    """Gradients shrink, so that some are scaled and some are not."""
    ours, ordinary = pair(state_dtype=state_dtype)
    previous: float | None = None
    with ours.step_in_backward(max_norm=8.0, clip=clip):
        for step in range(5):
            grads = normal_gradients(ours, step, scale=2.0**-step)
            given = [g.clone() for g in grads]
            give(params_of(ours), given)
            ours.step()
            norm = clipped_ordinarily(ordinary, grads, 8.0, previous)
            if clip == "previous":
                assert ours._gradient_norm == pytest.approx(norm, rel=1e-12)
                previous = ours._gradient_norm
    assert digest(ours) == digest(ordinary)


def test_the_previous_norm_is_in_the_checkpoint() -> None:
    def step(optimizer: Cosmic, k: int) -> None:
        give(params_of(optimizer), normal_gradients(optimizer, k, scale=3.0))
        optimizer.step()

    ours, resumed = pair()
    assert ours.state_dict()["cosmic"]["gradient_norm"] is None
    with ours.step_in_backward(max_norm=1.0):
        for k in range(2):
            step(ours, k)
        file = io.BytesIO()
        torch.save(ours.state_dict(), file)
        file.seek(0)
        for p, q in zip(params_of(ours), params_of(resumed), strict=True):
            q.data.copy_(p.data)
        step(ours, 2)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    with resumed.step_in_backward(max_norm=1.0):
        step(resumed, 2)
    assert digest(resumed) == digest(ours)
    assert resumed.state_dict()["cosmic"] == ours.state_dict()["cosmic"]


@pytest.mark.parametrize("norm", [-1.0, float("nan"), float("inf"), "1", 3])
def test_a_bad_norm_in_a_checkpoint_is_refused(norm: object) -> None:
    ours, _ = pair()
    saved = ours.state_dict()
    saved["cosmic"]["gradient_norm"] = norm
    with refused(ours, ValueError, "gradient_norm", "expected a float >= 0"):
        ours.load_state_dict(saved)


def test_a_norm_that_is_not_finite_clips_nothing_now_or_later() -> None:
    """The bad elements are spoiled, as without clipping; the others are not scaled by NaN."""
    ours, _ = pair()
    good, bad = normal_gradients(ours, 0), normal_gradients(ours, 1)
    bad[0][3] = float("nan")
    with ours.step_in_backward(max_norm=1.0), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        give(params_of(ours), good)
        ours.step()
        norm = ours._gradient_norm
        give(params_of(ours), bad)
        ours.step()
    assert ours._gradient_norm == norm
    assert [int(p.isnan().sum()) for p in params_of(ours)] == [1, 0, 0]


def test_a_norm_beyond_the_dtype_still_clips() -> None:
    p = parameter(0, 400, dtype=torch.float16)
    optimizer = Cosmic([p], tier=0)
    gradient = torch.full((400,), 6e4, dtype=torch.float16)
    with optimizer.step_in_backward(max_norm=1.0, clip="tensor"):
        give([p], [gradient])
        optimizer.step()
    assert optimizer.stats()[0]["gradient_abs"] == pytest.approx(0.05, rel=1e-2)


def test_clip_grad_norm_finds_nothing() -> None:
    ours, _ = pair()
    with ours.step_in_backward():
        give(params_of(ours), normal_gradients(ours, 0))
        assert float(nn.utils.clip_grad_norm_(params_of(ours), 1.0)) == 0.0
        ours.step()
