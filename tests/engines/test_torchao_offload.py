"""torchao's CPUOffloadOptimizer around Cosmic: its logic, with the CPU in the place of the device.

What is CUDA's (streams, events, pinned memory) has stand-ins that do nothing, so that a step finds
in host memory what backward has put there. Nothing here has seen a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import StepLR
from torchao.optim import CPUOffloadOptimizer

from cosmic import Cosmic, UnsupportedTensorError, param_groups
from cosmic.state.entries import rung_of
from device_stand_in import stand_in
from engine_models import Net, digest_of, ids_of, loss_of
from helpers import same_bits, through_a_file


@pytest.fixture(autouse=True)
def cpu_for_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch)


def offloaded(params: Any, **options: Any) -> Any:
    """Cosmic takes no tensors of a device: all are offloaded, the small ones, too."""
    return CPUOffloadOptimizer(params, Cosmic, **{"minimal_size": 0, "lr": 1e-2, **options})


def train(model: nn.Module, optimizer: Any, first: int = 0, last: int = 4) -> Iterator[Any]:
    for step in range(first, last):
        loss_of(model, ids_of(step)).backward()  # type: ignore[no-untyped-call]
        yield step
        optimizer.step()
        optimizer.zero_grad()


def trained(model: nn.Module, optimizer: Any, first: int = 0, last: int = 4) -> str:
    for _ in train(model, optimizer, first, last):
        pass
    return digest_of(model.parameters())


@pytest.mark.parametrize("freed", [False, True], ids=["gradients stay", "gradients are freed"])
def test_uncompressed_state_has_the_bits_of_one_optimizer(freed: bool) -> None:
    model, twin = Net(), Net()
    optimizer = offloaded(
        model.parameters(), state_dtype="fp32", weight_decay=0.1, offload_gradients=freed
    )
    for _ in train(model, optimizer):
        assert all((p.grad is None) == freed for p in model.parameters())
    alone = Cosmic(twin.parameters(), lr=1e-2, weight_decay=0.1, state_dtype="fp32")
    assert trained(twin, alone) == digest_of(model.parameters())


def test_each_tensor_has_an_optimizer_that_does_as_it_would_alone() -> None:
    """Rounding goes by a tensor's place in its optimizer, which is the first for each."""
    model = Net()
    optimizer = offloaded(model.parameters(), state_dtype="u4+v4")
    twins = {p: nn.Parameter(p.detach().clone()) for p in model.parameters()}
    alone = {p: Cosmic([twin], lr=1e-2, state_dtype="u4+v4") for p, twin in twins.items()}
    for _ in train(model, optimizer):
        for param, twin in twins.items():
            twin.grad = param.grad
            alone[param].step()
    for param, twin in twins.items():
        assert same_bits(param.detach(), twin.detach())
        own = optimizer.optim_dict[param]
        assert own.state_bytes() == alone[param].state_bytes()


def test_groups_say_what_names_would() -> None:
    """Roles come from the groups, and options, rates that a schedule moves among them."""
    model = Net()
    optimizer = offloaded(param_groups(model, no_decay_on_vectors=True), weight_decay=0.1)
    schedule = StepLR(optimizer, 1, gamma=0.5)
    for _ in train(model, optimizer, 0, 1):
        pass
    schedule.step()
    assert {group["lr"] for group in optimizer.param_groups} == {0.005}
    rungs = {}
    for name, param in model.named_parameters():
        own = optimizer.optim_dict[param]
        (state,) = own.state.values()
        rungs[name] = rung_of(state).name
        assert own.param_groups[0]["weight_decay"] == (0.1 if param.ndim > 1 else 0.0)
    assert rungs["table.weight"] == rungs["head.weight"] == "tier2:u4+v4"
    assert rungs["hidden.weight"] == rungs["narrow.weight"] == "tier2:u4+factored"
    assert rungs["norm.bias"] == "tier2:fp32+fp32"


def test_a_budget_is_of_each_tensor() -> None:
    model = Net()
    optimizer = offloaded(model.parameters(), budget="10%")
    trained(model, optimizer)
    for param, own in optimizer.optim_dict.items():
        assert own.budget_bytes() == int(0.1 * 8 * param.numel())
        assert own.state_bytes() <= own.budget_bytes()


def test_a_run_goes_on_from_a_checkpoint() -> None:
    model, other = Net(), Net()
    optimizer = offloaded(model.parameters(), gate="snr")
    trained(model, optimizer, 0, 2)
    other.load_state_dict(model.state_dict())
    resumed = offloaded(other.parameters(), gate="snr")
    resumed.load_state_dict(through_a_file(optimizer.state_dict()))
    assert trained(other, resumed, 2, 4) == trained(model, optimizer, 2, 4)


def test_tensors_of_a_device_are_refused() -> None:
    """As the small ones would be, which torchao leaves on the device unless minimal_size is 0."""
    with pytest.raises(UnsupportedTensorError, match="on device meta; COSMIC steps dense"):
        Cosmic([nn.Parameter(torch.empty(8, device="meta"))])
