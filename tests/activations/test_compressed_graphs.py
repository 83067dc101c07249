"""`compress_activations` through the life of a graph: from the first tensor to all being freed."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import cosmic
from helpers import normal, same_bits
from packing import activation, gradients, network

pytestmark = pytest.mark.usefixtures("one_thread")


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
