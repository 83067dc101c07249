"""Modules of cosmic.exact: torch's by name, state and class, with initial weights of their own."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.pytorch_utils import Conv1D

from cosmic import exact
from helpers import normal

PAIRS: dict[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module]]] = {
    "Linear": (lambda: exact.Linear(4, 3), lambda: nn.Linear(4, 3)),
    "Linear without bias": (
        lambda: exact.Linear(4, 3, bias=False), lambda: nn.Linear(4, 3, bias=False)
    ),
    "Conv1D": (lambda: exact.Conv1D(3, 4), lambda: Conv1D(3, 4)),
    "LayerNorm": (lambda: exact.LayerNorm(4), lambda: nn.LayerNorm(4)),
    "LayerNorm, bare": (
        lambda: exact.LayerNorm(4, elementwise_affine=False),
        lambda: nn.LayerNorm(4, elementwise_affine=False),
    ),
    "RMSNorm": (lambda: exact.RMSNorm(4), lambda: nn.RMSNorm(4)),
    "GELU": (lambda: exact.GELU(approximate="tanh"), lambda: nn.GELU(approximate="tanh")),
    "SiLU": (exact.SiLU, nn.SiLU),
    "Tanh": (exact.Tanh, nn.Tanh),
    "Sigmoid": (exact.Sigmoid, nn.Sigmoid),
    "Softmax": (lambda: exact.Softmax(dim=0), lambda: nn.Softmax(dim=0)),
}  # fmt: skip


@pytest.mark.parametrize("name", PAIRS)
def test_a_module_has_torchs_state_and_values(name: str) -> None:
    ours, theirs = (make() for make in PAIRS[name])
    with torch.no_grad():
        for i, parameter in enumerate(theirs.parameters()):
            parameter.copy_(normal(i, *parameter.shape))
    ours.load_state_dict(theirs.state_dict())
    assert [n for n, _ in ours.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    assert isinstance(ours, type(theirs)) or name == "Conv1D"
    x = normal(9, 5, 4)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-6)
    for twin in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert torch.equal(twin(x), ours(x))


def test_embeddings_and_losses_have_torchs_values() -> None:
    ids = torch.tensor([[1, 0], [2, 1]])
    ours, theirs = exact.Embedding(3, 4, padding_idx=0), nn.Embedding(3, 4, padding_idx=0)
    assert not ours.weight[0].any() and ours.weight[1:].all()
    ours.load_state_dict(theirs.state_dict())
    assert torch.equal(ours(ids), theirs(ids))
    loss = exact.CrossEntropyLoss(ignore_index=1, label_smoothing=0.1)
    plain = nn.CrossEntropyLoss(ignore_index=1, label_smoothing=0.1)
    torch.testing.assert_close(loss(ours(ids)[0], ids[0]), plain(theirs(ids)[0], ids[0]))


def test_initial_weights_come_from_torchs_generator() -> None:
    def drawn(seed: int) -> list[Tensor]:
        torch.manual_seed(seed)
        made = (exact.Linear(40, 50), exact.Embedding(40, 50), exact.Conv1D(50, 40))
        return [parameter for module in made for parameter in module.parameters()]

    first, again, other = drawn(0), drawn(0), drawn(1)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first[:4], other[:4], strict=True))
    weight, bias, table, conv, _ = first
    bound = 40**-0.5
    for drawn_ in (weight, bias):
        assert 0.9 * bound < float(drawn_.detach().abs().max()) <= bound
    assert float(weight.detach().std()) == pytest.approx(bound / 3**0.5, rel=0.05)
    assert float(table.detach().std()) == pytest.approx(1.0, rel=0.05)
    assert float(conv.detach().std()) == pytest.approx(0.02, rel=0.05)


def test_a_layer_on_meta_waits_for_its_weights() -> None:
    with torch.device("meta"):
        layer = exact.Linear(4, 3)
    layer.load_state_dict(nn.Linear(4, 3).state_dict(), assign=True)
    assert layer(normal(0, 2, 4)).shape == (2, 3)


# ---- dropout -------------------------------------------------------------------------------------


def test_dropout_keeps_what_it_should_and_its_gradient_is_the_mask() -> None:
    x = torch.ones(400, 500, requires_grad=True)
    out = exact.dropout(x, 0.3, key=7)
    kept = out != 0
    assert float(kept.double().mean()) == pytest.approx(0.7, abs=0.005)
    assert torch.equal(out[kept], torch.full_like(out[kept], float(torch.tensor(1 / 0.7))))
    torch.autograd.backward(out, torch.ones_like(out))
    assert x.grad is not None and torch.equal(x.grad, out)
    assert torch.equal(exact.dropout(x.double(), 0.3, key=7) != 0, kept)
    assert not torch.equal(exact.dropout(x, 0.3, key=8) != 0, kept)
    assert exact.dropout(x, 0.3, training=False) is x


def test_dropout_follows_torchs_generator() -> None:
    x, drop = normal(0, 10, 10), exact.Dropout(0.5)
    state = torch.get_rng_state()
    first, second = drop(x), drop(x)
    assert not torch.equal(first, second)
    torch.set_rng_state(state)
    assert torch.equal(drop(x), first)
    assert torch.equal(drop.eval()(x), x)


def test_attention_drops_weights_in_training_alone() -> None:
    q = normal(0, 1, 2, 6, 4).requires_grad_()
    layer = exact.Attention(dropout=0.5)
    torch.manual_seed(3)
    first = layer(q, q, q)
    torch.manual_seed(3)
    assert torch.equal(layer(q, q, q), first)
    assert not torch.equal(layer(q, q, q), first)
    assert torch.equal(layer.eval()(q, q, q), exact.attention(q, q, q))

    def seeded(x: Tensor) -> Tensor:
        torch.manual_seed(3)
        return exact.attention(x, x + 1, 2 * x, dropout=0.5)

    wide = q.detach().double().requires_grad_()
    assert torch.autograd.gradcheck(seeded, (wide,))


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpoint_draws_the_same_mask_again(reentrant: bool) -> None:
    layer = nn.Sequential(exact.Linear(6, 6), exact.Dropout(0.5), exact.Tanh())

    def gradients(recomputed: bool) -> list[Tensor]:
        torch.manual_seed(1)
        x = normal(0, 8, 6).requires_grad_()
        run = checkpoint(layer, x, use_reentrant=reentrant) if recomputed else layer(x)
        torch.autograd.backward(exact.sum(layer(run)))
        found = [x.grad, *(p.grad for p in layer.parameters())]
        layer.zero_grad()
        return [gradient for gradient in found if gradient is not None]

    pairs = list(zip(gradients(True), gradients(False), strict=True))
    assert len(pairs) == 3 and all(torch.equal(a, b) for a, b in pairs)


def test_gradients_are_clipped_to_a_norm() -> None:
    params = [nn.Parameter(normal(i, 5, 6)) for i in range(3)]
    twins = copy.deepcopy(params)
    for param, twin in zip(params[:2], twins, strict=False):
        param.grad, twin.grad = param.detach() * 3, param.detach() * 3
    norm = exact.clip_grad_norm_(params, 2.0)
    assert norm == pytest.approx(float(nn.utils.clip_grad_norm_(twins, 2.0)), rel=1e-6)
    for param, twin in zip(params[:2], twins, strict=False):
        torch.testing.assert_close(param.grad, twin.grad)
    before = [param.grad for param in params]
    assert exact.clip_grad_norm_(iter(params), 2.1) == pytest.approx(2.0, rel=1e-5)
    assert all(a is b for a, b in zip(before, [p.grad for p in params], strict=True))
    assert params[0].grad is not None
    params[0].grad[0, 0] = torch.inf
    assert exact.clip_grad_norm_(params, 2.0) == float("inf")


def test_modules_can_wait_for_their_weights() -> None:
    with torch.device("meta"):
        modules = exact.Linear(4, 3), exact.Conv1D(3, 4), exact.Embedding(3, 4)
    for module in modules:
        assert module.weight.is_meta
        module.load_state_dict(
            {name: torch.zeros(p.shape) for name, p in module.named_parameters()}, assign=True
        )
        assert not module.weight.is_meta


def test_layers_of_no_width_are_their_bias() -> None:
    bias = normal(0, 3)
    for rows in ((2,), (2, 0), ()):
        found = exact.linear(torch.ones(*rows, 0), torch.ones(3, 0), bias)
        assert torch.equal(found, bias.expand(*rows, 3))
    assert torch.equal(exact.matmul(torch.ones(2, 2, 0), torch.ones(2, 0, 3)), torch.zeros(2, 2, 3))
