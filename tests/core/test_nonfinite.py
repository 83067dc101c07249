"""What an infinite or NaN gradient does: propagate, raise or skip."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cosmic import Cosmic, NonfiniteGradientError
from helpers import UNUSUAL, digest, normal, parameter, refused, take_steps
from reference.sums import ITEM

BAD = {"nan": float("nan"), "inf": float("inf"), "-inf": float("-inf")}
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.complex64]


def spoiled(param: Tensor, *indices: int, value: float = float("nan")) -> Tensor:
    gradient = normal(9, *param.shape, dtype=param.dtype)
    for index in indices:
        gradient.view(-1)[index] = value
    return gradient


def counted(optimizer: Cosmic) -> tuple[float, float]:
    stats = optimizer.stats()[0]
    return stats["nonfinite_gradients"], stats["skipped_steps"]


# ---- propagate ---------------------------------------------------------------------------------


@pytest.mark.parametrize("value", BAD.values(), ids=BAD.keys())
@pytest.mark.parametrize("tier", [0, 1, 2])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_bad_element_is_counted(dtype: torch.dtype, tier: int, value: float) -> None:
    """Far apart, in several work items, in the last, partial block; each once."""
    p = parameter(0, 2 * ITEM + 77, dtype=dtype)
    optimizer = Cosmic([p], tier=tier)
    p.grad = spoiled(p, 0, 15, 16, 127, 128, ITEM - 1, ITEM, 2 * ITEM + 76, value=value)
    with pytest.warns(RuntimeWarning, match="infinite or NaN at step 1"):
        optimizer.step()
    assert counted(optimizer) == (8, 0)


def test_they_are_counted_in_any_layout() -> None:
    matrix = normal(0, 60, 70)
    p = nn.Parameter(matrix.t()[:, ::2])
    optimizer = Cosmic([p], tier=0)
    p.grad = normal(9, *p.shape)
    p.grad[3, 4] = p.grad[69, 29] = float("nan")
    with pytest.warns(RuntimeWarning, match="2 elements"):
        optimizer.step()
    assert counted(optimizer) == (2, 0)


def test_it_warns_once_and_counts_on() -> None:
    a, b = parameter(0, 300), parameter(1, 50)
    optimizer = Cosmic([a, b])
    a.grad, b.grad = spoiled(a, 5), spoiled(b, 0, 49)
    with pytest.warns(RuntimeWarning, match="3 elements of gradients"):
        optimizer.step()
    optimizer.step()  # warnings are errors in these tests
    b.grad = None
    optimizer.step()
    assert counted(optimizer) == (7, 0)


def test_a_warning_turned_into_an_error_is_not_raised_in_the_middle() -> None:
    """The step has been taken then: it is counted, listeners are told, and the next is quiet."""
    p = parameter(0, 300)
    optimizer = Cosmic([p])
    told: list[str] = []
    optimizer.add_listener(lambda event, _: told.append(event))
    p.grad = spoiled(p, 5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RuntimeWarning):
            optimizer.step()
        optimizer.step()
    assert counted(optimizer) == (2, 0)
    assert told.count("step") == 2


@pytest.mark.parametrize("nonfinite", ["propagate", "raise", "skip"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_huge_finite_gradients_are_not_bad(dtype: torch.dtype, nonfinite: str) -> None:
    """Though their sum is beyond the largest float."""
    p = parameter(0, 1000, dtype=dtype)
    before = p.detach().clone()
    optimizer = Cosmic([p], nonfinite=nonfinite, tier=0)
    p.grad = torch.full_like(p, torch.finfo(dtype).max)
    optimizer.step()
    assert counted(optimizer) == (0, 0)
    assert not torch.equal(p, before)


@pytest.mark.parametrize("first", [True, False], ids=["first-step", "later"])
@pytest.mark.parametrize("tier", [0, 1, 2])
def test_the_other_elements_go_on_as_before(tier: int, first: bool) -> None:
    """For steps and steps: one bad element must not stop, slow or spoil a whole tensor."""
    a, b = parameter(0, 300), parameter(0, 300)
    options = {**UNUSUAL, "tier": tier}
    ours, twin = Cosmic([a], **options), Cosmic([b], **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        for step in range(12):
            a.grad, b.grad = normal(step, 300), normal(step, 300)
            if step == (0 if first else 6):
                a.grad[150] = float("nan")
            before_a, before_b = a.detach().clone(), b.detach().clone()
            ours.step()
            twin.step()
            moved_a = (a.detach() - before_a)[:150].abs().mean()
            moved_b = (b.detach() - before_b)[:150].abs().mean()
            # tier 1's scalar has seen one gradient less, so it is not the same to the bit
            assert float(moved_a) == pytest.approx(float(moved_b), rel=0.1), step
    assert bool(a[150].isnan()) and int(a.isnan().sum()) == 1


# ---- raise -------------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", [None, "50%"])
@pytest.mark.parametrize("first", [True, False], ids=["first-step", "later"])
@pytest.mark.parametrize("value", BAD.values(), ids=BAD.keys())
def test_raise_names_the_parameter(value: float, first: bool, budget: str | None) -> None:
    params = {"body": parameter(0, 300), "head.bias": parameter(1, 129)}
    optimizer = Cosmic(params.items(), nonfinite="raise", budget=budget, **UNUSUAL)
    if not first:
        take_steps(optimizer, 0, 2)
    params["body"].grad = normal(9, 300)
    params["head.bias"].grad = spoiled(params["head.bias"], 0, 128, value=value)
    with refused(optimizer, NonfiniteGradientError, "'head.bias'", "2 non-finite"):
        optimizer.step()
    params["head.bias"].grad = normal(9, 129)
    optimizer.step()
    assert counted(optimizer)[1] == 0


# ---- skip --------------------------------------------------------------------------------------


def run_with_skips(skipped: set[int], **options: Any) -> Cosmic:
    """Eight good steps; before those in ``skipped`` a bad one."""
    params = [parameter(0, 300), parameter(1, 129)]
    optimizer = Cosmic(params, nonfinite="skip", **{**UNUSUAL, **options})
    for step in range(8):
        if step in skipped:
            before = digest(optimizer)
            params[0].grad, params[1].grad = normal(1, 300), spoiled(params[1], 7)
            optimizer.step()
            assert digest(optimizer) == before
        take_steps(optimizer, step, step + 1)
    return optimizer


@pytest.mark.parametrize(
    "options",
    [
        {"tier": 0}, {"tier": 1}, {}, {"state_dtype": "bf16", "beta_slow": 0.99}, {"gate": "snr"},
        {"budget": "60%", "reallocate_every": 2},
    ],
    ids=str,
)  # fmt: skip
def test_a_skipped_step_leaves_no_trace(options: dict[str, Any]) -> None:
    """The trajectory is that of a run in which it never happened."""
    skipping = run_with_skips({0, 3, 4}, **options)
    assert digest(skipping) == digest(run_with_skips(set(), **options))
    assert counted(skipping) == (3, 3)


def test_skipped_steps_are_told_to_listeners() -> None:
    p = parameter(0, 20)
    optimizer = Cosmic([("w", p)], nonfinite="skip")
    told: list[tuple[str, dict[str, Any]]] = []
    optimizer.add_listener(lambda event, fields: told.append((event, fields)))
    p.grad = spoiled(p, 3)
    optimizer.step()
    assert [event for event, _ in told] == ["skipped"]
    assert told[0][1]["step"] == 0
    assert "'w'" in told[0][1]["parameters"][0]


def test_counts_survive_a_save() -> None:
    optimizer = run_with_skips({1, 2})
    fresh = Cosmic([parameter(0, 300), parameter(1, 129)], nonfinite="skip")
    fresh.load_state_dict(optimizer.state_dict())
    assert counted(fresh)[1] == 2


def test_skip_returns_the_loss_of_the_closure() -> None:
    p = parameter(0, 5)
    optimizer = Cosmic([p], nonfinite="skip")

    def closure() -> float:
        p.grad = spoiled(p, 1)
        return 3.5

    assert optimizer.step(closure) == 3.5
    assert counted(optimizer) == (1, 1)


def test_a_mode_that_does_not_exist_is_refused_later_too() -> None:
    p = parameter(0, 5)
    optimizer = Cosmic([p])
    p.grad = spoiled(p, 1)
    with pytest.raises(ValueError, match="'propagate', 'raise' or 'skip'"):
        optimizer.nonfinite = "rase"
        optimizer.step()
