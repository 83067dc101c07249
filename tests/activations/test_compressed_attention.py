"""`compress_activations` and attention: its exponent stays sharp, its noise takes a bit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import cosmic
from cosmic.activations import saved_bytes
from helpers import normal
from packing import BLOCK, activation

pytestmark = pytest.mark.usefixtures("one_thread")


def test_attention_keeps_its_exponent_sharp() -> None:
    q, k, v = (activation(2, 4, 64, 32, seed=s) for s in range(3))
    with cosmic.compress_activations("u4") as meter:
        out = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    blocks = 2 * 4 * 64 * 32 // 128
    statistics = 4 * 2 * 4 * 64
    assert meter.packed_bytes == 2 * blocks * (BLOCK["q8"] + BLOCK["u4"]) + statistics
    assert meter.kept["small"] == 1
    del out


def test_attention_with_dropout_has_its_noise_in_bits() -> None:
    """Taken apart: scaled query and key, value, softmax, what dropout left of it, and its noise."""
    q, k, v = (activation(2, 4, 64, 32, seed=s) for s in range(3))

    def attention() -> Tensor:
        torch.manual_seed(5)
        return functional.scaled_dot_product_attention(q, k, v, dropout_p=0.25)

    exact = torch.autograd.grad(attention().square().sum(), (q, k, v))
    for codec, softmax in (("u4", "u4"), ("u4+q8", "q8")):
        with cosmic.compress_activations(codec) as meter:
            out = attention()
        vectors, weights = 2 * 4 * 64 * 32 // 128, 2 * 4 * 64 * 64 // 128
        packed = vectors * (2 * BLOCK["q8"] + BLOCK["u4"]) + weights * (
            BLOCK[softmax] + BLOCK["u4"]
        )
        assert meter.packed_bytes == packed + 2 * 4 * 64 * 64 // 8
        found = torch.autograd.grad(out.square().sum(), (q, k, v))
        for a, b in zip(found, exact, strict=True):
            assert float((a - b).norm() / b.norm()) < 0.25


def test_weights_of_attention_are_not_taken_for_its_noise() -> None:
    """Only the value takes a gradient, so that the weights have no history."""
    q, k = normal(0, 2, 4, 64, 32), normal(1, 2, 4, 64, 32)
    v = activation(2, 4, 64, 32)

    def gradient() -> Tensor:
        torch.manual_seed(5)
        out = functional.scaled_dot_product_attention(q, k, v, dropout_p=0.25)
        return torch.autograd.grad(out.square().sum(), v)[0]

    exact = gradient()
    with cosmic.compress_activations("q8") as meter:
        found = gradient()
    assert meter.packed > 0
    assert float((found - exact).norm() / exact.norm()) < 0.02


@pytest.mark.parametrize("weights", [False, True])
def test_attention_within_a_function_that_is_not_seen_through(weights: bool) -> None:
    """Which tensors are queries and keys is not known, so that all have 8 bits."""
    torch.manual_seed(0)
    model = nn.MultiheadAttention(64, 4, batch_first=True)
    x = activation(4, 32, 64)

    def forward() -> object:
        return model(x, x, x, need_weights=weights)

    assert saved_bytes(forward, "u4", min_numel=1024) == saved_bytes(forward, "q8", min_numel=1024)
