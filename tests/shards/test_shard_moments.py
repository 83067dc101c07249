"""Moments of shards: read and written as DTensors that lie as the parameter does."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.tensor import DTensor, Replicate, Shard

from cosmic import Cosmic
from played_ranks import parameter, placed, played

SHAPE = (100, 256)
RUNGS = ("tier2:u4+factored", "tier2:u4+v4", "tier2:fp32+fp32")


def stepped(param: Any, mesh: Any, **options: Any) -> Cosmic:
    optimizer = Cosmic([("w", param)], lr=0.01, **options)
    generator = torch.Generator().manual_seed(1)
    for _ in range(3):
        gradient = torch.randn(SHAPE, generator=generator)
        param.grad = gradient if mesh is None else placed(gradient, mesh)
        optimizer.step()
    return optimizer


@pytest.mark.parametrize("parts", [None, (0, (30, 70))], ids=["whole", "in parts"])
@pytest.mark.parametrize("rung", RUNGS)
def test_moments_are_dtensors_of_one_process_moments(rung: str, parts: Any) -> None:
    plain = nn.Parameter(torch.zeros(SHAPE))
    wanted = stepped(plain, None, rung=rung, parts=parts).moments(plain)
    for rank in range(3):
        with played(rank, 3) as mesh:
            param = parameter(torch.zeros(SHAPE), mesh)
            found = stepped(param, mesh, rung=rung, parts=parts).moments(param)
            assert found.step == wanted.step == 3
            for name in ("exp_avg", "exp_avg_sq"):
                own, whole = getattr(found, name), getattr(wanted, name)
                assert isinstance(own, DTensor)
                assert (own.shape, own.placements) == (SHAPE, (Shard(0),))
                here: Any = placed(whole, mesh)
                if "factored" in rung:  # columns are the shard's own, and momentum in their units
                    off = (own._local_tensor - here._local_tensor).abs().mean()
                    assert off < 0.2 * here._local_tensor.abs().mean()
                else:
                    assert torch.equal(own._local_tensor, here._local_tensor)


@pytest.mark.parametrize("rung", RUNGS)
def test_moments_that_are_written_are_read(rung: str) -> None:
    with played(1, 3) as mesh:
        param = parameter(torch.zeros(SHAPE), mesh)
        optimizer = stepped(param, mesh, rung=rung)
        before = optimizer.moments(param)
        optimizer.set_moments(param, exp_avg=before.exp_avg, exp_avg_sq=2.0, step=9)
        after: Any = optimizer.moments(param)
        assert after.step == 9
        assert torch.allclose(after.exp_avg_sq._local_tensor, torch.tensor(2.0), rtol=1e-2)
        # rows of the whole: 34 to 67 are here
        optimizer.set_moments(param, exp_avg=0.0, rows=[0, 35, 99])
        found: Any = optimizer.moments(param).exp_avg
        assert not found._local_tensor[1].any()
        assert found._local_tensor[[0, 2, 33]].any(dim=1).all()
        optimizer.reset(param, rows=slice(60, 200))
        found = optimizer.moments(param).exp_avg
        assert found._local_tensor.any(dim=1).nonzero().max() == 25
        optimizer.reset(param)
        assert optimizer.moments(param).exp_avg is None


@pytest.mark.parametrize("ranks", [2, 3, 8])
def test_moments_that_are_encoded_anew_have_the_bits_of_one_process(ranks: int) -> None:
    plain = nn.Parameter(torch.zeros(SHAPE))
    alone = stepped(plain, None, rung="tier2:u4+v4")
    whole = alone.moments(plain)
    alone.set_moments(plain, exp_avg=whole.exp_avg, exp_avg_sq=0.5)
    alone.param_groups[0]["rung"] = "tier2:q8+q8"
    alone.step()
    wanted = alone.moments(plain)
    for rank in range(ranks):
        with played(rank, ranks) as mesh:
            param: Any = parameter(torch.zeros(SHAPE), mesh)
            optimizer = stepped(param, mesh, rung="tier2:u4+v4")
            before = optimizer.moments(param)
            optimizer.set_moments(param, exp_avg=before.exp_avg, exp_avg_sq=0.5)
            optimizer.param_groups[0]["rung"] = "tier2:q8+q8"
            optimizer.step()
            found = optimizer.moments(param)
            for name in ("exp_avg", "exp_avg_sq"):
                own: Any = getattr(found, name)
                here: Any = placed(getattr(wanted, name), mesh)
                assert torch.equal(own._local_tensor, here._local_tensor)


def test_a_moment_that_lies_otherwise_is_refused() -> None:
    with played(0, 2) as mesh:
        param = parameter(torch.zeros(SHAPE), mesh)
        optimizer = stepped(param, mesh, rung="tier2:u4+v4")
        before = {k: v.clone() for k, v in optimizer.state[param].items() if hasattr(v, "clone")}
        replica: Any = DTensor.from_local(torch.ones(SHAPE), mesh, [Replicate()], run_check=False)
        for wrong in (torch.ones(SHAPE), torch.ones(50, 256), replica):
            with pytest.raises(
                ValueError, match=r"parameter 'w': exp_avg is .*; expected one number"
            ):
                optimizer.set_moments(param, exp_avg=wrong)
        with pytest.raises(ValueError, match="of rows of a DTensor only a number"):
            optimizer.set_moments(param, exp_avg=torch.ones(1, 256), rows=0)
        assert all(torch.equal(optimizer.state[param][k], v) for k, v in before.items())
        plain = nn.Parameter(torch.zeros(SHAPE))
        with pytest.raises(ValueError, match="exp_avg is a DTensor, the parameter is not"):
            stepped(plain, None).set_moments(plain, exp_avg=replica)


def test_adamw_goes_on_where_this_stopped_and_the_other_way() -> None:
    with played(1, 3) as mesh:
        param: Any = parameter(torch.zeros(SHAPE), mesh)
        optimizer = stepped(param, mesh, rung="tier2:fp32+fp32")
        adamw = torch.optim.AdamW([param])
        adamw.load_state_dict(optimizer.to_adamw_state_dict())
        moments: Any = optimizer.moments(param)
        taken: Any = adamw.state[param]["exp_avg"]
        assert torch.equal(taken.to_local(), moments.exp_avg.to_local())
        back = Cosmic([("w", param)], rung="tier2:fp32+fp32")
        back.load_state_dict(adamw.state_dict())
        again: Any = back.moments(param)
        assert again.step == moments.step
        assert torch.equal(again.exp_avg_sq.to_local(), moments.exp_avg_sq.to_local())
        in_parts = Cosmic([("w", param)], parts=(0, (30, 70)))
        with pytest.raises(ValueError, match="parameter 'w' is a DTensor in parts"):
            in_parts.load_state_dict(adamw.state_dict())


def test_copies_step_as_what_they_are_copies_of() -> None:
    with played(1, 2) as mesh:
        param: Any = parameter(torch.zeros(SHAPE), mesh)
        optimizer = stepped(param, mesh)
        copied = copy.deepcopy(optimizer)
        assert copied.state_bytes() == optimizer.state_bytes() > 0
        other: Any = copied.param_groups[0]["params"][0]
        gradient = placed(torch.ones(SHAPE), mesh)
        param.grad, other.grad = gradient, gradient
        optimizer.step()
        copied.step()
        assert torch.equal(param._local_tensor, other._local_tensor)


def test_a_pickle_has_the_state_of_this_rank() -> None:
    with played(1, 2) as mesh:
        param: Any = parameter(torch.zeros(SHAPE), mesh)
        optimizer = stepped(param, mesh)
        loaded = pickle.loads(pickle.dumps(optimizer))
        assert loaded.state_bytes() == optimizer.state_bytes() > 0


def test_a_check_is_of_what_is_here() -> None:
    with played(0, 2) as mesh:
        param: Any = parameter(torch.ones(SHAPE), mesh)
        optimizer = stepped(param, mesh)
        (found,) = optimizer.check()
        assert found.numel == 50 * 256
        norm = float(param._local_tensor.detach().norm())
        assert found.param_norm == pytest.approx(norm, rel=1e-6)
