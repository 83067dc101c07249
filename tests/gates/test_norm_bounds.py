"""What gates of norms hold, whatever gradients do."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from cosmic import Cosmic

RUNGS = ("tier0", "tier1", "tier1:factored", "tier1:fp32")


def random(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("rung", RUNGS)
def test_without_momentum_a_bound_holds_at_every_step(rung: str) -> None:
    """The step before says nothing of an update that is this gradient's own."""
    param = nn.Parameter(random(0, 64, 64))
    optimizer = Cosmic([param], lr=0.01, rung=rung, clip_update=0.1)
    for step in range(12):
        param.grad = random(step, 64, 64) * (1.0 if step % 2 else 1e-2)
        before = param.detach().clone()
        optimizer.step()
        assert float((param.detach() - before).square().mean().sqrt()) <= 0.01 * 0.1 * (1 + 1e-4)


@pytest.mark.parametrize("rung", RUNGS)
def test_a_table_whose_rows_come_and_go_moves_by_its_own_size(rung: str) -> None:
    param = nn.Parameter(random(1, 1000, 64))
    optimizer = Cosmic([param], lr=0.01, rung=rung, gate="trust", trust_clip=1e6)
    for step in range(8):
        param.grad = torch.zeros(1000, 64)
        rows = slice(0, 400 if step % 2 else 5)
        param.grad[rows] = random(step, 1000, 64)[rows]
        before = param.detach().clone()
        optimizer.step()
        relative = (param.detach() - before).norm() / before.norm() / 0.01
        assert float(relative) == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize("exact", [False, True], ids=["lagged", "exact"])
@pytest.mark.parametrize("state_dtype", ["fp32", "bf16", "u4+factored"])
@pytest.mark.parametrize("gate", ["trust", "agc"])
def test_a_spoiled_element_does_not_let_the_others_go(
    gate: str, state_dtype: str, exact: bool
) -> None:
    param = nn.Parameter(random(2, 64, 64) * 0.02)
    optimizer = Cosmic(
        [param], lr=0.01, gate=gate, agc_clip=1.0, state_dtype=state_dtype, exact=exact,
        min_compress_size=0,
    )  # fmt: skip
    for step in range(8):
        param.grad = random(step, 64, 64)
        before = param.detach().clone()
        if step == 2:
            param.grad[0, 0] = float("nan")
            with pytest.warns(RuntimeWarning, match="infinite or NaN"):
                optimizer.step()
        else:
            optimizer.step()
        moved, size = (param.detach() - before)[1:].norm(), before[1:].norm()
        assert 0.2 < float(moved / size / 0.01) < 1.5
