"""`exact=True`: a gate acts on what a pass before the step sees, not on what the last step saw."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from cosmic import Cosmic
from helpers import digest, give_gradients, parameters, take_steps

GATES = ("snr", "agar")
SHAPES = [(300,), (33, 40), (5,)]


def stepped(steps: int, **options: Any) -> tuple[list[dict[str, float]], Cosmic]:
    """Factors of every step on gradients that do not depend on the parameters."""
    params = parameters(*SHAPES)
    optimizer = Cosmic(params, min_compress_size=0, c_min=0.05, **options)
    factors = []
    for step in range(steps):
        give_gradients(params, step, scale=100.0 if step == steps - 2 else 1.0)
        optimizer.step()
        factors.append(optimizer.gate_factors())
    return factors, optimizer


@pytest.mark.parametrize("state_dtype", ["fp32", "u4+factored", "q8"])
@pytest.mark.parametrize("gate", GATES)
def test_a_factor_comes_a_step_earlier(gate: str, state_dtype: str) -> None:
    """Moments follow from gradients alone where parameters do not move them, so that both ways
    see the same sums; lossy codecs round the same, as the steps have the same random bits."""
    lagged, _ = stepped(26, gate=gate, state_dtype=state_dtype)
    exact, _ = stepped(26, gate=gate, state_dtype=state_dtype, exact=True)
    assert exact[:-1] == lagged[1:]
    assert len({tuple(factors.values()) for factors in exact}) > 1


@pytest.mark.parametrize("gate", GATES)
def test_a_jump_is_scaled_down_in_its_own_step(gate: str) -> None:
    _, optimizer = stepped(26, gate="snr", exact=True)
    params = optimizer.param_groups[0]["params"]
    give_gradients(params, 99, scale=1e4)
    optimizer.step()
    assert max(optimizer.gate_factors().values()) == 0.05


@pytest.mark.parametrize("gate", GATES)
def test_what_the_gate_keeps_and_costs_is_the_same(gate: str) -> None:
    _, lagged = stepped(3, gate=gate)
    _, exact = stepped(3, gate=gate, exact=True)
    assert exact.state_bytes() == lagged.state_bytes()
    for a, b in zip(lagged.state.values(), exact.state.values(), strict=True):
        assert list(a) == list(b)


@pytest.mark.parametrize("gate", GATES)
def test_threads_and_a_checkpoint_in_the_middle_change_no_bit(gate: str) -> None:
    def run(threads: int, resumed: bool) -> str:
        params = parameters((300, 400), (7,))
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            optimizer = Cosmic(params, gate=gate, exact=True)
            take_steps(optimizer, 0, 3)
            if resumed:
                saved = optimizer.state_dict()
                optimizer = Cosmic(params)
                optimizer.load_state_dict(saved)
            take_steps(optimizer, 3, 6)
        finally:
            torch.set_num_threads(before)
        return digest(optimizer)

    assert run(1, False) == run(2, False) == run(2, True)


@pytest.mark.parametrize("gate", GATES)
def test_a_step_in_backward_has_the_ordinary_step_s_bits(gate: str) -> None:
    def trained(in_backward: bool) -> str:
        torch.manual_seed(3)
        model = nn.Sequential(nn.Linear(20, 30), nn.Linear(30, 4))
        optimizer = Cosmic(model.parameters(), gate=gate, exact=True, min_compress_size=0)
        inputs = torch.randn(5, 16, 20, generator=torch.Generator().manual_seed(1))
        mode = optimizer.step_in_backward(model) if in_backward else None
        for batch in inputs:
            model(batch).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        if mode:
            mode.remove()
        return digest(optimizer)

    assert trained(True) == trained(False)


def test_only_true_and_false_are_options() -> None:
    with pytest.raises(ValueError, match=r"\['exact'\] is 1; expected True or False"):
        Cosmic(parameters((3,)), gate="snr", exact=1)  # type: ignore[arg-type]
