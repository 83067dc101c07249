"""What ranks find that hold the whole model each: under DistributedDataParallel, with the optimizer
itself or with torch's ZeroRedundancyOptimizer around it."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from cosmic import Cosmic
from cosmic import param_groups as cosmic_groups
from cosmic.state.entries import rung_of
from engine_models import (
    Net,
    digest_of,
    error_of,
    gap,
    give,
    gradients_of,
    ids_of,
    loss_of,
    rows_of,
    stepped_by_hand,
)
from helpers import digest

if TYPE_CHECKING:
    from torch.distributed.optim import ZeroRedundancyOptimizer

RANKS = 3
STEPS = 4

#: Options of one optimizer each.
OPTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "fp32": {"state_dtype": "fp32"},
    "budget": {"budget": "5%", "reallocate_every": 2},
    "gates": {"gate": "snr+trust", "state_dtype": "u4+v4"},
    "matrices": {"matrix_rule": "muon"},
    "skipping": {"nonfinite": "skip"},
}

#: What ZeroRedundancyOptimizer has around it: names of OPTIONS, and whether parameters are views.
SHARDED = [
    ("default", False), ("default", True), ("fp32", False), ("fp32", True), ("budget", False),
]  # fmt: skip
SAVED = ["gates", "budget"]


class Setting(NamedTuple):
    """The ranks that train together, and which of them this one is."""

    rank: int
    ranks: int
    group: dist.ProcessGroup


def run(rank: int) -> Iterator[tuple[str, Any]]:
    """Every check: of all ranks, then of two."""
    pair = dist.new_group([0, 1])
    everyone = dist.group.WORLD
    assert everyone is not None
    yield from checks(Setting(rank, RANKS, everyone))
    if rank < 2:
        yield from checks(Setting(rank, 2, pair))


def checks(at: Setting) -> Iterator[tuple[str, Any]]:
    for name, options in OPTIONS.items():
        for accumulated in (False, True) if name == "default" else (False,):
            how = "accumulated" if accumulated else name
            yield f"{at.ranks} ranks, {how}", replicated(at, options, accumulated)
    yield f"{at.ranks} ranks, not finite", not_finite(at)
    for name, views in SHARDED:
        yield f"{at.ranks} shards, {name}, {views}", sharded(at, OPTIONS[name], views)
    yield f"{at.ranks} shards, groups", groups(at)
    yield f"{at.ranks} shards, roles", roles(at)
    for name in SAVED:
        yield f"{at.ranks} shards, saved, {name}", saved(at, OPTIONS[name])
        yield f"{at.ranks} shards, saved by each, {name}", saved_by_each(at, OPTIONS[name])
    yield f"{at.ranks} shards, overlapped", error_of(partial(overlapped, at))


def cosmic(model: nn.Module, options: Mapping[str, Any]) -> Cosmic:
    return Cosmic(model.named_parameters(), lr=1e-2, weight_decay=0.1, **options)


# ---- every rank steps everything -------------------------------------------------------------


def replicated(at: Setting, options: Mapping[str, Any], accumulated: bool) -> dict[str, Any]:
    """Parameters and state after some steps, beside those of the same gradients in one process, and
    of one process that saw all the data."""
    ddp = DistributedDataParallel(Net(), process_group=at.group)
    optimizer = cosmic(ddp.module, options)
    given = []
    for step in range(STEPS):
        if accumulated:
            with ddp.no_sync():
                loss_of(ddp, ids_of(100 + step, rows_of(at.rank, at.ranks))).backward()  # type: ignore[no-untyped-call]
        loss_of(ddp, ids_of(step, rows_of(at.rank, at.ranks))).backward()  # type: ignore[no-untyped-call]
        given.append(gradients_of(ddp.parameters()))
        optimizer.step()
        optimizer.zero_grad()
    _, alone = stepped_by_hand(partial(cosmic, options=options), given)
    return {
        "digest": digest(optimizer),
        "by hand": digest(alone),
        "first gradient": gap_to_whole(given[0], accumulated),
        "bytes": optimizer.state_bytes(),
    }


def gap_to_whole(gradients: list[torch.Tensor | None], accumulated: bool) -> float:
    """How far they are from those of all the data in one process."""
    whole = Net()
    for step in (0, 100) if accumulated else (0,):
        loss_of(whole, ids_of(step)).backward()  # type: ignore[no-untyped-call]
    wanted = [g for g in gradients_of(whole.parameters()) if g is not None]
    return gap([g for g in gradients if g is not None], wanted)


def not_finite(at: Setting) -> dict[str, Any]:
    """One rank's gradient is not finite: the mean of none is."""
    found = {}
    for how in ("raise", "skip"):
        ddp = DistributedDataParallel(Net(), process_group=at.group)
        optimizer = cosmic(ddp.module, {"nonfinite": how})
        before = digest(optimizer)
        loss = loss_of(ddp, ids_of(0, rows_of(at.rank, at.ranks)))
        (loss * (float("nan") if at.rank == 1 else 1.0)).backward()  # type: ignore[no-untyped-call]
        found[how] = [error_of(optimizer.step)[0], digest(optimizer) == before]
    return found


