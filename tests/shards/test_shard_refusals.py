"""DTensors that cannot be stepped, and what cannot hold with them: named, and nothing changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard
from torch.distributed.tensor.placement_types import _StridedShard

from cosmic import Cosmic, UnsupportedTensorError
from cosmic.controllers import Controller, PlateauGuard
from cosmic.controllers.observation import Observation
from played_ranks import parameter, placed, played


def as_dtensor(local: Tensor, mesh: DeviceMesh, placements: Any, shape: Any = None) -> Tensor:
    stride = None if shape is None else torch.empty(shape).stride()
    made: Tensor = DTensor.from_local(
        local, mesh, placements, run_check=False,
        shape=None if shape is None else torch.Size(shape), stride=stride,
    )  # fmt: skip
    return made


PARAMETERS: dict[str, tuple[Callable[[DeviceMesh], Tensor], str]] = {
    "partial": (
        lambda mesh: as_dtensor(torch.zeros(4, 8), mesh, [Partial()]),
        "a sum whose parts are still to be added; expected shards or replicas: redistribute()",
    ),
    "another part": (
        lambda mesh: as_dtensor(torch.zeros(3, 8), mesh, [Shard(0)], (4, 8)),
        "of which (2, 8) should be here, but its local tensor has shape (3, 8)",
    ),
    "another order": (
        lambda mesh: as_dtensor(torch.zeros(8, 2).t(), mesh, [Shard(0)], (4, 8)),
        "whose shard has stride (1, 2), another order of dimensions; distribute its contiguous()",
    ),
    "integers": (
        lambda mesh: as_dtensor(torch.zeros(4, 8, dtype=torch.int64), mesh, [Replicate()]),
        "expected a floating or complex dtype",
    ),
    "no memory": (
        lambda mesh: as_dtensor(torch.zeros(4, 8, device="meta"), mesh, [Replicate()]),
        "on device meta; COSMIC steps dense",
    ),
    "strides": (
        lambda mesh: as_dtensor(torch.zeros(2, 8), mesh, [_StridedShard(0, split_factor=2)],
                                (4, 8)),
        "whose shards have not neighbouring elements",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_parameter_is_refused_at_once(name: str) -> None:
    make, message = PARAMETERS[name]
    with played(0, 2) as mesh:
        with pytest.raises(UnsupportedTensorError) as caught:
            Cosmic([("w", make(mesh))])
        assert str(caught.value).startswith("parameter 'w'")
        assert message in str(caught.value)


def test_a_mesh_that_this_rank_is_no_part_of_is_refused() -> None:
    with played(1, 2):
        mesh = DeviceMesh("cpu", [0], _init_backend=False)
        with pytest.raises(UnsupportedTensorError, match=r"which this process .* is no part of"):
            Cosmic([("w", as_dtensor(torch.zeros(4, 8), mesh, [Replicate()]))])


GRADIENTS: dict[str, tuple[Callable[[DeviceMesh], Tensor], str]] = {
    "partial": (
        lambda mesh: as_dtensor(torch.zeros(4, 256), mesh, [Partial()]),
        "gradient of parameter 'w' is a partial sum, of placements (Partial(sum),), whose parts "
        "are still to be added; expected the parameter's placements, (Shard(dim=0),): "
        "param.grad.redistribute(placements=param.placements), or a backward under FSDP",
    ),
    "replica": (
        lambda mesh: as_dtensor(torch.zeros(4, 256), mesh, [Replicate()]),
        "gradient of parameter 'w' is a DTensor of placements (Replicate(),); expected the "
        "parameter's, (Shard(dim=0),)",
    ),
    "columns": (
        lambda mesh: as_dtensor(torch.zeros(4, 128), mesh, [Shard(1)], (4, 256)),
        "is a DTensor of placements (Shard(dim=1),)",
    ),
    "another mesh": (
        lambda mesh: as_dtensor(
            torch.zeros(2, 256), DeviceMesh("cpu", [1, 0], _init_backend=False), [Shard(0)],
            (4, 256),
        ),
        "expected the parameter's mesh, DeviceMesh((d0=2)",
    ),
    "plain": (
        lambda mesh: torch.zeros(4, 256),
        "gradient of parameter 'w' is a plain tensor, the parameter a DTensor; expected a DTensor "
        "of the same mesh and placements",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", GRADIENTS)
@pytest.mark.parametrize("later", [False, True], ids=["first step", "second step"])
def test_a_gradient_that_lies_otherwise_is_refused(name: str, later: bool) -> None:
    make, message = GRADIENTS[name]
    with played(0, 2) as mesh:
        param: Any = parameter(torch.ones(4, 256), mesh)
        optimizer = Cosmic([("w", param)])
        if later:
            param.grad = placed(torch.ones(4, 256), mesh)
            optimizer.step()
        before = param._local_tensor.clone()
        state = {key: value for key, value in optimizer.state[param].items()}
        param.grad = None
        param.grad = make(mesh)
        with pytest.raises((ValueError, TypeError)) as caught:
            optimizer.step()
        assert message in str(caught.value)
        assert torch.equal(param._local_tensor, before)
        assert {key: value for key, value in optimizer.state[param].items()} == state


def test_a_gradient_that_alone_is_a_dtensor_is_refused() -> None:
    with played(0, 2) as mesh:
        param = nn.Parameter(torch.ones(4, 8))
        param.grad = as_dtensor(torch.ones(4, 8), mesh, [Replicate()])
        with pytest.raises(ValueError, match=r"is a DTensor, the parameter a plain tensor; exp"):
            Cosmic([("w", param)]).step()
        assert torch.equal(param.detach(), torch.ones(4, 8))


def test_a_policy_that_goes_by_gradients_is_refused() -> None:
    with played(0, 2) as mesh:
        param = parameter(torch.ones(64, 256), mesh)
        param.grad = placed(torch.ones(64, 256), mesh)
        optimizer = Cosmic([("w", param)], budget="10%", policy="signal")
        with pytest.raises(
            ValueError, match="'signal' goes by the size of gradients, of which par"
        ):
            optimizer.step()
        assert not optimizer.state[param]
        optimizer.policy = "role"
        optimizer.step()
        assert optimizer.state_bytes()


def test_a_controller_that_sees_shards_alone_is_refused() -> None:
    class Looks(Controller):
        def observe(self, seen: Observation) -> None:
            assert seen.tensors

    with played(0, 2) as mesh:
        optimizer = Cosmic([("w", parameter(torch.ones(4, 8), mesh))], weight_decay=0.1)
        with pytest.raises(ValueError, match="each rank sees its shards of parameter 'w' alone"):
            optimizer.add_controller(Looks(every=1))
        optimizer.add_controller(PlateauGuard())
    plain = Cosmic([nn.Parameter(torch.ones(4))])
    plain.add_controller(Looks(every=1))


@pytest.mark.parametrize("option", [{"max_norm": 1.0}, {"max_norm": 1.0, "clip": "tensor"}])
def test_a_norm_that_no_rank_knows_is_refused_in_backward(option: dict[str, Any]) -> None:
    with played(0, 2) as mesh:
        optimizer = Cosmic([("w", parameter(torch.ones(4, 8), mesh))])
        with pytest.raises(ValueError, match=r"max_norm=1.0 cannot hold in step_in_backward\(\)"):
            optimizer.step_in_backward(**option)
