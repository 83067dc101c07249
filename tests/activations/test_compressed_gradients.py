"""`compress_activations`: gradients that are right in the mean, and what is learnt by them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import cosmic
from helpers import normal, same_bits
from packing import gradients, network

pytestmark = pytest.mark.usefixtures("one_thread")


def draws(grad: Callable[[], Tensor], count: int) -> Tensor:
    """The gradient with each of so many seeds, in 4 bits."""
    found = []
    for seed in range(count):
        with cosmic.compress_activations("u4", min_numel=1, seed=seed):
            found.append(grad().double())
    return torch.stack(found)


def test_the_weights_gradient_is_right_in_the_mean(set_threads: Callable[[int], None]) -> None:
    """Mean of 1,000 seeds within 4 standard errors of the exact gradient: of a linear layer, and of
    one before it by way of a mask."""
    set_threads(1)
    model = nn.Sequential(nn.Linear(16, 8, bias=False), nn.ReLU(), nn.Linear(8, 4, bias=False))
    with torch.no_grad():
        for k, p in enumerate(model.parameters()):
            p.copy_(normal(10 + k, *p.shape) / 4)
    x, y = normal(1, 64, 16), normal(2, 64, 4)

    def grad() -> Tensor:
        loss = functional.mse_loss(model(x), y)
        return torch.cat([g.flatten() for g in gradients(model, loss)])

    exact = grad()
    found = draws(grad, 1000)
    spread = found.std(0)
    assert bool((spread > 1e-4 * exact.abs().max()).all())
    assert bool(((found.mean(0) - exact).abs() <= 4 * spread / 1000**0.5).all())


@pytest.mark.parametrize("target", ["classes", "soft"])
def test_cross_entropy_is_right_in_the_mean(
    target: str, set_threads: Callable[[int], None]
) -> None:
    """Logarithms under 4 bits would be far off; probabilities are unbiased."""
    set_threads(1)
    logits = normal(0, 32, 128).requires_grad_()
    y = torch.arange(32) if target == "classes" else normal(1, 32, 128).softmax(-1)

    def grad() -> Tensor:
        loss = functional.cross_entropy(logits * 1.0, y)
        return torch.autograd.grad(loss, logits)[0]

    exact = grad()
    found = draws(grad, 300)
    bias = (found.mean(0) - exact).norm() / exact.norm()
    noise = (found.std(0) / 300**0.5).norm() / exact.norm()
    assert 0 < float(noise) < 0.1
    assert float(bias) < 1.2 * float(noise)


def test_backward_twice_gives_the_same_bits_and_twice_differentiated_is_near() -> None:
    model, x = network(), normal(1, 256, 64)
    with cosmic.compress_activations("q8"):
        loss = model(x).square().mean()
    once = torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)
    again = torch.autograd.grad(loss, list(model.parameters()))
    assert all(same_bits(a, b) for a, b in zip(once, again, strict=True))

    def second(create: Callable[[], Any]) -> Tensor:
        with create():
            loss = model(x).square().mean()
            first = torch.autograd.grad(loss, list(model.parameters()), create_graph=True)
            norm = torch.stack([g.square().sum() for g in first]).sum()
        return torch.cat([g.flatten() for g in torch.autograd.grad(norm, list(model.parameters()))])

    exact = second(torch.enable_grad)
    found = second(lambda: cosmic.compress_activations("q8"))
    assert float((found - exact).norm() / exact.norm()) < 0.1


def test_a_small_model_learns_as_well() -> None:
    """100 steps of a regression: 8 bits end at the loss of exact gradients, within its noise."""
    torch.manual_seed(0)
    x = torch.randn(2048, 32)
    y = torch.tanh(x @ torch.randn(32, 8) / 4)

    def train(codec: str | None, seed: int) -> float:
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.LayerNorm(64), nn.Linear(64, 8))
        optimizer = cosmic.Cosmic(model.parameters(), lr=3e-3)
        held: Any = (
            nullcontext() if codec is None else cosmic.compress_activations(codec, seed=seed)
        )
        for step in range(100):
            rows = slice(128 * (step % 15), 128 * (step % 15) + 128)
            with held:
                loss = functional.mse_loss(model(x[rows]), y[rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        with torch.no_grad():
            return float(functional.mse_loss(model(x[1920:]), y[1920:]))

    exact = [train(None, seed) for seed in range(2)]
    packed = [train("q8", seed) for seed in range(2)]
    spread = max(exact) - min(exact)
    assert abs(sum(packed) - sum(exact)) / 2 < max(spread, 0.05 * exact[0])
    assert sum(packed) != sum(exact)