# ---- every rank steps some parameters --------------------------------------------------------


def zero_of(at: Setting, model: nn.Module, **options: Any) -> ZeroRedundancyOptimizer:
    from torch.distributed.optim import ZeroRedundancyOptimizer  # compiles by what torch deprecates

    params = options.pop("params", list(model.parameters()))
    return ZeroRedundancyOptimizer(
        params, optimizer_class=Cosmic, process_group=at.group, lr=1e-2, weight_decay=0.1, **options
    )


def train(
    at: Setting, ddp: nn.Module, optimizer: torch.optim.Optimizer, first: int, last: int
) -> list[list[torch.Tensor | None]]:
    """The gradients of steps first..last - 1, which this takes."""
    given = []
    for step in range(first, last):
        optimizer.zero_grad()
        loss_of(ddp, ids_of(step, rows_of(at.rank, at.ranks))).backward()  # type: ignore[no-untyped-call]
        given.append(gradients_of(ddp.parameters()))
        optimizer.step()
    return given


def sharded(at: Setting, options: Mapping[str, Any], views: bool) -> dict[str, Any]:
    ddp = DistributedDataParallel(Net(), process_group=at.group)
    optimizer = zero_of(at, ddp, parameters_as_bucket_view=views, **options)
    given = train(at, ddp, optimizer, 0, STEPS)
    own = optimizer.optim
    assert isinstance(own, Cosmic)
    alone, by_hand = stepped_by_hand(partial(cosmic, options=options), given)
    return {
        "parameters": digest_of(ddp.parameters()),
        "by hand": digest_of(alone.parameters()),
        "gap": gap(ddp.parameters(), alone.parameters()),
        "bytes": own.state_bytes(),
        "bytes by hand": by_hand.state_bytes(),
        "elements": sum(p.numel() for group in own.param_groups for p in group["params"]),
        "steps": own.state_dict()["cosmic"]["steps"],
    }


def groups(at: Setting) -> dict[str, Any]:
    """Two groups and a schedule: what the wrapper's groups say, the optimizer of each rank does."""
    ddp = DistributedDataParallel(Net(), process_group=at.group)
    decayed = [p for p in ddp.parameters() if p.ndim > 1]
    free = [p for p in ddp.parameters() if p.ndim == 1]
    sets: list[dict[str, Any]] = [
        {"params": decayed},
        {"params": free, "weight_decay": 0.0, "state_dtype": "fp32"},
    ]
    optimizer = zero_of(at, ddp, params=sets, state_dtype="u4+v4")
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    train(at, ddp, optimizer, 0, 1)
    schedule.step()
    train(at, ddp, optimizer, 1, 2)
    return {
        "parameters": digest_of(ddp.parameters()),
        "rates": [group["lr"] for group in optimizer.optim.param_groups],
        "decay": [group["weight_decay"] for group in optimizer.optim.param_groups],
        "rungs": rungs_of(optimizer.optim, ddp.module),
    }


