"""Shards step as the whole tensor does in one process: rungs, prices, bits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed._functional_collectives import AsyncCollectiveTensor
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.distributed.tensor.placement_types import _StridedShard

from cosmic import Cosmic
from played_ranks import parameter, placed, played

RANKS = (1, 2, 3, 8)
STEPS = 3
#: Rungs whose codecs look at no more than a block; all but the first on any number of columns.
OF_BLOCKS = ("tier2:u4+v4", "tier2:q8+q8", "tier2:fp32+fp32", "tier2:bf16+bf16", "tier0")
PLAIN = ("tier2:fp32+fp32", "tier2:bf16+bf16", "tier0")
#: Each of another kind of layout: blocks, rows, columns, both, whole matrices, numbers of a tensor.
EVERY = ("tier2:u4+v4", "tier2:u4+factored", "tier2:u2+rowmean", "tier1:colmean", "tier1",
         "tier2:muon:m4", "tier1:muon", "tier2:u2+factored+softsign")  # fmt: skip


def tensors(shape: Sequence[int], dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """A parameter and its gradients."""
    generator = torch.Generator().manual_seed(sum(shape))
    return [torch.randn(*shape, generator=generator).to(dtype) for _ in range(STEPS + 1)]


def stepped(given: list[Tensor], **options: Any) -> tuple[Tensor, Cosmic]:
    param = nn.Parameter(given[0].clone())
    optimizer = Cosmic([("w", param)], lr=0.01, **options)
    for gradient in given[1:]:
        param.grad = gradient.clone()
        optimizer.step()
    return param.detach(), optimizer


def shards(
    given: list[Tensor],
    sizes: Sequence[int],
    placements: Sequence[Any] = (Shard(0),),
    **options: Any,
) -> list[tuple[Tensor, Tensor, Cosmic]]:
    """Of every rank its shard, what one process has there, and the optimizer."""
    out = []
    whole, _ = stepped(given, **options)
    for rank in range(torch.Size(sizes).numel()):
        with played(rank, sizes) as mesh:
            param = parameter(given[0], mesh, placements)
            optimizer = Cosmic([("w", param)], lr=0.01, **options)
            for gradient in given[1:]:
                param.grad = placed(gradient, mesh, placements)
                optimizer.step()
            wanted: Any = placed(whole, mesh, placements)
            local: Any = param
            out.append((local._local_tensor.detach(), wanted._local_tensor, optimizer))
    return out


@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("rung", OF_BLOCKS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_of_whole_blocks_have_the_bits_of_one_process(
    ranks: int, rung: str, dtype: torch.dtype
) -> None:
    given = tensors((19, 256), dtype)
    for local, wanted, _ in shards(given, [ranks], rung=rung, min_compress_size=0):
        assert torch.equal(local, wanted)


@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("rung", PLAIN)
@pytest.mark.parametrize("shape", [(19, 37), (5,), (3, 5, 7)], ids=str)
def test_one_number_an_element_has_the_bits_of_one_process_whatever_the_shape(
    ranks: int, rung: str, shape: tuple[int, ...]
) -> None:
    given = tensors(shape, torch.bfloat16)
    for local, wanted, _ in shards(given, [ranks], rung=rung):
        assert torch.equal(local, wanted)


@pytest.mark.parametrize(
    ("sizes", "placements"),
    [
        ((2,), (Shard(1),)),
        ((2, 2), (Replicate(), Shard(0))),
        ((2, 2), (Shard(0), Shard(1))),
        ((2, 2), (Shard(0), Shard(0))),
        ((3,), (Replicate(),)),
    ],
    ids=["columns", "replicas", "rows and columns", "rows twice", "whole"],
)
@pytest.mark.parametrize("rung", ["tier2:u4+v4", "tier2:bf16+bf16"])
def test_any_mesh_has_the_bits_of_one_process(
    sizes: tuple[int, ...], placements: tuple[Any, ...], rung: str
) -> None:
    given = tensors((12, 512), torch.bfloat16)
    for local, wanted, _ in shards(given, sizes, placements, rung=rung):
        assert torch.equal(local, wanted)


def test_fsdp_over_tensor_parallel_shards_has_the_bits_of_one_process() -> None:
    """FSDP's shards of tensor parallel ones: strided ones, which lie together once both cut."""
    given = tensors((16, 128), torch.bfloat16)
    wanted, _ = stepped(given, rung="tier2:u4+v4", min_compress_size=0)
    placements = (_StridedShard(0, split_factor=2), Shard(0))
    for rank in range(4):
        with played(rank, (2, 2)) as mesh:
            first = 8 * (rank % 2) + 4 * (rank // 2)

            def here(whole: Tensor, mesh: Any = mesh, first: int = first) -> Any:
                return DTensor.from_local(
                    whole[first : first + 4].clone(), mesh, placements, run_check=False,
                    shape=whole.shape, stride=whole.stride(),
                )  # fmt: skip

            param: Any = nn.Parameter(here(given[0]))
            optimizer = Cosmic([("w", param)], lr=0.01, rung="tier2:u4+v4", min_compress_size=0)
            for gradient in given[1:]:
                param.grad = here(gradient)
                optimizer.step()
            assert torch.equal(param._local_tensor, wanted[first : first + 4])


@pytest.mark.parametrize("rung", EVERY)
@pytest.mark.parametrize("shape", [(5, 64), (40, 128)], ids=str)
def test_every_rung_steps_shards_of_one_row_and_of_none(rung: str, shape: tuple[int, int]) -> None:
    found = shards(tensors(shape), [8], rung=rung, min_compress_size=0)
    rungs = {optimizer.tiers()[0].rung for *_, optimizer in found}
    assert rungs == {rung}
    for local, wanted, _ in found:
        assert local.isfinite().all()
        # the same direction: what differs is what sums of shards make of its length
        assert not local.numel() or (local - wanted).abs().mean() < 0.05
    of_columns = [s for *_, optimizer in found for p in optimizer.param_groups[0]["params"]
                  for key, s in optimizer.state[p].items() if key.endswith("_col")]  # fmt: skip
    assert all(s.shape == (shape[1],) and s.isfinite().all() for s in of_columns)


@pytest.mark.parametrize("rung", EVERY)
def test_a_shard_that_is_the_whole_is_stepped_as_one(rung: str) -> None:
    # a gradient that keeps more by rows: shards are not looked at, and keep rows
    given = tensors((48, 64))
    given[1:] = [gradient * torch.arange(1, 49)[:, None] for gradient in given[1:]]
    ((local, wanted, optimizer),) = shards(given, [1], rung=rung, min_compress_size=0)
    assert torch.equal(local, wanted)
    assert optimizer.tiers()[0].rung == rung


def test_complex_parameters_are_stepped_in_shards() -> None:
    given = tensors((12, 64), torch.complex64)
    for local, wanted, _ in shards(given, [3], rung="tier2:u4+v4"):
        assert torch.equal(local, wanted)


def test_a_tensor_of_few_columns_a_shard_has_a_second_moment_by_blocks_everywhere() -> None:
    found = shards(tensors((256, 64)), [5], (Shard(1),), rung="tier2:u4+factored")
    assert {o.tiers()[0].rung for *_, o in found} == {"tier2:u4+v4"}


def test_the_least_size_that_is_compressed_is_of_the_whole_tensor() -> None:
    for *_, optimizer in shards(tensors((64, 64)), [8]):
        assert optimizer.tiers()[0].rung == "tier2:u4+factored"


def test_versions_of_parameter_and_shard_go_up() -> None:
    with played(0, 2) as mesh:
        param: Any = parameter(torch.ones(4, 8), mesh)
        optimizer = Cosmic([param])
        before = param._version, param._local_tensor._version
        param.grad = placed(torch.ones(4, 8), mesh)
        optimizer.step()
        assert param._version > before[0]
        assert param._local_tensor._version > before[1]


def test_a_gradient_that_is_still_to_come_is_waited_for() -> None:
    given = tensors((4, 128))
    wanted, _ = stepped(given)
    with played(0, 1) as mesh:
        param: Any = parameter(given[0], mesh)
        optimizer = Cosmic([("w", param)], lr=0.01)
        for gradient in given[1:]:
            grad: Any = placed(gradient, mesh)
            grad._local_tensor = AsyncCollectiveTensor(grad._local_tensor)
            param.grad = grad
            optimizer.step()
        assert torch.equal(param._local_tensor, wanted)


def test_a_shard_whose_memory_moves_is_followed() -> None:
    given = tensors((4, 128))
    wanted, _ = stepped(given)
    with played(0, 1) as mesh:
        param: Any = parameter(given[0], mesh)
        optimizer = Cosmic([("w", param)], lr=0.01)
        for gradient in given[1:]:
            param._local_tensor = param._local_tensor.detach().clone()
            param.grad = placed(gradient, mesh)
            optimizer.step()
        assert torch.equal(param._local_tensor, wanted)


def test_one_rank_clips_in_backward_by_the_norm_of_its_shard() -> None:
    given = tensors((4, 128))
    plain = nn.Parameter(given[0].clone())
    alone = Cosmic([("w", plain)], lr=0.01)
    alone.step_in_backward(max_norm=0.5, clip="tensor")
    with played(0, 1) as mesh:
        param: Any = parameter(given[0], mesh)
        optimizer = Cosmic([("w", param)], lr=0.01)
        optimizer.step_in_backward(max_norm=0.5, clip="tensor")
        for gradient in given[1:]:
            param.grad, plain.grad = placed(gradient, mesh), gradient.clone()
            optimizer.step()
            alone.step()
        assert torch.equal(param._local_tensor, plain.detach())
