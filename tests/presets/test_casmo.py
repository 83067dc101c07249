"""CASMO beside casmo-optimizer's, and the lagged factor beside its formula."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from calibrations import memory
from casmo_package import casmo
from conftest import Runner
from cosmic import Cosmic, NonfiniteGradientError
from cosmic.presets import CASMO
from helpers import digest, normal, parameters

SHAPES = ((300,), (17, 33), (5,), (64, 64))

#: The sums of |m|, v and the ratio are of float32 terms, at most 1024 of them in a lane, and the
#: package's in an order of its own: a few parts in 10^7, of which sigma makes ten times as many.
FACTOR = 1e-5
#: After 1,000 steps, absolute, of numbers around 1. Each step rounds the parameter twice, by half a
#: unit (6e-8), with random signs: sqrt(2000) * 3e-8, five units if they are at their worst.
PARAMETER = 2.5e-6


def gradients(
    steps: int, shapes: Sequence[tuple[int, ...]] = SHAPES, first: int = 0
) -> Iterator[list[Tensor | None]]:
    """A slowly turning signal under noise that swells and ebbs; some tensors have none at times,
    but all do at the first step, where the package takes its buffers' size."""
    signals = [normal(k, *shape) for k, shape in enumerate(shapes)]
    for step in range(first, steps):
        noise = 0.3 + 1.5 * abs(math.sin(0.13 * step))
        yield [
            None
            if step and (step + 3 * k) % 7 == 3
            else signal * math.cos(0.01 * step) + noise * normal(10 + 100 * step + k, *signal.shape)
            for k, signal in enumerate(signals)
        ]


def give(params: Sequence[Tensor], step: Sequence[Tensor | None]) -> None:
    for param, gradient in zip(params, step, strict=True):
        param.grad = None if gradient is None else gradient.clone()


def two_groups(params: Sequence[nn.Parameter]) -> list[dict[str, Any]]:
    return [
        {"params": params[:2], "tau_init_steps": 60, "weight_decay": 0.1},
        {
            "params": params[2:], "lr": 3e-3, "betas": (0.8, 0.95), "eps": 1e-6, "c_min": 0.2,
            "tau_clip_range": (0.05, 0.3),
        },
    ]  # fmt: skip