def roles(at: Setting) -> dict[str, Any]:
    """A rank that has some of the tensors sees less of a model's structure; groups say it."""
    ddp = DistributedDataParallel(Net(), process_group=at.group)
    found = {}
    for how, sets in (
        ("given", cosmic_groups(ddp.module)),
        ("not given", list(ddp.parameters())),
    ):
        optimizer = zero_of(at, ddp, params=sets)
        train(at, ddp, optimizer, 0, 1)
        alone, by_hand = stepped_by_hand(lambda m: cosmic(m, {}), [gradients_of(ddp.parameters())])
        wanted = rungs_of(by_hand, alone)
        found[how] = {k: (v, wanted[k]) for k, v in rungs_of(optimizer.optim, ddp.module).items()}
    return found


def rungs_of(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, str]:
    """By name, of the parameters that this rank steps."""
    names: dict[torch.Tensor, str] = {p: name for name, p in model.named_parameters()}
    return {names[p]: rung_of(state).name for p, state in optimizer.state.items()}


def saved(at: Setting, options: Mapping[str, Any]) -> dict[str, Any]:
    """Gathered on one rank, as the wrapper's ``state_dict`` is, and loaded by all."""
    ddp, optimizer = begun(at, options)
    optimizer.consolidate_state_dict(to=0)
    held: list[Any] = [None]
    if at.rank == 0:
        held = [through_bytes([optimizer.state_dict(), ddp.module.state_dict()])]
    dist.broadcast_object_list(held, src=0, group=at.group)
    return goes_on(at, options, ddp, optimizer, *held[0])


def saved_by_each(at: Setting, options: Mapping[str, Any]) -> dict[str, Any]:
    """Every rank's own optimizer, saved and loaded by that rank."""
    ddp, optimizer = begun(at, options)
    state, weights = through_bytes([optimizer.optim.state_dict(), ddp.module.state_dict()])
    return goes_on(at, options, ddp, optimizer, state, weights, own=True)


def begun(
    at: Setting, options: Mapping[str, Any]
) -> tuple[DistributedDataParallel, ZeroRedundancyOptimizer]:
    ddp = DistributedDataParallel(Net(), process_group=at.group)
    optimizer = zero_of(at, ddp, **options)
    train(at, ddp, optimizer, 0, 2)
    return ddp, optimizer


def goes_on(
    at: Setting, options: Mapping[str, Any], ddp: DistributedDataParallel,
    optimizer: ZeroRedundancyOptimizer, state: dict[str, Any], weights: dict[str, Any],
    own: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """The run that goes on, and one that loads; both with the gradients of the first, as torch adds
    up a new model's in another order."""
    given = train(at, ddp, optimizer, 2, STEPS)
    model = Net()
    model.load_state_dict(weights)
    resumed = zero_of(at, model, **options)
    (resumed.optim if own else resumed).load_state_dict(state)
    for gradients in given:
        give(model, gradients)
        resumed.step()
    return {"whole": whole_digest(ddp, optimizer), "resumed": whole_digest(model, resumed)}


def whole_digest(model: nn.Module, optimizer: ZeroRedundancyOptimizer) -> list[str]:
    assert isinstance(optimizer.optim, Cosmic)
    return [digest_of(model.parameters()), digest(optimizer.optim)]


def through_bytes(saved: Any) -> Any:
    file = io.BytesIO()
    torch.save(saved, file)
    return torch.load(io.BytesIO(file.getvalue()), weights_only=True)


def overlapped(at: Setting) -> None:
    """Torch steps within DDP's buckets then, by a functional optimizer of its own."""
    ddp = DistributedDataParallel(Net(), process_group=at.group)
    with contextlib.redirect_stderr(io.StringIO()):
        optimizer = zero_of(at, ddp, overlap_with_ddp=True)
    optimizer.step()
