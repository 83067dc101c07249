"""`compress_activations`: what it packs and what it leaves alone, and how gradients come out."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

import cosmic
from cosmic.activations import ActivationMeter, saved_bytes
from helpers import normal, same_bits

pytestmark = pytest.mark.usefixtures("one_thread")

#: Bytes a block of 128 elements takes: codes and a scale of 16 bits.
BLOCK = {"q8": 130, "u4": 66, "u2": 34, "u1": 18}


def activation(*shape: int, seed: int = 0) -> Tensor:
    """With a history, so that it is not taken for a parameter."""
    return normal(seed, *shape).requires_grad_() * 1.0


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(64, 128), nn.GELU(), nn.LayerNorm(128), nn.Linear(128, 64), nn.Tanh()
    )


def gradients(model: nn.Module, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(model.parameters())))


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


class Watching(torch.autograd.Function):
    """The identity; shows what it has saved."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, seen: list[Tensor]) -> Tensor:
        ctx.save_for_backward(x)
        ctx.seen = seen
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        ctx.seen.append(ctx.saved_tensors[0])
        return gradient, None


def test_a_freed_tensors_address_is_not_taken_for_it() -> None:
    """Each tensor is freed as soon as it is packed, so that the next one has its address."""
    x = activation(64, 128)
    with cosmic.compress_activations("q8") as meter:
        results = [(x * k).sin() for k in range(20)]
    assert meter.packed == 20
    for k, result in enumerate(results):
        found = torch.autograd.grad(result.sum(), x, retain_graph=True)[0]
        exact = k * torch.cos(k * x)
        assert float((found - exact).detach().abs().max()) < 0.05 * (k + 1) ** 2


def test_sees_changes_in_place() -> None:
    x = activation(64, 128)
    with cosmic.compress_activations("q8") as meter:
        y = x * 1
        first = y.sin()
        y += 1
        second = y.sin()
        kept = x[:2] * 1
        third = kept.sin()
        kept += 1
    assert meter.packed == 2
    for result, by in ((first, x), (second, x + 1)):
        found = torch.autograd.grad(result.sum(), x, retain_graph=True)[0]
        assert float((found - by.cos()).detach().abs().max()) < 0.05
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        third.sum().backward()  # type: ignore[no-untyped-call]


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


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("inside", [False, True])
def test_inputs_of_checkpointed_segments_stay_exact(reentrant: bool, inside: bool) -> None:
    model = network()

    def run(context: Any) -> list[Tensor]:
        with context as meter:
            h = checkpoint(model, activation(256, 64), use_reentrant=reentrant)
            loss = h.square().mean()
            if inside:
                loss.backward()
        if not inside:
            loss.backward()
        if meter is not None:
            assert meter.kept["checkpoint"] == 1
        found = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        model.zero_grad()
        return found

    exact = run(torch.enable_grad())
    # nothing but the loss's own input is packed outside of the segment
    found = run(cosmic.compress_activations("q8"))
    for a, b in zip(found, exact, strict=True):
        assert float((a - b).norm() / b.norm()) < 0.05


def test_under_autocast_weights_stay_exact() -> None:
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64).requires_grad_(False))
    x = activation(64, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with cosmic.compress_activations("u4", min_numel=1) as meter:
            y = model(x)
        exact = torch.autograd.grad(model(x).float().sum(), x)[0]
    assert same_bits(torch.autograd.grad(y.float().sum(), x)[0], exact)
    assert meter.packed == 1 and meter.kept["parameter"] == 2


def test_several_forwards_before_one_backward_and_contexts_in_each_other() -> None:
    model = network()
    outer, inner = cosmic.compress_activations("u4"), cosmic.compress_activations("q8")
    with outer as outer_meter:
        losses = [model(normal(k, 256, 64)).square().mean() for k in range(3)]
        seen = outer_meter.tensors
        with inner as inner_meter:
            losses.append(model(normal(3, 256, 64)).square().mean())
        assert outer_meter.tensors == seen and 3 * inner_meter.tensors == seen
        losses.append(model(normal(4, 256, 64)).square().mean())
    found = gradients(model, torch.stack(losses).sum())
    exact = gradients(
        model, torch.stack([model(normal(k, 256, 64)).square().mean() for k in range(5)]).sum()
    )
    for a, b in zip(found, exact, strict=True):
        assert float((a - b).norm() / b.norm()) < 0.2


def test_an_error_inside_leaves_nothing_behind() -> None:
    model, x = network(), normal(0, 256, 64)
    context = cosmic.compress_activations("q8")
    with pytest.raises(RuntimeError, match="entered already"), context:
        context.__enter__()
    with pytest.raises(ZeroDivisionError), context:
        model(x)
        raise ZeroDivisionError
    context.meter.reset()
    loss = model(x).square().mean()
    exact = gradients(model, model(x).square().mean())
    assert context.meter.tensors == 0
    assert all(same_bits(a, b) for a, b in zip(gradients(model, loss), exact, strict=True))
    with context as meter:
        model(x)
    assert meter.tensors > 0


def test_everything_is_freed_after_backward() -> None:
    model, x = network(), normal(0, 256, 64)
    context = cosmic.compress_activations("q8")
    gc.collect()
    gc.disable()  # nothing may wait for the collector of circles
    try:
        with context:
            h = model[0](x)
            tensor = weakref.ref(h)
            loss = model[1:](h).square().mean()
            del h
            assert tensor() is None
            kept = list(context._packed.values())
            packed = [weakref.ref(p) for p in kept]
            del kept
            assert packed
        loss.backward()
        assert all(p() is None for p in packed)
        held = weakref.ref(context)
        del context, loss
        assert held() is None
    finally:
        gc.enable()


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
        ({"seed": 2**64}, ValueError, "expected an int from 0 to 2"),
        ({"seed": 0.5}, TypeError, "seed is 0.5; expected an int"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        cosmic.compress_activations(**arguments)


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
