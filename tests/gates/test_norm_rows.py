"""Gates of norms that look at each row of a tensor, its first dimension, by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cosmic import Cosmic
from helpers import digest, give_gradients, normal, parameter, parameters, same_bits, take_steps

RUNGS: dict[str, dict[str, Any]] = {
    "tier0": {"tier": 0},
    "tier1": {"tier": 1},
    "tier1:factored": {"rung": "tier1:factored"},
    "fp32": {"state_dtype": "fp32"},
    "u4+factored": {"state_dtype": "u4+factored"},
    "tier2:muon:m1": {"matrix_rule": "muon", "role": "matrix", "matrix_state_dtype": "m1"},
    "tier1:muon": {"matrix_rule": "muon", "role": "matrix", "matrix_state_dtype": "none"},
}


def by_row(param: Tensor, **options: Any) -> Cosmic:
    return Cosmic([("w", param)], **{
        "gate": "trust", "norm_granularity": "row", "min_compress_size": 0, "lr": 1e-3, **options
    })  # fmt: skip


def row_rms(x: Tensor) -> Tensor:
    return x.detach().double().flatten(1).square().mean(1).sqrt()


def sized(*shape: int, dtype: torch.dtype = torch.float64) -> nn.Parameter:
    """Rows of different lengths."""
    scale = torch.logspace(-1, 1, shape[0], dtype=torch.float64)
    values = normal(3, *shape, dtype=torch.float64) * scale.view(-1, *[1] * (len(shape) - 1))
    return nn.Parameter(values.to(dtype))


@pytest.mark.parametrize("rung", RUNGS)
@pytest.mark.parametrize("exact", [False, True], ids=["lagged", "exact"])
def test_a_row_moves_by_lr_times_itself(rung: str, exact: bool) -> None:
    """In its own step, asked for or not: nothing is remembered of rows."""
    param = sized(37, 50, dtype=torch.float32)
    optimizer = by_row(param, trust_clip=1e9, exact=exact, **RUNGS[rung])
    for step in range(4):
        before = param.detach().clone()
        give_gradients([param], step, scale=10.0 ** (step % 3))
        optimizer.step()
        moved = row_rms(param.detach().double() - before.double())
        torch.testing.assert_close(moved, 1e-3 * row_rms(before), rtol=1e-4, atol=0.0)


@pytest.mark.parametrize("shape", [(9, 31), (5, 4, 6, 3), (3, 700), (300, 2)], ids=str)
def test_in_float64_to_its_rounding(shape: tuple[int, ...]) -> None:
    param = sized(*shape)
    optimizer = by_row(param, trust_clip=1e9)
    for step in range(4):
        before = param.detach().clone()
        give_gradients([param], step)
        optimizer.step()
        torch.testing.assert_close(
            row_rms(param.detach() - before), 1e-3 * row_rms(before), rtol=1e-9, atol=0.0
        )


def test_agc_holds_back_the_rows_that_move_too_far_alone() -> None:
    param, plain = sized(20, 30), sized(20, 30)
    optimizer, free = by_row(param, gate="agc", agc_clip=0.9), by_row(plain, gate=None)
    before = param.detach().clone()
    for one in (optimizer, free):
        give_gradients(one.param_groups[0]["params"], 0)
        one.step()
    moved, free_moved = row_rms(param.detach() - before), row_rms(plain.detach() - before)
    expected = torch.minimum(free_moved, 1e-3 * 0.9 * row_rms(before))
    torch.testing.assert_close(moved, expected, rtol=1e-6, atol=0.0)
    assert 0 < int((moved < 0.99 * free_moved).sum()) < 20


#: Of the same values in another layout.
LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "transposed": lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
    "channels-last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "with-gaps": lambda x: torch.cat([x, x], 3)[..., : x.size(3)],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_are_of_the_first_dimension_in_any_layout(layout: str) -> None:
    start = sized(6, 5, 4, 3)
    param = nn.Parameter(LAYOUTS[layout](start.detach()))
    assert param.stride() != start.stride()
    for p in (start, param):
        optimizer = by_row(p, trust_clip=1e9)
        for step in range(3):
            p.grad = torch.empty_like(p).copy_(normal(step, 6, 5, 4, 3, dtype=torch.float64))
            optimizer.step()
    torch.testing.assert_close(param, start, rtol=1e-12, atol=1e-12)


def test_a_vector_is_looked_at_as_a_whole() -> None:
    """It has no rows: its gate is that of a tensor, with what that remembers."""
    found = []
    for granularity in ("row", "tensor"):
        optimizer = Cosmic(parameters((300,)), gate="trust", norm_granularity=granularity)
        take_steps(optimizer, 0, 4)
        found.append(digest(optimizer))
    assert found[0] == found[1]


def test_the_factor_that_is_told_is_of_the_whole_update() -> None:
    param = sized(20, 30)
    optimizer, free = by_row(param), by_row(sized(20, 30), gate=None)
    for one in (optimizer, free):
        give_gradients(one.param_groups[0]["params"], 0)
        one.step()
    (gated,), (plain,) = optimizer.stats(), free.stats()
    told = optimizer.gate_factors()["w"]
    assert told == gated["gate"] == pytest.approx(gated["update_rms"] / plain["update_rms"])


def test_a_row_of_zeros_moves_by_the_floor() -> None:
    param = nn.Parameter(torch.zeros(7, 40, dtype=torch.float64))
    optimizer = by_row(param, param_floor=0.01, trust_clip=99.0)
    give_gradients([param], 0)
    optimizer.step()
    expected = torch.full((7,), 1e-3 * 0.01, dtype=torch.float64)
    torch.testing.assert_close(row_rms(param), expected, rtol=1e-9, atol=0.0)


def test_a_row_without_an_update_stands_still() -> None:
    param = parameter(0, 6, 40)
    before = param.detach().clone()
    optimizer = by_row(param, tier=0)
    param.grad = normal(1, 6, 40)
    param.grad[2] = 0
    optimizer.step()
    moved = param.detach() - before
    assert same_bits(param.detach()[2], before[2]) and float(moved[3].abs().min()) > 0


def test_threads_change_no_bit(set_threads: Callable[[int], None]) -> None:
    found = set()
    for threads in (1, 2):
        set_threads(threads)
        params = [sized(700, 90, dtype=torch.float32), parameter(1, 3, 41, 407)]
        optimizer = Cosmic(params, gate="trust+agc", norm_granularity="row", agc_clip=0.5)
        take_steps(optimizer, 0, 3)
        found.add(digest(optimizer))
    assert len(found) == 1


def test_an_average_of_rows_is_refused() -> None:
    with pytest.raises(ValueError, match=r"norm_granularity 'row' and a norm_decay.*norm_decay 0"):
        by_row(parameter(0, 6, 40), norm_decay=0.5)
