"""What a rank finds when ranks differ in what they must share."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard

from cosmic import Cosmic
from cosmic.step.meeting import Meeting
from helpers import digest, normal

#: How long a rank waits for one that does not come.
PATIENCE = timedelta(seconds=8)

#: Of optimizers whose steps need the process group.
LATER: dict[str, dict[str, Any]] = {
    "raise": {"nonfinite": "raise"},
    "sums": {"global_sums": True, "gate": "snr"},
    "compared": {"reallocate_every": 1},
}


def sharded() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(128, 64), nn.Linear(64, 8))
    fully_shard(model)
    return model


def give_gradients(model: nn.Module, seed: int) -> None:
    for place, param in enumerate(model.parameters()):
        local: Any = param.detach().clone()
        local._local_tensor.copy_(normal(seed + place, *local._local_tensor.shape))
        param.grad = local


def stepped(model: nn.Module, optimizer: Cosmic, steps: int = 1, lacking: str = "") -> str:
    """The error that a step ends in, or nothing. ``lacking``: which parameter has no gradient."""
    try:
        for _ in range(steps):
            give_gradients(model, optimizer._steps)
            if lacking:
                model.get_parameter(lacking).grad = None
            optimizer.step()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def outcome(
    model: nn.Module, optimizer: Cosmic, steps: int = 1, lacking: str = ""
) -> tuple[str, bool]:
    """That, and whether parameters and state are as they were before the last of the steps."""
    before = ""
    error = ""
    for _ in range(steps):
        before = digest(optimizer)
        error = stepped(model, optimizer, lacking=lacking)
    return error, digest(optimizer) == before


def differing(rank: int) -> Iterator[tuple[str, Any]]:
    """Ranks are given different options, parameters or gradients."""
    odd = rank == 1
    model = sharded()
    named = list(model.named_parameters())
    yield "alike", outcome(model, Cosmic(named))
    yield "lr", outcome(model, Cosmic(named, lr=2e-3 if odd else 1e-3))
    yield "budget", outcome(model, Cosmic(named, budget="60%" if odd else "50%"))
    full = Cosmic(named, budget=1 if odd else None, tier=2)
    yield "too small", outcome(model, full)
    yield "order", outcome(model, Cosmic(named[::-1] if odd else named))
    yield "missing", outcome(model, Cosmic(named[:-1] if odd else named))
    yield "no gradient", outcome(model, Cosmic(named), lacking=named[0][0] if odd else "")
    optimizer = Cosmic(named, reallocate_every=2)
    stepped(model, optimizer, 2)
    optimizer.param_groups[0]["weight_decay"] = 0.1 * odd
    yield "in mid-run", outcome(model, optimizer)


def nonfinite(rank: int) -> Iterator[tuple[str, Any]]:
    """One rank alone has a gradient that is not finite."""
    for mode in ("raise", "skip"):
        model = sharded()
        optimizer = Cosmic(model.named_parameters(), nonfinite=mode)
        stepped(model, optimizer)
        before = digest(optimizer)
        give_gradients(model, 1)
        if rank == 1:
            next(model.parameters()).grad._local_tensor[0, 0] = torch.nan  # type: ignore[union-attr]
        error = ""
        try:
            optimizer.step()
        except RuntimeError as found:
            error = f"{type(found).__name__}: {found}"
        about = optimizer.state_dict()["cosmic"]["skipped"]
        yield mode, (error, digest(optimizer) == before, about, stepped(model, optimizer))


def late(rank: int) -> Iterator[tuple[str, Any]]:
    """One rank steps once more than the other, which goes on a while later."""
    dist.distributed_c10d._get_default_store().set_timeout(PATIENCE)
    model = sharded()
    optimizer = Cosmic(model.named_parameters(), reallocate_every=2)
    stepped(model, optimizer, 4)
    if rank == 1:
        yield "late", outcome(model, optimizer)
    else:
        dist.distributed_c10d._get_default_store().wait(["gone"], timedelta(seconds=60))
        yield "late", outcome(model, optimizer)
    dist.distributed_c10d._get_default_store().set("gone", "1")


def unmet(rank: int) -> Iterator[tuple[str, Any]]:
    """The process group is gone before the first step, or before a later one that needs it."""
    started: dict[str, Any] = {"first": Cosmic(sharded().named_parameters())}
    for name, options in LATER.items():
        model = sharded()
        started[name] = Cosmic(model.named_parameters(), state_dtype="u4+v4", **options)
        stepped(model, started[name])
    dist.destroy_process_group()
    for name, optimizer in started.items():
        for param in optimizer.param_groups[0]["params"]:
            param.grad = param.detach().clone()
        before = digest(optimizer)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                optimizer.step()
                yield f"unmet, {name}", ("", False)
            except ValueError as error:
                yield f"unmet, {name}", (str(error), digest(optimizer) == before)


def met_again(rank: int, folder: Path) -> Iterator[tuple[str, Any]]:
    """A process group that is made anew by processes that have met differently often before."""
    if rank == 1:
        Meeting.of((0, 1))
    dist.destroy_process_group()
    dist.init_process_group(
        "gloo", init_method=f"file://{folder / 'again'}", rank=rank, world_size=2, timeout=PATIENCE
    )
    model = sharded()
    yield "met again", outcome(model, Cosmic(model.named_parameters(), reallocate_every=2), steps=3)


def everything(folder: Path, rank: int) -> Iterator[tuple[str, Any]]:
    yield from differing(rank)
    yield from nonfinite(rank)
    yield from late(rank)
    yield from met_again(rank, folder)
    yield from unmet(rank)
