"""Parts of parameters that are shards: cut in the whole tensor, each with what is here of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.tensor import Shard

from cosmic import Cosmic
from played_ranks import parameter, placed, played

ROWS = (0, {"q": 32, "k": 60, "v": 4})
COLUMNS = (1, {"q": 128, "k": 384})


def tensors(shape: tuple[int, int]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(*shape, generator=generator) for _ in range(4)]


def stepped(param: Tensor, gradients: list[Tensor], **options: Any) -> Cosmic:
    optimizer = Cosmic([("w", param)], lr=0.01, min_compress_size=0, **options)
    for gradient in gradients:
        param.grad = gradient
        optimizer.step()
    return optimizer


@pytest.mark.parametrize(
    ("ranks", "dim", "parts"),
    [*((ranks, 0, parts) for ranks in (1, 2, 3, 8) for parts in (ROWS, COLUMNS)),
     (2, 1, ROWS), (4, 1, ROWS), (2, 1, COLUMNS), (4, 1, COLUMNS)],
)  # fmt: skip
def test_parts_of_shards_have_the_bits_of_one_process(
    ranks: int, dim: int, parts: tuple[int, Any]
) -> None:
    whole, *gradients = tensors((96, 512))
    one = nn.Parameter(whole.clone())
    options: dict[str, Any] = {"parts": parts, "rung": "tier2:u4+v4"}
    alone = stepped(one, [g.clone() for g in gradients], **options)
    held = {t.name: 0 for t in alone.tiers()}
    for rank in range(ranks):
        with played(rank, ranks) as mesh:
            param: Any = parameter(whole, mesh, [Shard(dim)])
            optimizer = stepped(
                param, [placed(g, mesh, [Shard(dim)]) for g in gradients], **options
            )
            wanted: Any = placed(one.detach(), mesh, [Shard(dim)])
            assert torch.equal(param._local_tensor, wanted._local_tensor)
            for tier in optimizer.tiers():
                held[tier.name] += tier.numel
            assert {t.rung for t in optimizer.tiers()} == {"tier2:u4+v4"}
    assert held == {t.name: t.numel for t in alone.tiers()}


def test_every_part_has_its_own_rows_and_columns() -> None:
    whole, *gradients = tensors((96, 256))
    seen = {}
    for rank in range(3):
        with played(rank, 3) as mesh:
            param = parameter(whole, mesh)
            optimizer = stepped(
                param, [placed(g, mesh) for g in gradients], parts=ROWS, rung="tier2:u4+factored"
            )
            state = optimizer.state[param]
            seen[rank] = {name: state[f"{name}/exp_avg_sq_row"].numel() for name in "qkv"}
            assert all(state[f"{name}/exp_avg_sq_col"].numel() == 256 for name in "qkv")
            assert all(value.isfinite().all() for value in state.values()
                       if isinstance(value, Tensor))  # fmt: skip
    assert seen == {0: {"q": 32, "k": 0, "v": 0}, 1: {"q": 0, "k": 32, "v": 0},
                    2: {"q": 0, "k": 28, "v": 4}}  # fmt: skip


@pytest.mark.parametrize("rank", range(3))
def test_a_copy_is_one_though_parts_of_it_are_not_here(rank: int) -> None:
    whole, gradient, *_ = tensors((96, 256))
    with played(rank, 3) as mesh:
        param: Any = parameter(whole, mesh)
        optimizer = Cosmic([("w", param)], parts=ROWS)
        param.grad = placed(gradient, mesh)
        copy = torch.zeros(32, 256, dtype=torch.bfloat16)
        optimizer.step(copy_to=[copy])
        assert torch.equal(copy, param._local_tensor.bfloat16())
        param.grad = placed(gradient, mesh)
        with pytest.raises(ValueError, match="shares memory with the parameter"):
            optimizer.step(copy_to=[param._local_tensor.view(torch.bfloat16)[:, ::2]])


def test_roles_and_sizes_are_of_whole_parts() -> None:
    whole, *gradients = tensors((96, 256))
    with played(2, 3) as mesh:
        optimizer = Cosmic([("w", parameter(whole, mesh))], parts=ROWS)
        optimizer.param_groups[0]["params"][0].grad = placed(gradients[0], mesh)
        optimizer.step()
        rungs = {t.name: t.rung for t in optimizer.tiers()}
    # v has 4 x 256 elements in all, q 32 x 256, of which none are here
    assert rungs["w[q]"] == "tier2:u4+factored"
    assert rungs["w[v]"] == "tier2:fp32+fp32"
