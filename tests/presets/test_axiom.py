"""Preset AXIOM: what it keeps, to the byte, and that it is a composition of what is public."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from backward_steps import Tied
from cosmic import Cosmic, NonfiniteGradientError, estimate_memory
from cosmic.presets import AXIOM
from cosmic.presets.axiom import NearZeroPolicy
from helpers import (
    UNUSUAL,
    digest,
    give_gradients,
    normal,
    parameter,
    parameters,
    refused,
    same_bits,
    state_tensors,
    take_steps,
    through_a_file,
)

MATRIX, VECTOR = "tier1:factored", "tier1"
SHAPES = ((70, 65), (33,), (5, 20), ())


def params_of(optimizer: Cosmic) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def stepped(*shapes: tuple[int, ...], steps: int = 2, **options: Any) -> AXIOM:
    optimizer = AXIOM(parameters(*shapes), **options)
    take_steps(optimizer, 0, steps)
    return optimizer


def rungs(optimizer: Cosmic) -> list[str]:
    return [info.rung for info in optimizer.tiers()]


# ---- what is kept --------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.integers(1, 70), st.integers(1, 200)),
            st.tuples(st.integers(1, 5000)),
            st.just(()),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_a_matrix_takes_four_bytes_a_row_and_a_column_and_all_else_scalars(
    shapes: list[tuple[int, ...]],
) -> None:
    """A count, and the last update's root mean square or two means; of a matrix its shape, too."""
    optimizer = stepped(*shapes, steps=1)
    count, scalars, mean, number = 8, 16, 8, 8
    factored = [len(shape) == 2 and shape[0] > 1 and shape[1] >= 16 for shape in shapes]
    expected = [
        4 * sum(shape) + count + mean + number * len(shape) if has else count + scalars
        for shape, has in zip(shapes, factored, strict=True)
    ]
    assert [info.nbytes for info in optimizer.tiers()] == expected
    assert (
        optimizer.state_bytes() == sum(expected) == sum(t.nbytes for t in state_tensors(optimizer))
    )


@pytest.mark.parametrize(
    ("param", "rung"),
    [
        (parameter(0, 4, 16), MATRIX),
        (parameter(0, 64, 15), VECTOR),
        (parameter(0, 8, 3, 3, 3), MATRIX),
        (parameter(0, 70_000), VECTOR),
        (parameter(0, 64, 64, dtype=torch.bfloat16), MATRIX),
        (parameter(0, 64, 64, dtype=torch.float16), MATRIX),
        (parameter(0, 64, 64, dtype=torch.complex64), MATRIX),
        (parameter(0, 64, 64, dtype=torch.float64), VECTOR),
        (parameter(0, 1, 640), VECTOR),
        (parameter(0, 0, 3), "tier0"),
    ],
    ids=lambda x: x if isinstance(x, str) else f"{x.dtype}-{tuple(x.shape)}",
)
def test_nothing_takes_a_number_an_element(param: nn.Parameter, rung: str) -> None:
    optimizer = AXIOM([param])
    take_steps(optimizer, 0, 2)
    assert rungs(optimizer) == [rung]
    assert optimizer.state_bytes() <= max(24, 32 + 8 * param.dim() + 8 * sum(param.shape))


def test_what_is_masked_has_scalars_from_its_second_step() -> None:
    mask = (normal(5, 64, 64) > 1.3).float()
    both = []
    for within in (False, True):
        p = parameter(0, 64, 64)
        optimizer = AXIOM([p], max_grad_norm=None)
        if within:
            optimizer.register_hooks()
        for step in range(3):
            optimizer.zero_grad()
            torch.autograd.backward([p], [normal(step, 64, 64) * mask])
            optimizer.step()
        assert rungs(optimizer) == [VECTOR]
        both.append(digest(optimizer))
    assert both[0] == both[1]


@pytest.mark.parametrize("gate", [None, "snr"])
def test_it_is_cosmic_with_these_rungs(gate: str | None) -> None:
    ours = stepped(*SHAPES, steps=25, **UNUSUAL, gate=gate)
    matrix, vector, small, scalar = parameters(*SHAPES)
    groups: list[dict[str, Any]] = [
        {"params": [matrix], "rung": MATRIX},
        {"params": [vector], "rung": VECTOR},
        {"params": [small], "rung": MATRIX, "min_compress_size": 0},
        {"params": [scalar], "rung": VECTOR},
    ]
    named = Cosmic(groups, **UNUSUAL, gate=gate, c_min=0.5)
    take_steps(named, 0, 25)
    assert rungs(ours) == rungs(named) == [MATRIX, VECTOR, MATRIX, VECTOR]
    assert all(map(same_bits, params_of(ours), params_of(named)))
    assert ours.state_bytes() == named.state_bytes()
    assert ours.gate_factors() == named.gate_factors()


