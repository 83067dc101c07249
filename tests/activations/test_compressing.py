"""`compress_activations`: what it packs, in how many bytes, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import cosmic
from cosmic.activations import ActivationMeter, saved_bytes
from helpers import normal, same_bits
from packing import BLOCK, Watching, activation, gradients, network

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("codec", BLOCK)
def test_bytes_are_the_codecs_and_nothing_else(codec: str) -> None:
    x = activation(64, 1024)
    with cosmic.compress_activations(codec) as meter:
        held = x.sin(), x.T.cos()  # the same elements in another shape
    assert len(held) == 2
    assert meter.saved_bytes == 4 * 65536
    assert meter.packed_bytes == 512 * BLOCK[codec] == meter.ratio * meter.saved_bytes
    assert (meter.tensors, meter.packed, meter.shared) == (2, 1, 1)
    assert meter.seconds > 0
    meter.reset()
    assert meter == ActivationMeter()


def test_agrees_with_what_is_counted_beforehand() -> None:
    model, x = network(), normal(1, 256, 64)
    for codec in ("q8", "u4", "u4+q8"):
        with cosmic.compress_activations(codec) as meter:
            held = model(x)
        assert meter.packed_bytes == saved_bytes(lambda: model(x), codec)
        assert meter.saved_bytes == saved_bytes(lambda: model(x))
        del held


def test_relu_and_dropout_are_exact_in_a_bit_an_element() -> None:
    model = nn.Sequential(nn.ReLU(), nn.Dropout(0.3), nn.LeakyReLU(0.2))
    x = activation(64, 100)

    def gradient() -> Tensor:
        torch.manual_seed(5)
        return torch.autograd.grad(model(x).sum(), x, retain_graph=True)[0]

    exact = gradient()
    with cosmic.compress_activations("u4") as meter:
        found = gradient()
    assert meter.packed_bytes == 3 * 800
    assert same_bits(found, exact)


def test_codec_by_operation() -> None:
    x = activation(32, 128)
    weight = nn.Parameter(normal(1, 128, 128))

    def packed(forward: Callable[[], Tensor], codec: str = "u4+q8") -> int:
        with cosmic.compress_activations(codec) as meter:
            held = forward()
        del held
        return meter.packed_bytes

    assert packed(lambda: x @ weight) == 32 * BLOCK["u4"]
    assert packed(lambda: functional.linear(x, weight)) == 32 * BLOCK["u4"]
    assert packed(lambda: x.sin()) == 32 * BLOCK["q8"]
    assert packed(lambda: x.softmax(-1)) == 32 * BLOCK["q8"]
    # what two operations save is held by the finer one's codec, whichever comes first
    assert packed(lambda: (x @ weight) + x.sin()) == 32 * BLOCK["q8"]
    assert packed(lambda: x.sin() + (x @ weight)) == 32 * BLOCK["q8"]
    assert packed(lambda: functional.gelu(x), "u4") == 32 * BLOCK["u4"]


class Owner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(normal(0, 64, 64))
        self.frozen = nn.Parameter(normal(1, 64, 64), requires_grad=False)
        self.table: Tensor
        self.register_buffer("table", normal(2, 64, 64))

    def forward(self, x: Tensor) -> Tensor:
        x = (x @ self.weight) @ self.weight.T[:, :64]
        return x @ self.frozen.view(-1).view(64, 64) @ self.table.mT


def test_never_packs_what_the_model_owns() -> None:
    model, x = Owner(), activation(128, 64)
    with cosmic.compress_activations("u4", min_numel=1) as meter:
        y = model(x)
    assert meter.kept["parameter"] == 4
    assert meter.packed == 2  # the inputs of the two products by the weight
    exact = torch.autograd.grad(model(x).sum(), x)[0]
    assert same_bits(torch.autograd.grad(y.sum(), x)[0], exact)


def test_leaves_other_types_alone() -> None:
    index = torch.arange(8192)
    complex_numbers = activation(8192).to(torch.complex64)
    double = activation(8192).double()
    infinite = torch.where(index < 5, torch.inf, activation(8192))
    windows = activation(8192).as_strided((4096, 16), (1, 1))
    sparse = torch.eye(100).to_sparse().requires_grad_()
    with cosmic.compress_activations("u4") as meter:
        results = [
            double.exp(),
            infinite.sin(),
            (complex_numbers * complex_numbers).abs(),
            activation(8192)[index].exp().masked_fill(index > 3, 0.0),
            windows.sin(),
            torch.sparse.mm(sparse, normal(0, 100, 100)),
        ]
    kept = meter.kept
    assert kept["not finite"] == 1 and kept["overlapping"] == 1 and kept["layout or device"] == 1
    assert kept["dtype"] >= 5
    assert meter.packed == 2  # an exponential, and the dense factor
    for result in results:
        result.to_dense().sum().backward()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "view",
    [
        lambda x: x,
        lambda x: x.permute(2, 0, 1),
        lambda x: x[:, 2:5, ::2],
        lambda x: x[:1].expand(9, 8, 32),
        lambda x: x.view(-1)[:, None],
        lambda x: x[3, 3, 3].expand(7),
    ],
)
def test_comes_back_in_shape_and_dtype(
    view: Callable[[Tensor], Tensor], dtype: torch.dtype
) -> None:
    """Views, transposed, sliced and expanded; in the order of memory that they had."""
    x = view(activation(16, 8, 32).to(dtype))
    seen: list[Tensor] = []
    with cosmic.compress_activations("q8", min_numel=1) as meter:
        y = Watching.apply(x, seen)  # type: ignore[no-untyped-call]
    torch.autograd.grad(y.sum(), x)
    (found,) = seen
    assert meter.packed == 1
    assert found.shape == x.shape and found.dtype == dtype
    assert float((found - x).detach().abs().max()) <= float(x.detach().abs().max()) / 100
    order = [sorted(range(t.ndim), key=lambda d: -t.stride()[d]) for t in (found, x)]
    assert order[0] == order[1]
    expanded = [tuple(s == 0 for s in t.stride()) for t in (found, x)]
    assert expanded[0] == expanded[1]  # nothing is blown up
    assert found.untyped_storage().nbytes() <= x.untyped_storage().nbytes()


def test_random_bits_come_from_the_seed(set_threads: Callable[[int], None]) -> None:
    model, x = network(), normal(1, 256, 64)

    def run(context: cosmic.compress_activations) -> Tensor:
        with context:
            loss = model(x).square().mean()
        return torch.cat([g.flatten() for g in gradients(model, loss)])

    set_threads(1)
    one = cosmic.compress_activations("u4", seed=3)
    first, second = run(one), run(one)
    assert not torch.equal(first, second)  # the next step has other bits
    same = cosmic.compress_activations("u4", seed=3)
    torch.rand(3)  # torch's own generator plays no part
    assert same_bits(run(same), first) and same_bits(run(same), second)
    assert not torch.equal(run(cosmic.compress_activations("u4", seed=4)), first)


def test_packed_bits_do_not_depend_on_threads(set_threads: Callable[[int], None]) -> None:
    x = activation(300, 1000)
    seen: list[Tensor] = []
    for threads in (1, 2):
        set_threads(threads)
        with cosmic.compress_activations("u4", seed=7):
            y = Watching.apply(x, seen)  # type: ignore[no-untyped-call]
            torch.autograd.grad(y.sum(), x)
    assert same_bits(*seen)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"codec": "q9"}, ValueError, "codec is 'q9'; expected one of q8, u4, u2, u1"),
        ({"codec": "u4+"}, ValueError, "codec is 'u4\\+'; expected one of"),
        ({"codec": "absmax"}, ValueError, "codec is 'absmax'; expected one of"),
        ({"codec": None}, TypeError, "codec is None; expected a str"),
        ({"min_numel": -1}, ValueError, "min_numel is -1; expected 0 or more"),
        ({"min_numel": "4k"}, TypeError, "min_numel is '4k'; expected an int"),
        ({"seed": -1}, ValueError, "seed is -1; expected 0 or more"),
        ({"seed": 2**64}, ValueError, f"seed is {2**64}; expected 0 or more and below {2**64}"),
        ({"seed": 0.5}, TypeError, "seed is 0.5; expected an int"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        cosmic.compress_activations(**arguments)
