"""exact.check: what depends on the machine is found, in its module, forward and backward."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from converted_models import batch, gpt2
from cosmic import Cosmic, exact
from helpers import normal


def names(found: list[exact.MachineDependent]) -> set[tuple[str, str, bool]]:
    return {(one.operator, one.module, one.backward) for one in found}


def test_operators_are_named_with_their_module() -> None:
    model = nn.Sequential(nn.Linear(4, 4), exact.GELU(), nn.Tanh())
    found = exact.check(model, normal(0, 3, 4).requires_grad_())
    assert names(found) == {
        ("aten.addmm", "0", False), ("aten.tanh", "2", False), ("aten.tanh_backward", "2", True),
        ("aten.mm", "0", True), ("aten.sum", "0", True),
    }  # fmt: skip
    assert next(one for one in found if one.operator == "aten.mm").calls == 2


def test_gradients_and_the_generator_stay() -> None:
    model = nn.Sequential(exact.Linear(4, 4), exact.Dropout(0.5))
    model(normal(0, 3, 4)).sum().backward()
    before = [(p.grad, p.grad.clone()) for p in model.parameters() if p.grad is not None]
    state = torch.get_rng_state()
    assert exact.check(model, normal(0, 3, 4)) == []
    assert torch.equal(torch.get_rng_state(), state)
    for (gradient, values), parameter in zip(before, model.parameters(), strict=True):
        assert parameter.grad is gradient and torch.equal(gradient, values)


def test_nothing_is_trained() -> None:
    model, x = nn.Sequential(exact.Linear(4, 4)), normal(0, 3, 4).requires_grad_()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    Cosmic(model.parameters(), lr=0.1).step_in_backward()
    assert exact.check(model, x) == []
    for values, parameter in zip(before, model.parameters(), strict=True):
        assert torch.equal(values, parameter)
    assert x.grad is None
    model(x).sum().backward()
    assert not torch.equal(before[0], next(model.parameters()))  # as before, it steps


def test_a_frozen_model_and_a_loss_without_gradient_are_checked_forward() -> None:
    model = nn.Sequential(nn.Linear(4, 4)).requires_grad_(False)
    assert names(exact.check(model, X)) == {("aten.addmm", "0", False)}
    assert exact.check(Computes(lambda x, w: SimpleNamespace(loss=(x * w).detach())), X) == []


class Computes(nn.Module):
    def __init__(self, run: Any) -> None:
        super().__init__()
        self.weight = nn.Parameter(normal(0, 4))
        self.run = run

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.run(x, self.weight)
        return out


X = normal(1, 3, 4)


@pytest.mark.parametrize(
    ("run", "operators"),
    [
        (lambda x, w: x * exact.broadcast_to(w, x.shape) / 3 - x.abs().sqrt(), set()),
        (lambda x, w: torch.add(x, exact.broadcast_to(w, x.shape), alpha=-1), set()),
        (lambda x, w: torch.add(x, exact.broadcast_to(w, x.shape), alpha=0.3), {"add"}),
        (lambda x, w: torch.rsub(w, 2.0, 0.3), {"rsub"}),
        (lambda x, w: x + w, {"sum"}),
        (lambda x, w: torch.addcmul(x, x, exact.broadcast_to(w, x.shape)), {"addcmul"}),
        (lambda x, w: exact.broadcast_to(w, x.shape).exp(), {"exp"}),
        (lambda x, w: w[torch.tensor([0, 2])], set()),
        (lambda x, w: w[torch.tensor([0, 0])], {"index_put"}),
        (lambda x, w: w[torch.tensor([0, 0]).int()], {"index_put"}),
        (lambda x, w: w[torch.tensor([0, -4])], {"index_put"}),
        (lambda x, w: torch.view_as_complex(w.view(2, 2)) * 1j, {"mul"}),
        (lambda x, w: w[torch.tensor([True, False, False, True])], set()),
        (lambda x, w: torch.where(w > 0, w, -w).clamp(max=2.0).relu(), set()),
        (lambda x, w: w.flip(0).roll(1).cumsum(0), {"cumsum"}),
        (lambda x, w: w * torch.arange(4).sum() * torch.randint(3, (4,)), set()),
        (lambda x, w: w * torch.randn(4), {"randn"}),
        (lambda x, w: w.unsqueeze(0) @ w.unsqueeze(1), {"mm"}),
        (lambda x, w: torch.view_as_real(torch.view_as_complex(w.view(2, 2)) * 2j), {"mul"}),
    ],
)
def test_operators_are_told_apart(run: Any, operators: set[str]) -> None:
    found = {one.operator.removeprefix("aten.") for one in exact.check(Computes(run), X)}
    assert {name.removesuffix("_impl_").strip("_") for name in found} >= operators
    assert bool(found) == bool(operators)


class Recomputed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(exact.Linear(4, 4), nn.Sigmoid())

    def forward(self, x: Tensor) -> Any:
        return {"out": checkpoint(self.inner, x, use_reentrant=False)}


def test_what_a_checkpoint_recomputes_is_seen() -> None:
    found = names(exact.check(Recomputed(), X))
    assert ("aten.sigmoid", "inner.1", True) in found
    assert ("aten.sigmoid_backward", "inner.1", True) in found


def test_checkpoints_of_a_converted_model_are_exact() -> None:
    model = exact.convert(gpt2(dropout=0.1))
    model.activation_checkpointing_enable()
    assert exact.check(model, **batch()) == []
    results = []
    for _ in range(2):
        torch.manual_seed(1)
        model.zero_grad()
        model(**batch()).loss.backward()
        results.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
        model.activation_checkpointing_disable()
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
