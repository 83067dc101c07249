"""Matrices in parts and in blocks, and matrices that take turns."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cosmic import Cosmic
from cosmic.presets import Muon
from helpers import digest, normal, parameter, parameters, same_bits, through_a_file
from matrix_runs import give, go, gradient, params_of
from reference.muon import MuonReference

PLAIN: dict[str, Any] = {"lr": 0.01, "weight_decay": 0.1, "adjust_lr_fn": "match_rms_adamw"}


def steps_of(optimizer: torch.optim.Optimizer, grads: list[Tensor]) -> Tensor:
    (p,) = params_of(optimizer)
    for g in grads:
        p.grad = g.clone()
        optimizer.step()
    return p.detach()


@pytest.mark.parametrize("sizes", [(30, 30, 30), (50, 30, 10), (89, 1), (90,)])
@pytest.mark.parametrize("along", [0, 1])
@pytest.mark.parametrize("transposed", [False, True])
def test_parts_are_stepped_as_matrices_of_their_own(
    sizes: tuple[int, ...], along: int, transposed: bool
) -> None:
    shape = (90, 40) if along == 0 else (40, 90)
    values = normal(0, *shape)
    whole = values.T.contiguous().T if transposed else values.clone()
    grads = [gradient(step, 0, values) for step in range(5)]
    together = steps_of(Muon([nn.Parameter(whole)], parts=(along, sizes), **PLAIN), grads)
    pieces = [
        steps_of(
            Muon([nn.Parameter(piece.clone())], **PLAIN),
            [torch.split(g, list(sizes), along)[k] for g in grads],
        )
        for k, piece in enumerate(torch.split(values, list(sizes), along))
    ]
    torch.testing.assert_close(together, torch.cat(pieces, along), rtol=0, atol=2e-6)
    if len(sizes) > 1:
        undivided = steps_of(Muon([nn.Parameter(values.clone())], **PLAIN), grads)
        assert float((together - undivided).abs().max()) > 1e-3


def test_parts_of_very_different_sizes_do_not_disturb_each_other() -> None:
    scales = torch.cat([torch.full((30, 1), s) for s in (1e-12, 1.0, 1e12)])
    grads = [gradient(step, 0, torch.zeros(90, 40)) for step in range(3)]
    options = {**PLAIN, "parts": (0, (30, 30, 30)), "eps": 0.0}
    alike = steps_of(Muon([parameter(0, 90, 40)], **options), grads)
    unlike = steps_of(Muon([parameter(0, 90, 40)], **options), [g * scales for g in grads])
    torch.testing.assert_close(alike, unlike, rtol=0, atol=2e-6)


def test_parts_of_a_convolution_lie_along_its_first_dimension() -> None:
    shape, sizes = (24, 4, 3, 3), (16, 8)
    optimizer = Muon([parameter(0, *shape)], parts=(0, sizes), **PLAIN)
    start = normal(0, *shape).double().numpy().reshape(24, 36)
    reference = MuonReference(start, adjust_lr_fn="match_rms_adamw", parts=sizes)
    grads = [gradient(step, 0, torch.zeros(shape)) for step in range(5)]
    found = steps_of(optimizer, grads)
    for g in grads:
        reference.step(g.double().numpy().reshape(24, 36), 0.01)
    np.testing.assert_allclose(found.numpy().reshape(24, 36), reference.param, rtol=0, atol=2e-6)


@pytest.mark.parametrize("shape", [(40, 90), (90, 40)])
@pytest.mark.parametrize("blocks", [2, 3, 40, 100])
def test_blocks_are_pieces_of_the_shorter_side(shape: tuple[int, int], blocks: int) -> None:
    grads = [gradient(step, 0, torch.zeros(shape)) for step in range(3)]
    found = steps_of(Muon([parameter(0, *shape)], matrix_blocks=blocks, **PLAIN), grads)
    borders = [40 * k // min(blocks, 40) for k in range(min(blocks, 40) + 1)]
    sizes = tuple(b - a for a, b in pairwise(borders))
    along = 0 if shape[0] == 40 else 1
    same = steps_of(Muon([parameter(0, *shape)], parts=(along, sizes), **PLAIN), grads)
    assert torch.equal(found, same)


# ---- turns --------------------------------------------------------------------------------------


def moves(optimizer: torch.optim.Optimizer, steps: int) -> list[list[int]]:
    """At which steps each parameter has moved."""
    found: list[list[int]] = [[] for _ in params_of(optimizer)]
    for step in range(steps):
        before = [p.detach().clone() for p in params_of(optimizer)]
        go(optimizer, step, step + 1)
        for k, (p, old) in enumerate(zip(params_of(optimizer), before, strict=True)):
            if not torch.equal(p, old):
                found[k].append(step)
    return found


@pytest.mark.parametrize("every", [2, 3])
def test_matrices_take_turns(every: int) -> None:
    optimizer = Muon(parameters(*[(9, 10)] * 30), matrix_every=every)
    found = moves(optimizer, 4 * every)
    for steps in found:
        assert len(steps) == 4 and set(np.diff(steps)) == {every}
    load = [sum(step in steps for steps in found) for step in range(4 * every)]
    assert max(load) - min(load) <= 2


def test_a_turn_makes_as_many_steps_at_once() -> None:
    """Of a direction that stays: as far as by single steps, decay and all."""
    steady = normal(5, 40, 70)
    single = Muon([parameter(0, 40, 70)], **PLAIN)
    double = Muon([parameter(0, 40, 70)], matrix_every=2, **PLAIN)
    one, two = steps_of(single, [steady] * 10), steps_of(double, [steady] * 10)
    start = normal(0, 40, 70)
    assert float((one - two).norm()) < 0.01 * float((one - start).norm())


@pytest.mark.parametrize("every", [2, 3])
@pytest.mark.parametrize("at", [4, 5])
def test_turns_go_on_with_the_same_bits_after_save_and_load(every: int, at: int) -> None:
    shapes = ((40, 70), (64, 64), (90, 33), (20, 21))
    options: dict[str, Any] = {"matrix_every": every, "state_dtype": "m4", "min_compress_size": 0}
    through, broken = Muon(parameters(*shapes), **options), Muon(parameters(*shapes), **options)
    go(through, 0, 10)
    go(broken, 0, at)
    resumed = Muon([nn.Parameter(p.detach().clone()) for p in params_of(broken)])
    resumed.load_state_dict(through_a_file(broken.state_dict()))
    go(resumed, at, 10)
    assert digest(resumed) == digest(through)


def test_the_average_takes_every_gradient() -> None:
    every, single = (Muon(parameters((40, 70), (64, 64)), matrix_every=k, lr=0.01) for k in (3, 1))
    go(every, 0, 5)
    go(single, 0, 5)
    for p, q in zip(params_of(every), params_of(single), strict=True):
        assert same_bits(every.state[p]["exp_avg"], single.state[q]["exp_avg"])


def test_a_matrix_without_a_gradient_waits() -> None:
    optimizer = Muon(parameters((40, 70), (40, 70)), matrix_every=2)
    first, second = params_of(optimizer)
    for step in range(8):
        give(optimizer, step)
        if step % 2:
            second.grad = None
        optimizer.step()
    assert int(optimizer.state[first]["step"]) == 8
    assert int(optimizer.state[second]["step"]) == 4
    assert not torch.equal(second, normal(1, 40, 70))


def test_the_statistics_are_those_of_the_matrices_that_moved() -> None:
    optimizer = Cosmic([parameter(0, 40, 70)], rung="tier2:muon:fp32", matrix_every=2)
    seen = []
    for step in range(4):
        go(optimizer, step, step + 1)
        seen.append(optimizer.stats()[0]["update_rms"])
    assert [rms > 0.1 for rms in seen] in ([True, False] * 2, [False, True] * 2)
    assert optimizer.stats()[0]["gradient_abs"] > 0.5
