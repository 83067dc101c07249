"""Gate "agar": how far a coordinate's gradients agree decides how far it moves.

The yardstick is a plain float64 statement of the published formulas (AGAR, CASMO's repository,
release 0.4), with the mean of the step before in the place of this step's.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from backward_steps import give, normal_gradients, ordinary_step, pair
from cosmic import Cosmic
from cosmic.logging import EventLog
from cosmic.state.building import decoded_moments
from helpers import bits, digest, normal, parameters, refused, same_bits

SHAPE = (40, 33)
#: Gradients are a signal of their own in each coordinate and noise of size 1.
SIGNAL = normal(99, *SHAPE, dtype=torch.float64, scale=1.5)


@dataclass
class Published:
    """The formulas, with nothing left out and nothing rounded."""

    p: Tensor
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    c_min: float = 0.1
    robustness: float = 1.0
    rel_floor: float = 0.1
    mean: float = 0.5
    t: int = 0
    m: Tensor = field(init=False)
    s: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.p = self.p.double().clone()
        self.m, self.s = torch.zeros_like(self.p), torch.zeros_like(self.p)

    @property
    def factor(self) -> float:
        """On the next step's update."""
        return float((self.c_min + (1 - self.c_min) * self.mean) ** self.robustness)

    def step(self, g: Tensor) -> None:
        beta1, beta2 = self.betas
        self.t += 1
        self.s = beta2 * self.s + (1 - beta2) * (g - self.m) ** 2
        self.m = beta1 * self.m + (1 - beta1) * g
        m_hat, s_hat = self.m / (1 - beta1**self.t), self.s / (1 - beta2**self.t)
        agreement = m_hat**2 / (m_hat**2 + s_hat)
        focus = (agreement / self.mean).clamp(self.rel_floor, 1)
        direction = m_hat / (torch.sqrt(m_hat**2 + s_hat) + self.eps)
        self.p = (1 - self.lr * self.weight_decay) * self.p
        self.p = self.p - self.lr * self.factor * focus * direction
        self.mean = float(agreement.mean())


