"""Shards with copies in 16 bits, and of 24 bits each: what one process has of the whole tensor."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from cosmic import Cosmic
from cosmic.state.shards import local_of
from helpers import normal, same_bits, set_gradient
from played_ranks import parameter, placed, played

ROWS, COLUMNS, RANKS = 20, 256, 3
STEPS = 3


def gradient(step: int) -> Tensor:
    return normal(step, ROWS, COLUMNS, dtype=torch.bfloat16)


def whole(dtype: torch.dtype, **options: Any) -> tuple[Cosmic, nn.Parameter, Tensor]:
    """One process's parameter after some steps, and its copy."""
    param = nn.Parameter(normal(7, ROWS, COLUMNS, dtype=dtype))
    copy = torch.zeros(ROWS, COLUMNS, dtype=torch.bfloat16)
    optimizer = Cosmic([param], lr=1e-3, min_compress_size=0, **options)
    for step in range(STEPS):
        set_gradient(param, gradient(step))
        optimizer.step(copy_to=[copy])
    return optimizer, param, copy


@pytest.mark.parametrize("rank", range(RANKS))
@pytest.mark.parametrize("local_copy", [False, True], ids=["DTensor", "local"])
@pytest.mark.parametrize("rung", ["u4+v4", "bf16+bf16", "fp32+fp32"])
@pytest.mark.parametrize(
    ("dtype", "bits"), [(torch.float32, None), (torch.bfloat16, 24)], ids=["fp32", "24 bits"]
)
def test_shards_have_the_bits_of_the_whole(
    dtype: torch.dtype, bits: int | None, rung: str, local_copy: bool, rank: int
) -> None:
    options: dict[str, Any] = {"state_dtype": rung, "master_bits": bits}
    one, expected, expected_copy = whole(dtype, **options)
    with played(rank, RANKS) as mesh:
        param = parameter(normal(7, ROWS, COLUMNS, dtype=dtype), mesh)
        copy = placed(torch.zeros(ROWS, COLUMNS, dtype=torch.bfloat16), mesh)
        optimizer = Cosmic([param], lr=1e-3, min_compress_size=0, **options)
        for step in range(STEPS):
            set_gradient(param, placed(gradient(step), mesh))
            optimizer.step(copy_to=[local_of(copy) if local_copy else copy])

        def here(tensor: Tensor) -> Tensor:
            return local_of(placed(tensor.detach(), mesh))

        assert same_bits(local_of(param), here(expected))
        assert same_bits(local_of(copy), here(expected_copy))
        (weight,) = optimizer.master_weights().values()
        (expected_weight,) = one.master_weights().values()
        assert weight.shape == (ROWS, COLUMNS)
        assert same_bits(local_of(weight), here(expected_weight))
        if bits:
            low = optimizer.state[param]["master_low"]
            assert same_bits(low, here(one.state[expected]["master_low"]))
            assert optimizer.master_bytes() == local_of(param).numel()


def test_a_saved_state_has_the_bits_by_the_parameter_s_shards() -> None:
    with played(1, RANKS) as mesh:
        param = parameter(normal(7, ROWS, COLUMNS, dtype=torch.bfloat16), mesh)
        optimizer = Cosmic([param], master_bits=24)
        set_gradient(param, placed(gradient(0), mesh))
        optimizer.step()
        saved = optimizer.state_dict()["state"][0]["master_low"]
        assert isinstance(saved, DTensor) and saved.shape == param.shape
        low = optimizer.state[param]["master_low"].clone()
        optimizer.load_state_dict(optimizer.state_dict())
        assert same_bits(optimizer.state[param]["master_low"], low)