def test_a_gate_has_the_floor_as_its_least_factor() -> None:
    p = parameter(0, 40, 40)
    optimizer = AXIOM([p], gate="snr", snr_floor=0.9)
    for step in range(40):
        p.grad = normal(step, 40, 40, scale=10.0 ** (step % 5))
        optimizer.step()
    assert optimizer.gate_factors() == {"0": 0.9}
    assert optimizer.param_groups[0]["c_min"] == 0.9


@pytest.mark.parametrize(
    ("option", "rung"),
    [
        ({"rung": "tier2:fp32+fp32"}, "tier2:fp32+fp32"),
        ({"tier": 0}, "tier0"),
        ({"min_tier": 2}, "tier2:u4+factored"),
        ({"max_tier": 0}, "tier0"),
        ({"matrix_rule": "muon", "role": "matrix"}, "tier1:muon"),
    ],
    ids=str,
)
def test_a_group_has_what_it_asks_for(option: dict[str, Any], rung: str) -> None:
    optimizer = AXIOM([{"params": [parameter(0, 80, 64)], **option}, {"params": [parameter(1, 9)]}])
    take_steps(optimizer, 0, 2)
    assert rungs(optimizer) == [rung, VECTOR]


# ---- budgets, and checkpoints of others ----------------------------------------------------------


def test_a_budget_is_spent_as_cosmics() -> None:
    """The next to nothing of its own is of no budget alone."""
    options: dict[str, Any] = {**UNUSUAL, "budget": "20%", "reallocate_every": 2}
    ours, cosmics = AXIOM(parameters(*SHAPES), **options), Cosmic(parameters(*SHAPES), **options)
    for optimizer in (ours, cosmics):
        take_steps(optimizer, 0, 5)
    assert digest(ours) == digest(cosmics)


def test_a_budget_may_come_and_go() -> None:
    optimizer = stepped((300, 64), (40,))
    least = optimizer.state_bytes()
    optimizer.budget = "100%"
    take_steps(optimizer, 2, 5)
    assert optimizer.state_bytes() > least
    optimizer.budget = None
    take_steps(optimizer, 5, 7)
    assert optimizer.state_bytes() == least
    assert rungs(optimizer) == [MATRIX, VECTOR]


def test_it_goes_on_from_adamws_checkpoint_with_its_second_moment() -> None:
    """In rows and columns, with the count; what it had beside is given up."""
    adamw = torch.optim.AdamW([parameter(0, 64, 48)], lr=1e-3, weight_decay=0.0)
    for step in range(50):
        adamw.param_groups[0]["params"][0].grad = normal(step, 64, 48)
        adamw.step()
    optimizer = AXIOM([parameter(0, 64, 48)])
    optimizer.load_state_dict(adamw.state_dict())
    (p,) = params_of(optimizer)
    second = adamw.state_dict()["state"][0]["exp_avg_sq"]
    p.grad = normal(50, 64, 48)
    optimizer.step()
    held = optimizer.state[p]
    assert optimizer.param_groups[0]["weight_decay"] == 0.0
    assert (int(held["step"]), rungs(optimizer)) == (51, [MATRIX])
    rows = 0.999 * second.mean(1) + 0.001 * p.grad.square().mean(1)
    torch.testing.assert_close(held["exp_avg_sq_row"], rows)
    assert optimizer.state_bytes() == 4 * (64 + 48) + 32


@pytest.mark.parametrize("other", [Cosmic, AXIOM])
def test_checkpoints_exchange_with_cosmics(other: type[Cosmic]) -> None:
    """A file's bits go on here and there by the options of the optimizer that loads them."""
    source = stepped(*SHAPES, steps=3)
    target = other(parameters(*SHAPES))
    with torch.no_grad():
        for mine, its in zip(params_of(target), params_of(source), strict=True):
            mine.copy_(its)
    target.load_state_dict(through_a_file(source.state_dict()))
    for optimizer in (source, target):
        take_steps(optimizer, 3, 4)
    assert (digest(target) == digest(source)) == (other is AXIOM)
    back = AXIOM(parameters(*SHAPES))
    back.load_state_dict(through_a_file(target.state_dict()))
    take_steps(back, 4, 5)
    assert rungs(back) == [MATRIX, VECTOR, MATRIX, VECTOR]