def gradient(step: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return (SIGNAL + normal(step, *SHAPE, dtype=torch.float64)).to(dtype)


def gated(dtype: torch.dtype = torch.float32, **options: Any) -> tuple[Cosmic, nn.Parameter]:
    param = nn.Parameter(normal(7, *SHAPE, dtype=torch.float64).to(dtype))
    return Cosmic([("w", param)], gate="agar", **{"state_dtype": "fp32", **options}), param


def feed(optimizer: Cosmic, param: nn.Parameter, *steps: int) -> None:
    for step in steps:
        param.grad = gradient(step, param.dtype)
        optimizer.step()


@pytest.mark.parametrize(
    "options",
    [
        {}, {"robustness": 0.0}, {"robustness": 3.0}, {"robustness": 0.7}, {"rel_floor": 0.0},
        {"rel_floor": 1.0}, {"c_min": 0.0}, {"c_min": 1.0}, {"weight_decay": 0.3, "lr": 0.02},
        {"betas": (0.8, 0.95), "eps": 1e-3}, {"robustness": 0.0, "rel_floor": 1.0},
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_it_follows_the_published_formulas(dtype: torch.dtype, options: dict[str, Any]) -> None:
    options = {"eps": 1e-8 if dtype == torch.float32 else 1e-30, **options}
    optimizer, param = gated(dtype, **options)
    exact = Published(param.detach(), **options)
    near = 1e-4 if dtype == torch.float32 else 1e-9
    if options["eps"] == 1e-3:
        near = 1e-2  # eps counts as noise in the share of signal, too
    start = exact.p
    for step in range(200):
        factor = exact.factor
        feed(optimizer, param, step)
        exact.step(gradient(step, dtype).double())
        assert optimizer.gate_factors()["w"] == pytest.approx(factor, rel=near)
    state = optimizer.state[param]
    torch.testing.assert_close(state["exp_avg"].double(), exact.m, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(state["exp_avg_var"].double(), exact.s, rtol=1e-4, atol=1e-6)
    assert float(state["gate_agar"]) == pytest.approx(exact.mean, rel=near)
    moved = (exact.p - start).abs().max()
    assert (param.detach().double() - exact.p).abs().max() < near * moved + 5e-7 * (
        dtype == torch.float32
    )


def test_the_first_step_has_the_mean_of_all_first_steps() -> None:
    """m_hat^2 and s_hat are both g^2: a share of 1/2 and a focus of 1 everywhere."""
    optimizer, param = gated(torch.float64, lr=0.5, eps=1e-30)
    before = param.detach().clone()
    feed(optimizer, param, 0)
    trust = 0.1 + 0.9 * 0.5
    assert optimizer.gate_factors() == {"w": pytest.approx(trust)}
    expected = before - 0.5 * trust * 0.5**0.5 * gradient(0, torch.float64).sign()
    torch.testing.assert_close(param.detach(), expected, rtol=1e-12, atol=1e-12)
    assert float(optimizer.state[param]["gate_agar"]) == pytest.approx(0.5, rel=1e-12)


def test_what_agrees_moves_and_what_does_not_stands_still() -> None:
    """Half of the coordinates have the same gradient always, half a coin's: of equal size, they
    move with focus 1 and with the least."""
    param = nn.Parameter(torch.zeros(2, 500))
    optimizer = Cosmic([param], lr=1.0, gate="agar", state_dtype="fp32", rel_floor=0.05)
    steady = torch.ones(500)
    for step in range(200):
        before = param.detach().clone()
        param.grad = torch.stack([steady, normal(step, 500).sign()])
        optimizer.step()
    moved = (param.detach() - before).abs()
    (factor,) = optimizer.gate_factors().values()
    assert moved[0].min() > 0.9 * factor
    noise = moved[1] / factor  # w^2 is 1/20 of the steady one's, and focus is another factor
    assert noise.median() < 0.05 * (0.1 / 1.9) ** 0.5 * 2
    assert optimizer.stats()[0]["gate"] == pytest.approx(0.1 + 0.9 * 0.5, abs=0.05)


def test_stats_show_the_factor_of_the_step_that_was_taken() -> None:
    """With robustness 0 the trust is out of the update, with 1 it scales all of it."""
    full, param = gated(robustness=0.0)
    scaled, twin = gated(robustness=1.0)
    for step in range(12):
        feed(full, param, step)
        feed(scaled, twin, step)
        (whole,), (part,) = full.stats(), scaled.stats()
        assert whole["gate"] == whole["gate_min"] == 1.0
        assert scaled.gate_factors() == {"w": part["gate_min"]}
        assert part["gate"] == pytest.approx(part["gate_min"], rel=1e-12)
        assert part["update_rms"] == pytest.approx(whole["update_rms"] * part["gate"], rel=1e-6)
    assert 0.1 < scaled.gate_factors()["w"] < 0.95
    mean = float(scaled.state[twin]["gate_agar"])
    feed(scaled, twin, 12)
    assert scaled.gate_factors()["w"] == pytest.approx(0.1 + 0.9 * mean, rel=1e-12)


def test_the_event_log_says_when_trust_is_lost_and_when_it_is_back(tmp_path: Path) -> None:
    param = nn.Parameter(normal(7, 300))
    optimizer = Cosmic([("w", param)], gate="agar", state_dtype="fp32", betas=(0.9, 0.95))
    heard: list[str] = []
    optimizer.add_listener(lambda event, _: heard.append(event))
    with EventLog(tmp_path / "log") as log:
        log.attach(optimizer)
        for step in range(160):
            param.grad = normal(step, 300) if step < 60 else normal(1, 300)
            optimizer.step()
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    low, high = (line for line in lines if line["event"] == "gate")
    assert low["name"] == high["name"] == "w"
    assert low["step"] < 60 < high["step"]
    assert low["factor"] < 0.5 <= high["factor"]
    run = lines[0]["groups"][0]
    assert (run["gate"], run["robustness"], run["rel_floor"]) == ("agar", 1.0, 0.1)
    assert heard.count("step") == 160


# ---- compressed state ----------------------------------------------------------------------------


@pytest.mark.parametrize("state_dtype", ["bf16", "q8", "q8+v4", "u4+q8", "u4+v4"])
def test_compressed_moments_are_right_in_the_mean(state_dtype: str) -> None:
    """Over seeds of the random bits, the mean of the error is a small part of one error."""
    exact, param = gated()
    feed(exact, param, *range(6))
    want = [exact.state[param][key] for key in ("exp_avg", "exp_avg_var")]
    errors: list[list[Tensor]] = [[], []]
    for seed in range(64):
        lossy, twin = gated(state_dtype=state_dtype, min_compress_size=0, seed=seed)
        feed(lossy, twin, *range(6))
        moments = decoded_moments(twin, lossy.state[twin], lossy.param_groups[0])
        for found, value, of in zip(errors, moments.values(), want, strict=True):
            found.append(value - of)
    for found, of in zip(errors, want, strict=True):
        one = float(torch.stack([error.norm() for error in found]).mean())
        mean = float(torch.stack(found).mean(0).norm())
        assert 0 < one < 0.5 * float(of.norm())
        assert mean < 0.25 * one  # 1/8 if there is no bias at all


def losses(state_dtype: str) -> float:
    """Mean loss at the end of a least-squares fit to noisy targets, over three draws."""
    total = 0.0
    for seed in range(3):
        truth, weight = normal(seed, 64, 32), nn.Parameter(torch.zeros(64, 32))
        optimizer = Cosmic([weight], gate="agar", state_dtype=state_dtype, min_compress_size=0)
        for step in range(400):
            x = normal(1000 * seed + step, 16, 64)
            noise = normal(1000 * seed + step + 500_000, 16, 32)
            optimizer.zero_grad()
            loss = ((x @ weight - x @ truth - noise) ** 2).mean()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.param_groups[0]["lr"] = 0.3 * (1 - step / 400)
            optimizer.step()
        total += float((weight.detach() - truth).square().mean()) / 3
    return total


@pytest.mark.parametrize("state_dtype", ["bf16", "q8", "u4+v4", "u4+factored"])
def test_a_noisy_problem_is_solved_as_well_as_with_fp32(state_dtype: str) -> None:
    fp32 = losses("fp32")
    assert fp32 < 0.001  # of 1 at the start
    assert losses(state_dtype) < 1.5 * fp32


# ---- numbers of all kinds ------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e25], ids=str)
@pytest.mark.parametrize("state_dtype", ["fp32", "q8+v4", "u4+v4"])
def test_a_bad_gradient_spoils_its_element_and_not_the_mean(bad: float, state_dtype: str) -> None:
    """For the others it is as if that element's gradient were zero, whose share is zero, too."""
    spoiled, param = gated(state_dtype=state_dtype, min_compress_size=0)
    clean, twin = gated(state_dtype=state_dtype, min_compress_size=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        for optimizer, of, value in ((spoiled, param, bad), (clean, twin, 0.0)):
            feed(optimizer, of, 0)
            of.grad = gradient(1)
            of.grad[3, 5] = value
            optimizer.step()
    means = [float(o.state[p]["gate_agar"]) for o, p in ((spoiled, param), (clean, twin))]
    assert means[0] == pytest.approx(means[1], abs=1.01 / param.numel())
    differ = bits(param).flatten() != bits(twin).flatten()
    assert differ.nonzero().tolist() == [[3 * SHAPE[1] + 5]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        feed(spoiled, param, *range(2, 8))
    ok = torch.isfinite(param.detach()).flatten()
    assert int((~ok).sum()) <= 1 and ok[: 3 * SHAPE[1] + 5].all()
    assert 0 < float(spoiled.state[param]["gate_agar"]) < 1


def test_gradients_of_zeros_leave_everything_alone() -> None:
    optimizer, param = gated()
    before = param.detach().clone()
    for _ in range(3):
        param.grad = torch.zeros(SHAPE)
        optimizer.step()
    assert same_bits(param.detach(), before)
    assert float(optimizer.state[param]["gate_agar"]) == 0.0
    assert optimizer.gate_factors() == {"w": pytest.approx(0.55)}  # as before the first step
    feed(optimizer, param, 0, 1)
    assert torch.isfinite(param).all() and 0 < float(optimizer.state[param]["gate_agar"]) < 1


@pytest.mark.parametrize("state_dtype", ["fp32", "u4+v4", "q8+factored"])
def test_maximize_mirrors(state_dtype: str) -> None:
    optimizer, param = gated(state_dtype=state_dtype, min_compress_size=0)
    mirrored, twin = gated(state_dtype=state_dtype, min_compress_size=0, maximize=True)
    for step in range(5):
        param.grad, twin.grad = gradient(step), -gradient(step)
        optimizer.step()
        mirrored.step()
    assert digest(optimizer) == digest(mirrored)


def test_a_complex_parameter_is_two_real_ones() -> None:
    values, shape = normal(3, 20, 7, 2), (20, 7)
    param = nn.Parameter(torch.view_as_complex(values.clone()))
    twin = nn.Parameter(values.clone())
    optimizer, plain = (Cosmic([p], gate="agar", state_dtype="fp32") for p in (param, twin))
    for step in range(5):
        param.grad = normal(step, *shape, dtype=torch.complex64)
        twin.grad = torch.view_as_real(param.grad).clone()
        optimizer.step()
        plain.step()
    assert same_bits(torch.view_as_real(param.detach()), twin.detach())
    assert optimizer.gate_factors() == plain.gate_factors()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_is_stepped_in_float32_and_stored_to_nearest(dtype: torch.dtype) -> None:
    optimizer, param = gated(dtype, stochastic_rounding=False, lr=0.01)
    for step in range(4):
        whole, twin = gated(lr=0.01)
        whole.load_state_dict(optimizer.state_dict())
        twin.data = param.detach().float()
        feed(optimizer, param, step)
        twin.grad = param.grad.float() if param.grad is not None else None
        whole.step()
        assert same_bits(param.detach(), twin.detach().to(dtype))
    assert optimizer.state[param]["exp_avg"].dtype == torch.float32


def test_float64_keeps_moments_of_float64() -> None:
    optimizer, param = gated(torch.float64, state_dtype="u4+v4")
    feed(optimizer, param, 0)
    assert optimizer.tiers()[0].rung == "tier2:fp64+fp64+centered"
    assert optimizer.state[param]["exp_avg_var"].dtype == torch.float64


@pytest.mark.parametrize(
    "options", [{"state_dtype": "fp32"}, {}, {"budget": "12%", "min_tier": 2}], ids=str
)
def test_a_step_within_backward_has_the_ordinary_bits(options: dict[str, Any]) -> None:
    ordinary, within = pair(gate="agar", **options)
    with within.step_in_backward():
        for step in range(5):
            gradients = normal_gradients(ordinary, step)
            ordinary_step(ordinary, gradients)
            give([p for g in within.param_groups for p in g["params"]], gradients)
            within.step()
            assert within.gate_factors() == ordinary.gate_factors()
    assert digest(within) == digest(ordinary)
    assert len(within.gate_factors()) > 0


# ---- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "fragments"),
    [
        ({"gate": "casmo"}, ("param_groups[0]['gate']", "'casmo'", "None, 'snr', 'agar'")),
        ({"gate": "agar", "beta_slow": 0.99}, ("param_groups[0]", "beta_slow 0.99", "'agar'")),
        ({"robustness": -1.0}, ("['robustness'] is -1", "a finite number >= 0")),
        ({"robustness": float("inf")}, ("['robustness'] is inf", "a finite number >= 0")),
        ({"rel_floor": 1.5}, ("['rel_floor'] is 1.5", "a number in [0, 1]")),
        ({"rel_floor": float("nan")}, ("['rel_floor'] is nan", "a number in [0, 1]")),
        ({"c_min": -0.1}, ("['c_min'] is -0.1", "a number in [0, 1]")),
        ({"rung": "tier2:u4+v4+centered"}, ("'tier2:u4+v4+centered'", "'gate' is None", "'agar'")),
        ({"rung": "tier2:u1+v4+centered", "gate": "agar"}, ("unknown rung", "+centered")),
    ],
    ids=str,
)  # fmt: skip
def test_bad_options_are_named(options: dict[str, Any], fragments: tuple[str, ...]) -> None:
    with pytest.raises(ValueError) as caught:
        Cosmic(parameters((3, 3)), **options)
    for fragment in fragments:
        assert fragment in str(caught.value)


@pytest.mark.parametrize("state_dtype", ["u1+factored", "u2+v4", "bf16+fp32", "fp32+rowmean"])
def test_codecs_that_the_gate_does_not_know_are_refused_with_those_it_does(
    state_dtype: str,
) -> None:
    optimizer, param = gated(state_dtype=state_dtype, min_compress_size=0)
    param.grad = gradient(0)
    known = ("fp32+fp32", "bf16+bf16", "q8+q8", "u4+v4", "u4+factored")
    with refused(optimizer, ValueError, "'w'", f"codecs {state_dtype}", "gate 'agar'", *known):
        optimizer.step()


def test_a_slow_average_is_refused_in_mid_run_too() -> None:
    optimizer, param = gated()
    feed(optimizer, param, 0, 1)
    optimizer.param_groups[0]["beta_slow"] = 0.99
    param.grad = gradient(2)
    with refused(optimizer, ValueError, "gate 'agar' and beta_slow 0.99"):
        optimizer.step()
    optimizer.param_groups[0].update(beta_slow=None, robustness=float("nan"))
    with refused(optimizer, ValueError, "['robustness'] is nan"):
        optimizer.step()
