"""Collectives on the process groups of meshes, and what is said where one cannot be had."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.distributed as dist

from ..errors import first_line

__all__ = ["check_initialized", "collective"]


def check_initialized() -> None:
    """Raise ValueError unless the process has a process group: that of a mesh may be gone."""
    if not dist.is_initialized():
        raise ValueError(
            "parameters are DTensors whose shards are on several ranks, but no process group is "
            "initialized; call torch.distributed.init_process_group() first, and destroy it after "
            "the last step"
        )


def collective(mesh: Any, dimension: int, call: Callable[[Any], object], why: str) -> None:
    """Make a call with the process group along a dimension of a mesh.

    Args:
        call: a collective of CPU tensors.
        why: what asks for it, the beginning of a sentence on all ranks.

    Raises:
        ValueError: if there is no process group.
        RuntimeError: if the collective has failed.
    """
    check_initialized()
    try:
        call(mesh.get_group(dimension))
    except RuntimeError as error:
        raise RuntimeError(
            f"{why}, and their process group failed to ({first_line(error)}); it needs a backend "
            "for CPU tensors, such as init_process_group('cpu:gloo,cuda:nccl')"
        ) from error
