"""A parameter in parts steps, to the bit, as its parts do as parameters of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from cosmic import Cosmic
from cosmic.rungs import combinations, matrix_rungs, without_momentum
from helpers import UNUSUAL, digest, normal
from part_runs import LAYOUTS, check_parity, fused, go, laid_out

UNEVEN = (32, 40, 24)
RUNGS = [
    "tier0",
    "tier1",
    *(f"tier1:{v}" for v in without_momentum()),
    *(f"tier2:{m}+{v}" for m, v in combinations()),
    *(rung.name for rung in matrix_rungs("muon")),
]


@pytest.mark.parametrize("rung", RUNGS)
@pytest.mark.parametrize("dimension", [0, 1])
def test_every_rung(rung: str, dimension: int) -> None:
    shape = (96, 64) if dimension == 0 else (64, 96)
    options: dict[str, Any] = {**UNUSUAL, "rung": rung, "min_compress_size": 0}
    optimizer = check_parity(normal(0, *shape), dimension, UNEVEN, **options)
    assert len(optimizer.tiers()) == 3


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dimension", [0, 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.complex64])
@pytest.mark.parametrize("rung", ["tier1", "tier2:u4+factored", "tier2:fp32+fp32"])
def test_every_layout_and_dtype(layout: str, dimension: int, dtype: torch.dtype, rung: str) -> None:
    """Of bfloat16 with stochastic rounding, whose random numbers are a part's own."""
    start = laid_out(normal(1, 40, 36, dtype=dtype), layout)
    sizes = (1, 16, 19 + 4 * (dimension == 0))
    check_parity(start, dimension, sizes, rung=rung, min_compress_size=0)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize(("dimension", "sizes"), [(0, (16, 8)), (1, (5, 3))])
@pytest.mark.parametrize("rung", ["tier2:u4+factored", "tier2:u4+v4", "tier2:muon:m4"])
def test_kernels_of_convolutions(
    layout: str, dimension: int, sizes: tuple[int, ...], rung: str
) -> None:
    if rung == "tier2:muon:m4" and layout == "channels_last" and dimension == 1:
        pytest.skip("has its first dimension first as a part, and not as a parameter of its own")
    start = laid_out(normal(2, 24, 8, 3, 3), layout)
    check_parity(start, dimension, sizes, rung=rung, min_compress_size=0)


@pytest.mark.parametrize("options", [
    {"gate": "snr"},
    {"gate": "snr", "exact": True},
    {"gate": "agar"},
    {"beta_slow": 0.99, "state_dtype": "fp32"},
    {"matrix_rule": "muon", "role": "matrix", "matrix_every": 2, "matrix_blocks": 3},
    {"maximize": True, "weight_decay": 0.1},
    {"rung": "tier2:ustate+v4"},
])  # fmt: skip
def test_gates_and_other_rules(options: dict[str, Any]) -> None:
    options = {"state_dtype": None if "rung" in options else "u4+v4", **options}
    check_parity(normal(3, 96, 64), 0, UNEVEN, steps=25, min_compress_size=0, **options)


@pytest.mark.parametrize("sizes", [(128, 256, 256), (384, 100, 156), (640,)])
@pytest.mark.parametrize("rows", [3, 40])
@pytest.mark.parametrize("options", [
    {"rung": "tier2:u4+v4"}, {"rung": "tier2:q8+factored"}, {"rung": "tier2:muon:m4"},
    {"state_dtype": "q8+q8", "gate": "agar", "exact": True}, {"rung": "tier1"},
])  # fmt: skip
def test_rows_of_whole_blocks(sizes: tuple[int, ...], rows: int, options: dict[str, Any]) -> None:
    """Which are read where they lie."""
    check_parity(normal(8, rows, 640), 1, sizes, min_compress_size=0, **options)


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 70), min_size=1, max_size=5),
    other=st.integers(1, 80),
    dimension=st.sampled_from([0, 1]),
    rung=st.sampled_from(["tier2:u4+v4", "tier2:q8+factored", "tier1:rowmean"]),
)
def test_any_sizes(sizes: list[int], other: int, dimension: int, rung: str) -> None:
    shape = (sum(sizes), other) if dimension == 0 else (other, sum(sizes))
    check_parity(normal(4, *shape), dimension, sizes, 2, rung=rung, min_compress_size=0)


def test_vectors_and_parts_of_one_are_parts_too() -> None:
    check_parity(normal(5, 300), 0, (128, 1, 171), state_dtype="u4+v4", min_compress_size=0)
    check_parity(normal(5, 30, 20), 0, (30,), state_dtype="u4+v4", min_compress_size=0)


def test_parts_have_random_numbers_of_their_own() -> None:
    """Of equal halves with equal gradients, codes that are rounded stochastically differ."""
    half = normal(6, 64, 64)
    param = nn.Parameter(torch.cat([half, half]))
    optimizer = Cosmic([param], parts=(0, 2), rung="tier2:u4+v4", min_compress_size=0)
    for step in range(3):
        gradient = normal(7 + step, 64, 64)
        param.grad = torch.cat([gradient, gradient])
        optimizer.step()
    state = optimizer.state[param]
    assert not torch.equal(state["0/exp_avg_u4_codes"], state["1/exp_avg_u4_codes"])


