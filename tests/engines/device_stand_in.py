"""The CPU in the place of the device that torchao offloads from: what is CUDA's does nothing."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch
from torch import Tensor
from torchao.optim import cpu_offload

__all__ = ["stand_in"]


class Stream:
    """Everything has happened as soon as it is asked for."""

    def wait_stream(self, other: Any) -> None: ...

    def synchronize(self) -> None: ...

    def record_event(self) -> Stream:
        return self


def stand_in(patch: pytest.MonkeyPatch) -> None:
    """A step finds in host memory what backward has put there; no memory is pinned."""
    made = torch.empty_like
    patch.setattr(cpu_offload, "get_available_devices", lambda: ["cpu", "cuda"])
    patch.setattr(torch.cuda, "Stream", Stream)
    patch.setattr(torch.cuda, "current_stream", Stream)
    patch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    patch.setattr(Tensor, "record_stream", lambda tensor, stream: None)
    patch.setattr(torch, "empty_like", lambda like, *, pin_memory=False, **more: made(like, **more))