@pytest.mark.parametrize("way", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
def test_a_copy_goes_on_as_it_would(way: Any) -> None:
    optimizer = stepped(*SHAPES, max_grad_norm=0.5, detect_anomaly=True, seed=3)
    optimizer.step(loss=2.5)
    optimizer.register_hooks()
    twin = way(optimizer)
    assert (twin.max_grad_norm, twin.nonfinite, twin.last_loss) == (0.5, "raise", 2.5)
    optimizer.remove_hooks()
    for one in (optimizer, twin):
        take_steps(one, 3, 5)
    assert digest(twin) == digest(optimizer)


# ---- what it tells -------------------------------------------------------------------------------


def test_an_estimate_of_its_policy_is_the_bytes_of_the_run() -> None:
    model = Tied()
    optimizer = AXIOM(model.parameters())
    model.loss(0).backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    told = estimate_memory(model, budget=2**40, policy=NearZeroPolicy())
    usage = optimizer.memory_usage(model)
    assert told.state_bytes == usage.state_bytes == optimizer.state_bytes()
    assert told.adamw_bytes == usage.adamw_bytes
    assert told.gradient_bytes == usage.gradient_bytes
    assert told.weight_bytes == usage.weight_bytes


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_memory_usage_is_the_sum_of_what_is_held(
    dtype: torch.dtype, capsys: pytest.CaptureFixture[str]
) -> None:
    model = nn.Sequential(nn.Linear(40, 30), nn.BatchNorm1d(30), nn.Linear(30, 7)).to(dtype)
    model[2].bias.requires_grad_(False)
    optimizer = AXIOM([p for p in model.parameters() if p.requires_grad])
    empty = optimizer.memory_usage(model)
    assert (empty.state_bytes, empty.state_ratio) == (0, math.inf)
    model(normal(0, 4, 40, dtype=dtype)).square().sum().backward()
    optimizer.step()
    usage = optimizer.memory_usage(model)
    trained = params_of(optimizer)
    gradients = [p.grad.nbytes for p in trained if p.grad is not None]
    everything = [*model.parameters(), *model.buffers()]
    assert usage.weight_bytes == sum(t.nbytes for t in everything)
    assert usage.gradient_bytes == usage.all_gradient_bytes == sum(gradients)
    assert usage.state_bytes == sum(t.nbytes for t in state_tensors(optimizer))
    twins = [p.detach().float().requires_grad_() for p in trained]
    adamw = torch.optim.AdamW(twins)
    for p in twins:
        p.grad = torch.ones_like(p)
    adamw.step()
    theirs = [t.nbytes for state in adamw.state.values() for t in state.values()]
    assert usage.adamw_bytes == sum(theirs)
    assert usage.state_ratio == sum(theirs) / optimizer.state_bytes()
    assert usage.total_bytes == usage.weight_bytes + sum(gradients) + usage.state_bytes
    own = optimizer.memory_usage()
    assert own.weight_bytes == sum(p.nbytes for p in trained)
    printed = capsys.readouterr().out
    assert f"{usage.state_bytes:,}" in printed and f"{usage.adamw_bytes:,}" in printed
    optimizer.register_hooks()
    assert optimizer.memory_usage().gradient_bytes == max(gradients)
    assert optimizer.memory_usage().all_gradient_bytes == sum(gradients)


# ---- a step --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "loss",
    [2.5, torch.tensor(2.5), torch.tensor([2.5], requires_grad=True), normal(0, 1)[0] * 0 + 2.5],
)
def test_a_step_keeps_the_loss_that_it_is_told(loss: Any) -> None:
    optimizer, silent = AXIOM(parameters(*SHAPES)), stepped(*SHAPES, steps=1)
    assert optimizer.last_loss is None
    give_gradients(params_of(optimizer), seed=0)
    assert optimizer.step(loss) is None
    assert optimizer.last_loss == 2.5
    optimizer.zero_grad()
    optimizer.step(loss=-loss)
    assert optimizer.last_loss == -2.5
    assert digest(optimizer) == digest(silent)


def test_a_closure_may_come_first_or_by_name_and_with_a_loss() -> None:
    found = []
    calls: tuple[Callable[[Any, Any], Any], ...] = (
        lambda o, c: o.step(c), lambda o, c: o.step(closure=c), lambda o, c: o.step(None, c),
        lambda o, c: o.step(9.0, closure=c), lambda o, c: o.step(loss=c),
    )  # fmt: skip
    for call in calls:
        p = parameter(0, 20, 30)
        optimizer = AXIOM([p], max_grad_norm=0.1)

        def closure(optimizer: AXIOM = optimizer, p: Tensor = p) -> Tensor:
            optimizer.zero_grad()
            loss = p.square().sum()
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        loss = call(optimizer, closure)
        assert optimizer.last_loss == float(loss.detach()) > 0
        found.append(digest(optimizer))
    assert len(set(found)) == 1
    with pytest.raises(TypeError, match="two closures"):
        optimizer.step(closure, closure)  # type: ignore[call-overload]