def test_an_index_is_no_other_rows() -> None:
    params = [fused(k) for k in range(5)]
    optimizer = Cosmic(params, parts=(0, 4))
    go(optimizer, 0, 1)
    compiled: Any = optimizer._compiled
    indices = [index for index, *_ in compiled.plan.statistics()]
    assert len(set(indices)) == 20 and indices[::4] == list(range(5))


@pytest.mark.parametrize("rung", ["tier2:u4+factored", "tier2:muon:m1", "tier1:factored"])
@pytest.mark.parametrize("dimension", [0, 1])
def test_any_number_of_threads_makes_the_same_bits(
    rung: str, dimension: int, set_threads: Callable[[int], None]
) -> None:
    found = set()
    for threads in (1, 2, 5):
        set_threads(threads)
        optimizer = Cosmic([fused(0, 300, 300)], parts=(dimension, (200, 100)), rung=rung)
        go(optimizer, 0, 3)
        found.add(digest(optimizer))
    assert len(found) == 1


def test_parameters_around_one_in_parts_are_stepped_as_ever() -> None:
    """Named by a pattern, the others are whole; one of them has no gradient for a while."""

    def run(parts: Any) -> list[Tensor]:
        named = [
            ("a", fused(0, 40, 30)),
            ("qkv", fused(1)),
            ("b", fused(2, 50)),
            ("c", fused(3, 9)),
        ]
        optimizer = Cosmic(named, parts=parts, state_dtype="u4+v4", min_compress_size=0)
        for step in range(4):
            for k, (name, p) in enumerate(named):
                late = name == "b" and step < 2
                p.grad = None if late else normal(10 * step + k, *p.shape)
            optimizer.step()
        return [p.detach() for _, p in named]

    cut, whole = run({"q*v": (0, 3)}), run(None)
    same = [torch.equal(a, b) for a, b in zip(cut, whole, strict=True)]
    assert same == [True, False, True, True]


@pytest.mark.parametrize("moved", ["param", "gradient", "state", "all"])
@pytest.mark.parametrize("dimension", [0, 1])
def test_memory_that_moves_is_followed(moved: str, dimension: int) -> None:
    optimizers = []
    for moves in (False, True):
        param = fused(0, 96, 96)
        optimizer = Cosmic([param], parts=(dimension, UNEVEN), state_dtype="fp32")
        kept = torch.zeros(96, 96)
        for step in range(6):
            kept = normal(step, 96, 96) if moves and moved in ("gradient", "all") else kept
            param.grad = kept.copy_(normal(step, 96, 96))
            if moves and step == 3 and moved in ("param", "all"):
                param.data = param.data.clone()
            if moves and step == 4 and moved in ("state", "all"):
                for value in optimizer.state[param].values():
                    if isinstance(value, Tensor):
                        value.data = value.data.clone()
            optimizer.step()
        optimizers.append(optimizer)
    assert digest(optimizers[0]) == digest(optimizers[1])


def in_backward(model: nn.Module, optimizer: Cosmic, steps: int) -> None:
    with optimizer.step_in_backward(model):
        for step in range(steps):
            model(normal(step, 16, 32)).square().sum().backward()
            assert all(p.grad is None for p in model.parameters())
            optimizer.step()


@pytest.mark.parametrize("options", [
    {"rung": "tier2:u4+factored"}, {"rung": "tier2:rowmean"}, {"rung": "tier1:rowmean"},
    {"matrix_rule": "muon", "role": "matrix"}, {"budget": "10%"}, {"gate": "snr"},
])  # fmt: skip
def test_a_step_within_backward_steps_all_parts(options: dict[str, Any]) -> None:
    if options.get("rung") == "tier2:rowmean":
        options = {"state_dtype": "u4+rowmean"}
    optimizers = []
    for within in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(32, 96), nn.Tanh(), nn.Linear(96, 8))
        optimizer = Cosmic(
            model.named_parameters(), parts={"0.weight": (0, UNEVEN)}, lr=0.01,
            min_compress_size=0, reallocate_every=2, **options,
        )  # fmt: skip
        if within:
            in_backward(model, optimizer, 5)
        else:
            for step in range(5):
                optimizer.zero_grad()
                model(normal(step, 16, 32)).square().sum().backward()
                optimizer.step()
        optimizers.append(optimizer)
    assert digest(optimizers[0]) == digest(optimizers[1])
    assert optimizers[0].stats() == optimizers[1].stats()


def test_a_gradient_that_is_skipped_is_left_out_of_all_parts() -> None:
    torch.manual_seed(0)
    model = nn.Linear(8, 12, bias=False)
    optimizer = Cosmic(model.parameters(), parts=(0, 3), nonfinite="skip")
    before = model.weight.detach().clone()
    with optimizer.step_in_backward(model):
        model.weight.grad = None
        model(torch.full((2, 8), float("inf"))).sum().backward()
        optimizer.step()
    assert torch.equal(model.weight, before) and not optimizer.tiers()
    assert optimizer.stats()[0]["nonfinite_gradients"] == 96
