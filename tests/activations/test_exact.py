"""Operations whose backward divides by what they saved, compares it or takes its exponential: noise
on that would not be small noise on gradients, and it is kept."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import cosmic
from cosmic.activations import saved_bytes
from helpers import normal, same_bits

pytestmark = pytest.mark.usefixtures("one_thread")

Loss = Callable[[Tensor], Tensor]


def gradient(loss: Loss, x: Tensor, codec: str | None) -> Tensor:
    """Of a leaf with the values of ``x``."""
    leaf = x.clone().requires_grad_()
    if codec is None:
        return torch.autograd.grad(loss(leaf), leaf)[0]
    with cosmic.compress_activations(codec, min_numel=64):
        out = loss(leaf)
    return torch.autograd.grad(out, leaf)[0]


def with_units(*shape: int) -> Tensor:
    """Positive numbers, most of them far below the largest of their block."""
    return normal(3, *shape).abs() ** 4 + 1e-6


@pytest.mark.parametrize(
    "loss",
    [
        lambda x: (1 * x).log().sum(),
        lambda x: (1 * x).log1p().sum(),
        lambda x: (1 * x).sqrt().sum(),
        lambda x: ((1 * x) ** 0.5).sum(),
        lambda x: (1 * x).pow(-1.5).sum(),
        lambda x: torch.ones_like(x).div_(1 * x).sum(),
        lambda x: torch.special.xlogy(torch.ones_like(x), 1 * x).sum(),
        lambda x: torch.hypot(1 * x, 1 * x).sum(),
        lambda x: torch.lgamma(1 * x).sum(),
        lambda x: functional.gaussian_nll_loss(1 * x, 1.1 * x.detach(), 1 * x),
        lambda x: (1 * x).amax(-1).sum(),
        lambda x: (1 * x).max(),
        lambda x: (1 * x).median(),
        lambda x: (1 * x).norm(float("inf"), dim=-1).sum(),
        lambda x: torch.linalg.vector_norm(1 * x, float("inf"), dim=-1).sum(),
        lambda x: torch.logsumexp(1 * x, -1).sum(),
        lambda x: torch.logdet((1 * x) + 99 * torch.eye(128)),
        lambda x: torch.linalg.inv((1 * x) + 99 * torch.eye(128)).sum(),
    ],
)
@pytest.mark.parametrize("codec", ["q8", "u4"])
def test_gradients_have_no_noise(loss: Loss, codec: str) -> None:
    x = with_units(128, 128)
    exact = gradient(loss, x, None)
    assert bool(exact.isfinite().all())
    assert same_bits(gradient(loss, x, codec), exact)


@pytest.mark.parametrize("width", [8, 16, 64])
@pytest.mark.parametrize("named", [False, True])
def test_attention_keeps_what_enters_its_exponent(width: int, named: bool) -> None:
    """Log-sum-exps of heads however narrow, and a mask with biases beside the lowest number."""
    shape = (2, 4, 128, width)
    q, k, v = (normal(s, *shape).requires_grad_() for s in range(3))
    future = torch.ones(128, 128, dtype=torch.bool).triu(1)
    mask = normal(4, 2, 4, 128, 128).masked_fill(future, torch.finfo(torch.float32).min)

    def gradients(codec: str | None) -> tuple[Tensor, ...]:
        def attend() -> Tensor:
            given = (1 * q, 1 * k, 1 * v)
            if not named:
                return functional.scaled_dot_product_attention(*given, attn_mask=mask)
            return functional.scaled_dot_product_attention(
                query=given[0], key=given[1], value=given[2], attn_mask=mask
            )

        if codec is None:
            out = attend()
        else:
            with cosmic.compress_activations(codec, min_numel=64) as meter:
                out = attend()
            assert meter.kept["exact"] + meter.kept["statistic"] == 2
        return torch.autograd.grad((out * normal(5, *shape)).sum(), (q, k, v))

    for found, exact in zip(gradients("q8"), gradients(None), strict=True):
        assert float((found - exact).norm() / exact.norm()) < 0.03


@pytest.mark.parametrize(
    "loss",
    [
        lambda x: (3.0 * torch.ones_like(x) / (1 * x)).sum(),
        lambda x: torch.true_divide(input=torch.ones_like(x), other=1 * x).sum(),
        lambda x: ((1 * x) / (1 * x.flip(0))).sum(),
    ],
)
def test_divisors_have_no_noise(loss: Loss) -> None:
    x = with_units(128, 128)
    exact = gradient(loss, x, None)
    assert float((gradient(loss, x, "q8") - exact).norm() / exact.norm()) < 0.05


def test_noise_of_attentions_dropout_is_packed() -> None:
    q, k, v = (normal(s, 2, 4, 128, 32).requires_grad_() * 1 for s in range(3))
    with cosmic.compress_activations("u4", min_numel=64) as meter:
        held = functional.scaled_dot_product_attention(q, k, v, dropout_p=0.1, is_causal=True)
    assert meter.kept["exact"] == 0
    assert meter.ratio < 0.3
    del held


def test_a_quotients_numerator_is_packed_and_its_short_rows_norms_are_not() -> None:
    x = normal(0, 4096, 8).requires_grad_()
    with cosmic.compress_activations("u4", min_numel=64) as meter:
        y = 1 * x
        held = y / y.norm(dim=-1, keepdim=True), functional.normalize(y, dim=-1)
    assert meter.packed == 1
    assert meter.kept["statistic"] >= 2
    loss = torch.stack([h.sum() for h in held]).sum()
    assert bool(torch.autograd.grad(loss, x)[0].isfinite().all())


def test_places_of_a_grid_stay() -> None:
    image = nn.Parameter(normal(0, 2, 3, 32, 32), requires_grad=False)
    places = normal(1, 2, 32, 32, 2).tanh()

    def loss(grid: Tensor) -> Tensor:
        return functional.grid_sample(image, 1 * grid, align_corners=False).sum()

    assert same_bits(gradient(loss, places, "u4"), gradient(loss, places, None))


def test_soft_targets_that_learn_are_noticed_by_name() -> None:
    logits = (8 * normal(0, 64, 500)).requires_grad_()
    target = normal(1, 64, 500).softmax(-1).requires_grad_()
    with cosmic.compress_activations("u4"):
        loss = functional.cross_entropy(input=1 * logits, target=1 * target)
    exact = -functional.log_softmax(logits.detach(), -1) / 64
    found = torch.autograd.grad(loss, target)[0]
    assert float((found - exact).norm() / exact.norm()) < 0.05


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_layouts_without_strides_are_kept() -> None:
    ragged = torch.nested.nested_tensor(
        [normal(0, 50, 128), normal(1, 60, 128)], requires_grad=True
    )
    blocked = normal(2, 4, 3, 16, 16).requires_grad_()
    meta = torch.empty(100, 100, device="meta", requires_grad=True)
    with cosmic.compress_activations(min_numel=64) as meter:
        one = functional.gelu(ragged * 1)
        two = functional.relu((blocked * 1).to_mkldnn()).to_dense()
        three = (meta * 1).sin()
    assert meter.kept["layout or device"] >= 3
    assert meter.saved_bytes >= 4 * (110 * 128 + 4 * 3 * 256 + 10000)
    for out in (torch.nested.to_padded_tensor(one, 0.0), two, three):
        torch.autograd.backward(out.sum())
    assert saved_bytes(lambda: functional.gelu(ragged * 1), "q8") == 4 * 110 * 128


def test_a_transform_that_refuses_hooks_leaves_nothing_behind() -> None:
    context = cosmic.compress_activations(min_numel=64)
    model = nn.Linear(64, 64)

    def loss(x: Tensor) -> Tensor:
        with context:
            return x.sin().sum()

    with pytest.raises(RuntimeError, match="saved tensor hooks"):
        torch.func.grad(loss)(normal(0, 8))
    with context as meter:
        model(normal(0, 64, 64).requires_grad_() * 1).sin()
    assert meter.packed == 2


@pytest.mark.filterwarnings("ignore:Using `torch.compile")
def test_a_compiled_module_runs_and_is_packed_as_one_unknown_operation() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 64))
    weights = list(model.parameters())
    x = normal(0, 128, 64)
    compiled = torch.compile(model, backend="aot_eager")
    exact = torch.autograd.grad(compiled(x).sum(), weights)
    with cosmic.compress_activations(min_numel=64) as meter:
        loss = compiled(x).sum()
    assert meter.packed == 3
    for found, wanted in zip(torch.autograd.grad(loss, weights), exact, strict=True):
        assert float((found - wanted).norm() / wanted.norm()) < 0.05


def test_a_long_block_does_not_pin_what_is_gone() -> None:
    context = cosmic.compress_activations(min_numel=64)
    x = normal(0, 128).requires_grad_()
    with context as meter:
        for _ in range(9000):
            (1 * x).sin()
        assert len(context._would._stretches) <= 4097
    assert meter.saved_bytes == 9000 * 512