@pytest.mark.parametrize("loss", ["high", True, torch.ones(2), 1j, [1.0]], ids=str)
def test_what_is_no_loss_is_refused(loss: Any) -> None:
    optimizer = stepped(*SHAPES)
    give_gradients(params_of(optimizer), seed=2)
    with refused(optimizer, TypeError, "loss is"):
        optimizer.step(loss)


@pytest.mark.parametrize("max_norm", [0.5, 1e6])
def test_gradients_are_clipped_as_torch_clips_them(max_norm: float) -> None:
    ours = stepped(*SHAPES, steps=4, max_grad_norm=max_norm)
    plain = AXIOM(parameters(*SHAPES))
    for step in range(4):
        give_gradients(params_of(plain), seed=step)
        torch.nn.utils.clip_grad_norm_(params_of(plain), max_norm)
        plain.step()
    assert digest(ours) == digest(plain)


def test_a_norm_that_overflows_is_taken_in_double() -> None:
    """In float32 the squares of 1e30 are infinite: they are clipped and do not vanish."""
    p = parameter(0, 20, 30)
    optimizer = AXIOM([p], max_grad_norm=1.0)
    p.grad = normal(1, 20, 30, scale=1e30)
    optimizer.step()
    assert float(p.grad.norm()) == pytest.approx(1.0, rel=1e-5)


# ---- gradients that are not finite ---------------------------------------------------------------


@pytest.mark.parametrize("max_norm", [None, 1.0])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_bad_gradient_is_an_error_and_no_bit_has_changed(
    value: float, max_norm: float | None
) -> None:
    """Nor is any other gradient: the error names the one that is bad."""
    named = [("body", parameter(0, 70, 65)), ("norm", parameter(1, 33))]
    optimizer = AXIOM(named, max_grad_norm=max_norm)
    take_steps(optimizer, 0, 2)
    give_gradients(params_of(optimizer), seed=2)
    bad = params_of(optimizer)[1].grad
    assert bad is not None
    bad[4] = value
    before = [p.grad.clone() for p in params_of(optimizer) if p.grad is not None]
    with refused(optimizer, NonfiniteGradientError, "'norm'", "1 non-finite", "nothing was"):
        optimizer.step()
    after = [p.grad for p in params_of(optimizer) if p.grad is not None]
    assert all(map(same_bits, before, after))
    bad[4] = 0.0
    optimizer.step()


@pytest.mark.parametrize(
    ("options", "mode"),
    [
        ({}, "raise"),
        ({"detect_anomaly": False}, "propagate"),
        ({"nonfinite": "skip"}, "skip"),
        ({"detect_anomaly": False, "nonfinite": "raise"}, "raise"),
    ],
    ids=str,
)
def test_nonfinite_comes_before_detect_anomaly(options: dict[str, Any], mode: str) -> None:
    assert AXIOM([parameter(0, 3)], **options).nonfinite == mode


def test_a_sparse_gradient_is_refused_by_the_step_and_not_by_the_clip() -> None:
    embedding = nn.Embedding(40, 16, sparse=True)
    optimizer = AXIOM(embedding.parameters(), max_grad_norm=1.0)
    embedding(torch.tensor([1, 2])).sum().backward()
    with refused(optimizer, TypeError, "sparse"):
        optimizer.step()


# ---- rates ---------------------------------------------------------------------------------------


def test_rates_are_told_and_set() -> None:
    optimizer = stepped(*SHAPES, lr=3e-3)
    assert optimizer.get_lr() == 3e-3
    optimizer.set_lr(1e-4)
    assert optimizer.get_lr() == optimizer.param_groups[0]["lr"] == 1e-4
    optimizer.add_param_group({"params": [parameter(9, 5)], "lr": torch.tensor(0.5)})
    assert optimizer.get_lr() == [1e-4, 0.5]
    tensor = optimizer.param_groups[1]["lr"]
    optimizer.set_lr([0.25, 0.125])
    assert optimizer.param_groups[1]["lr"] is tensor
    assert optimizer.get_lr() == [0.25, 0.125]
    optimizer.set_lr(optimizer.get_lr())
    assert optimizer.get_lr() == [0.25, 0.125]
    optimizer.set_lr(0)
    assert optimizer.get_lr() == 0


@pytest.mark.parametrize("lr", [-1.0, math.nan, math.inf, "fast", True, [1e-3, 1e-3], [], ["x"]])
def test_what_is_no_rate_is_refused(lr: Any) -> None:
    optimizer = stepped(*SHAPES)
    with refused(optimizer, ValueError, "lr is", "1 such numbers"):
        optimizer.set_lr(lr)
    assert optimizer.get_lr() == 1e-3