class Recorded(casmo.CASMO):  # type: ignore[misc]  # the package has no types
    """The package's optimizer with the samples and factors of its last step, in their order."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.seen: list[tuple[float, float]] = []

    def _compute_confidence(self, agar: float, state: dict[str, Any], c_min: float) -> float:
        factor = float(super()._compute_confidence(agar, state, c_min))
        self.seen.append((agar, factor))
        return factor

    def step(self, closure: Any = None) -> Any:
        self.seen = []
        return super().step(closure)


@pytest.mark.parametrize("clamp", [None, 10.0, 2.0])
@pytest.mark.parametrize("granularity", ["group", "parameter"])
def test_a_thousand_steps_are_the_package_s(granularity: str, clamp: float | None) -> None:
    options = {
        "lr": 1e-3, "granularity": granularity, "agar_clamp_factor": clamp, "tau_init_steps": 100,
    }  # fmt: skip
    ours, theirs = parameters(*SHAPES), parameters(*SHAPES)
    optimizer = CASMO(two_groups(ours), **options)  # type: ignore[arg-type]
    package = Recorded(two_groups(theirs), **options)
    for step in gradients(1000):
        give(ours, step)
        give(theirs, step)
        optimizer.step()
        package.step()
        present = [k for k, gradient in enumerate(step) if gradient is not None]
        factors = optimizer.gate_factors()
        if granularity == "parameter":
            found = [factors[str(k)] for k in present]
        else:
            groups = sorted({k // 2 for k in present})
            known = [optimizer.calibrations()[g] for g in groups]
            found = [state["current_confidence"] for state in known]
            agar = [state["current_agar"] for state in known]
            assert agar == pytest.approx([a for a, _ in package.seen], rel=FACTOR)
            assert {factors[str(k)] for k in present} == set(found)
        assert found == pytest.approx([factor for _, factor in package.seen], rel=FACTOR)
    for own, other in zip(ours, theirs, strict=True):
        assert own.detach().numpy() == pytest.approx(other.detach().numpy(), rel=0, abs=PARAMETER)
    for here, there in zip(optimizer.calibrations(), package._group_states.values(), strict=True):
        assert here["tau_initialized"] and there["tau_initialized"]
        for key in ("tau", "agar_mean", "agar_std", "agar_median", "agar_p10", "agar_p90", "c_min"):
            assert here[key] == pytest.approx(there[key], rel=FACTOR), key


def test_the_constructor_takes_the_package_s_arguments_in_their_order() -> None:
    theirs = inspect.signature(casmo.CASMO.__init__).parameters
    ours = inspect.signature(CASMO.__init__).parameters
    assert list(ours)[: len(theirs)] == list(theirs)
    assert {k: ours[k].default for k in theirs} == {k: p.default for k, p in theirs.items()}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"betas": (0.99, 0.999)},
        {"betas": (0.9, 0.999), "total_steps": 1000},
        {"total_steps": 1_000_000},
        {"tau_init_steps": 70, "total_steps": 10},
    ],
)
def test_steps_to_calibrate_are_chosen_as_in_the_package(options: dict[str, Any]) -> None:
    expected = casmo.CASMO([torch.zeros(1)], **options).param_groups[0]["tau_init_steps"]
    (group,) = CASMO([torch.zeros(1)], **options).param_groups
    assert group["tau_init_steps"] == expected
    assert group["total_steps"] == options.get("total_steps")


# ---- lagged: what the step before has seen --------------------------------------------------


class LaggedFormula:
    """The lagged factor in float64, out of the moments that the optimizer holds after its steps."""

    def __init__(
        self, options: tuple[int, tuple[float, float], float], clamp: float | None
    ) -> None:
        self.calibration = memory(*options)
        self.clamp = math.inf if clamp is None else clamp
        self.means: tuple[float, float] | None = None
        self.factor = 1.0

    def observe(self, states: Sequence[dict[str, Any]], eps: float) -> None:
        m = np.concatenate([s["exp_avg"].numpy().ravel() for s in states]).astype(np.float64)
        v = np.concatenate([s["exp_avg_sq"].numpy().ravel() for s in states]).astype(np.float64)
        m_limit, v_limit = (
            (math.inf, math.inf)
            if self.means is None
            else [self.clamp * (x + eps) for x in self.means]
        )
        signal = np.minimum(np.abs(m), m_limit) ** 2
        noise = np.maximum(np.minimum(v, v_limit) - signal, eps)
        self.factor = self.calibration.take(float(np.mean(signal / (signal + noise + eps))))
        self.means = float(np.mean(np.abs(m))), float(np.mean(v))


@pytest.mark.parametrize("clamp", [None, 10.0, 2.0])
def test_the_lagged_factor_is_what_the_step_before_has_seen(clamp: float | None) -> None:
    params = parameters(*SHAPES[:2])
    optimizer = CASMO(
        params, lr=1e-2, tau_init_steps=50, agar_clamp_factor=clamp, c_min=0.2, exact=False,
        weight_decay=0.1,
    )  # fmt: skip
    formula = LaggedFormula((50, (0.01, 0.5), 0.2), clamp)
    for count, step in enumerate(gradients(80, SHAPES[:2]), start=1):
        step = [g if g is not None else torch.ones(s) for g, s in zip(step, SHAPES, strict=False)]
        before = [p.detach().clone().double() for p in params]
        give(params, step)
        optimizer.step()
        for factor in optimizer.gate_factors().values():
            assert factor == pytest.approx(formula.factor, rel=FACTOR), count
        for old, param in zip(before, params, strict=True):
            state = optimizer.state[param]
            m, v = state["exp_avg"].double(), state["exp_avg_sq"].double()
            update = m / (1 - 0.9**count) / ((v / (1 - 0.999**count)).sqrt() + 1e-8)
            expected = (1 - 1e-2 * 0.1) * old - 1e-2 * formula.factor * update
            torch.testing.assert_close(param.detach().double(), expected, rtol=1e-5, atol=1e-6)
        formula.observe([optimizer.state[p] for p in params], 1e-8)
    assert optimizer.calibrations()[0]["tau_initialized"]


def test_lagged_parameters_are_sampled_on_their_own() -> None:
    params = parameters(*SHAPES[:2])
    optimizer = CASMO(params, granularity="parameter", exact=False)
    formulas = [LaggedFormula((500, (0.01, 0.5), 0.1), 10.0) for _ in params]
    for step in gradients(10, SHAPES[:2]):
        present = [k for k, gradient in enumerate(step) if gradient is not None]
        give(params, step)
        optimizer.step()
        factors = optimizer.gate_factors()
        assert set(factors) == {str(k) for k in present}
        for k in present:
            assert factors[str(k)] == pytest.approx(formulas[k].factor, rel=FACTOR)
            formulas[k].observe([optimizer.state[params[k]]], 1e-8)


def test_the_lagged_factor_takes_24_bytes_a_parameter_and_the_exact_one_none() -> None:
    def held(**options: Any) -> int:
        params = parameters(*SHAPES)
        optimizer = CASMO(params, **options)
        give(params, next(gradients(1)))
        optimizer.step()
        return optimizer.state_bytes()

    moments = sum(8 * math.prod(shape) + 8 for shape in SHAPES)
    assert held() == moments
    assert held(exact=False) == moments + 24 * len(SHAPES)


# ---- any arithmetic ----------------------------------------------------------------------------


@pytest.mark.parametrize("state_dtype", ["bf16", "q8", "q8+v4", "u4+v4"])
def test_compressed_moments_are_looked_at_in_full(state_dtype: str) -> None:
    """The first step's moments come from the gradient alone: the same whatever they are kept in."""
    factors = []
    for kept in ("fp32", state_dtype):
        params = parameters(*SHAPES)
        optimizer = CASMO(params, c_min=0.0, state_dtype=kept, min_compress_size=0)
        give(params, next(gradients(1)))
        optimizer.step()
        factors.append(optimizer.calibrations()[0]["current_agar"])
    assert 0 < factors[0] < 1
    assert factors[1] == factors[0]


