"""`saved_bytes`: each piece of memory once, and nothing that the model owns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from cosmic.activations import saved_bytes
from helpers import normal

pytestmark = pytest.mark.usefixtures("one_thread")

FLOAT = 4


def with_gradient(*shape: int) -> Tensor:
    """An activation: no leaf, so that it is not taken for a parameter."""
    return normal(0, *shape).requires_grad_() * 1.0


def views_of_one(x: Tensor) -> Tensor:
    return x.exp().view(-1).sin().view(8, 64).mT.cos().sum()


@pytest.mark.parametrize(
    ("forward", "expected"),
    [
        (lambda x: x.exp().sin(), 512),  # exp's output is sin's input
        (lambda x: x * x, 512),
        (views_of_one, 2 * 512),
        (lambda x: x.expand(100, 8, 64).sin(), 512),  # what is expanded is not there
        (lambda x: x[:, :1].sin(), 7 * 64 + 1),  # from the first element to the last
        (lambda x: torch.relu(x), 512),
        (lambda x: x + 1, 0),
    ],
)
def test_each_piece_of_memory_counts_once(
    forward: Callable[[Tensor], Tensor], expected: int
) -> None:
    x = with_gradient(8, 64)
    assert saved_bytes(lambda: forward(x)) == FLOAT * expected


class Everything(nn.Module):
    """Parameters as they are, transposed, cast, frozen; and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(64, 64, bias=False)
        self.frozen = nn.Linear(64, 64, bias=False).requires_grad_(False)
        self.table: Tensor
        self.register_buffer("table", normal(1, 64, 64))

    def forward(self, x: Tensor) -> Tensor:
        x = self.frozen(self.first(x))
        x = x @ self.first.weight.T[:, :32] @ self.first.weight.double().float()[:32]
        return x @ self.table


def test_what_the_model_owns_does_not_count() -> None:
    model = Everything()
    x = normal(0, 128, 64)
    # the inputs of the first product and of the two by its weights; a frozen weight's is not saved
    expected = FLOAT * 128 * (64 + 64 + 32)
    assert saved_bytes(lambda: model(x)) == expected
    assert saved_bytes(lambda: model.to("meta")(x.to("meta"))) == expected


ATTENTION: dict[str, tuple[dict[str, Any], int]] = {
    "plain": ({}, 4),
    "causal": ({"is_causal": True}, 4),
    "mask": ({"attn_mask": torch.ones(48, 48, dtype=torch.bool)}, 4),
    "dropout": ({"dropout_p": 0.5}, 4),
    "fewer keys": ({"enable_gqa": True}, 2),
}


@pytest.mark.parametrize("codec", [None, "q8", "u4", "u4+q8"])
@pytest.mark.parametrize("case", ATTENTION)
def test_attention_on_the_meta_device_saves_what_the_cpu_s_does(
    case: str, codec: str | None
) -> None:
    """Fused or taken apart, as torch chooses on the CPU."""
    options, heads = ATTENTION[case]
    query, key, value = (with_gradient(2, 48, n, 32).transpose(1, 2) for n in (4, heads, heads))

    def count(device: str) -> int:
        q, k, v = (t.detach().to(device).requires_grad_() * 1 for t in (query, key, value))
        given = {n: v.to(device) if isinstance(v, Tensor) else v for n, v in options.items()}
        return saved_bytes(
            lambda: functional.scaled_dot_product_attention(q, k, v, **given),  # type: ignore[arg-type]
            codec,
            min_numel=1024,
        )

    assert count("meta") == count("cpu")


def test_under_autocast_the_casts_of_weights_do_not_count() -> None:
    model = nn.Sequential(
        nn.Linear(64, 64, bias=False), nn.Linear(64, 64, bias=False).requires_grad_(False)
    )
    x = normal(0, 128, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert saved_bytes(lambda: model(x)) == 2 * 128 * 64
        # as many rows as columns: only the numbers tell the input from the weight
        assert saved_bytes(lambda: model(x[:64])) == 2 * 64 * 64


def test_frees_nothing_that_is_counted_for_another() -> None:
    """A freed tensor's memory, and its address, go to the next one; both were saved."""
    x = with_gradient(64, 64)

    def forward() -> None:
        for _ in range(10):
            functional.gelu(x + 1)

    assert saved_bytes(forward) == 10 * FLOAT * 64 * 64


@pytest.mark.parametrize(("codec", "bits"), [("q8", 8), ("u4", 4), ("u2", 2)])
def test_with_a_codec(codec: str, bits: int) -> None:
    x = with_gradient(8, 1024)
    packed = 64 * (128 * bits // 8 + 2)
    assert saved_bytes(lambda: x.sin(), codec) == packed
    assert saved_bytes(lambda: x.sin(), codec, min_numel=8193) == FLOAT * 8192


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"codec": "q9"}, ValueError, "codec is 'q9'; expected one of q8, u4"),
        ({"codec": 4}, TypeError, "codec is 4; expected a str"),
        ({"codec": "q8", "min_numel": -1}, ValueError, "min_numel is -1; expected 0 or more"),
        ({"codec": "q8", "min_numel": 1.5}, TypeError, "min_numel is 1.5; expected an int"),
    ],
)
def test_bad_arguments(arguments: dict[str, object], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        saved_bytes(lambda: None, **arguments)  # type: ignore[arg-type]
