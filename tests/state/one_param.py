"""An optimizer of one parameter on a rung, for tests that look at its state."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from cosmic import Cosmic
from cosmic.state.building import decoded_moments
from helpers import UNUSUAL, parameter, take_steps

SHAPE = (21, 34)


def optimizer_of(rung: str | None, param: nn.Parameter | None = None, **options: Any) -> Cosmic:
    param = parameter(0, *SHAPE) if param is None else param
    return Cosmic([param], **{**UNUSUAL, "min_compress_size": 0, "rung": rung, **options})


def only_param(optimizer: Cosmic) -> nn.Parameter:
    param = optimizer.param_groups[0]["params"][0]
    assert isinstance(param, nn.Parameter)
    return param


def state_of(optimizer: Cosmic) -> dict[str, Any]:
    state: dict[str, Any] = optimizer.state[only_param(optimizer)]
    return state


def moved_to(optimizer: Cosmic, rung: str) -> Cosmic:
    """A step without gradients: state takes the form of another rung, and nothing moves."""
    param = only_param(optimizer)
    before = param.detach().clone()
    optimizer.param_groups[0]["rung"] = rung
    param.grad = None
    optimizer.step()
    assert torch.equal(param, before)
    assert optimizer.tiers()[0].rung == rung
    return optimizer


def trained(rung: str | None, steps: int = 4, **options: Any) -> Cosmic:
    optimizer = optimizer_of(rung, **options)
    take_steps(optimizer, 0, steps)
    return optimizer


def decoded(optimizer: Cosmic) -> dict[str, Tensor]:
    param = only_param(optimizer)
    return decoded_moments(param, optimizer.state[param], optimizer.param_groups[0])