def test_parameters_in_float64_are_measured_in_it() -> None:
    ours = parameters(*SHAPES, dtype=torch.float64)
    theirs = parameters(*SHAPES, dtype=torch.float64)
    optimizer, package = CASMO(ours, tau_init_steps=50), Recorded(theirs, tau_init_steps=50)
    for step in gradients(80):
        step = [None if g is None else g.double() for g in step]
        give(ours, step)
        give(theirs, step)
        optimizer.step()
        package.step()
        (agar, factor), (known,) = package.seen[0], optimizer.calibrations()
        assert known["current_agar"] == pytest.approx(agar, rel=1e-12)
        assert known["current_confidence"] == pytest.approx(factor, rel=1e-11)
    for own, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("exact", [True, False])
def test_maximizing_is_minimizing_with_the_gradient_negated(exact: bool) -> None:
    digests = []
    for sign in (1, -1):
        params = parameters(*SHAPES)
        optimizer = CASMO(params, exact=exact, maximize=sign < 0)
        for step in gradients(5):
            give(params, [None if g is None else sign * g for g in step])
            optimizer.step()
        digests.append((digest(optimizer), optimizer.calibrations()))
    assert digests[0] == digests[1]


def trained(exact: bool, granularity: str, threads: int) -> tuple[str, list[dict[str, Any]]]:
    """In a process of its own: through a calibration, on tensors of several work items."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        shapes = (*SHAPES, (40001,))
        params = parameters(*shapes)
        optimizer = CASMO(
            two_groups(params), tau_init_steps=50, exact=exact, granularity=granularity
        )
        for step in gradients(65, shapes):
            give(params, step)
            optimizer.step()
        return digest(optimizer), optimizer.calibrations()
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("granularity", ["group", "parameter"])
@pytest.mark.parametrize("exact", [True, False])
def test_bits_depend_neither_on_isa_nor_on_threads(
    exact: bool, granularity: str, on_isa: Runner
) -> None:
    expected = trained(exact, granularity, 1)
    assert expected[1][0]["tau_initialized"]
    for threads in (1, 3):
        assert on_isa(trained, exact, granularity, threads) == expected


def test_plain_cosmic_names_the_gates_that_it_has() -> None:
    with pytest.raises(
        ValueError, match="'calibrated_agar'; expected None, 'snr', 'agar', 'trust' or 'agc'"
    ):
        Cosmic([nn.Parameter(torch.zeros(1))], gate="calibrated_agar")


def test_a_closure_is_called_once_and_its_loss_returned() -> None:
    params = parameters((5,))
    optimizer = CASMO(params)
    calls: list[int] = []

    def closure() -> float:
        calls.append(1)
        give(params, next(gradients(1, ((5,),))))
        return 3.5

    step: Callable[[Callable[[], float]], float] = optimizer.step
    assert step(closure) == 3.5 and calls == [1]
    assert optimizer.calibrations()[0]["current_agar"] is not None


def test_steps_are_counted_where_the_package_counts_them() -> None:
    """Read-only: what is loaded or skipped is counted here, too."""
    ours, theirs = parameters((5,)), parameters((5,))
    optimizer, package = CASMO(ours), casmo.CASMO(theirs)
    for count, step in enumerate(gradients(3, ((5,),))):
        assert optimizer._step_count == package._step_count == count
        give(ours, step)
        give(theirs, step)
        optimizer.step()
        package.step()
    assert optimizer._step_count == optimizer.state_dict()["_step_count"] == 3
    with pytest.raises(AttributeError):
        optimizer._step_count = 7  # type: ignore[misc]


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("nonfinite", ["raise", "skip"])
def test_gradients_are_looked_at_before_they_are_sampled(nonfinite: str, exact: bool) -> None:
    """A step that is left out leaves no sample; the others are those without the look."""
    ours, plain = parameters(*SHAPES), parameters(*SHAPES)
    optimizer = CASMO(two_groups(ours), exact=exact, nonfinite=nonfinite)
    twin = CASMO(two_groups(plain), exact=exact)
    for count, step in enumerate(gradients(6)):
        give(ours, step)
        give(plain, step)
        if count == 3:
            ours[1].grad = torch.full_like(ours[1], math.inf)
            before = digest(optimizer), optimizer.calibrations()
            if nonfinite == "raise":
                with pytest.raises(NonfiniteGradientError, match="parameter 1"):
                    optimizer.step()
            else:
                optimizer.step()
                assert optimizer.stats()[0]["skipped_steps"] == 1
            assert (digest(optimizer), optimizer.calibrations()) == before
            continue
        optimizer.step()
        twin.step()
    assert digest(optimizer) == digest(twin)
    assert optimizer.calibrations() == twin.calibrations()
