"""What ranks do and find: three of them, or a pair of these, or one alone."""

from __future__ import annotations

import copy
import os
import pickle
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from cosmic import Cosmic, _core
from cosmic.distributed import (
    CODECS,
    CompressionState,
    compress_gradients,
    compress_hook,
    wire,
)
from helpers import normal, through_a_file
from layout_checks import layouts
from wire_models import (
    MIN_NUMEL,
    Net,
    Seen,
    ddp_of,
    digest_of,
    gap,
    given_to,
    loss_of,
    residuals_of,
)

RANKS = 3
Group = dist.ProcessGroup


class Setting:
    """A rank, and the groups that it is in."""

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.all: Group = dist.group.WORLD  # type: ignore[assignment]
        self.pair: Group = dist.new_group([0, 1])
        self.alone: Group = [dist.new_group([r]) for r in range(RANKS)][rank]


def run(rank: int) -> Iterator[tuple[str, Any]]:
    """Every check, in the same order on every rank."""
    at = Setting(rank)
    yield "sums", sums(at)
    yield "threads", trained(at, at.all, threads=2)
    yield "three ranks", trained(at, at.all)
    yield "alone", trained(at, at.alone)
    yield "mean as it is", mean_as_it_is(at)
    yield "layouts", layouts(at.rank, RANKS)
    yield "its own group", its_own_group(at)
    yield "steps in backward", error_of(lambda: steps_in_backward(at))
    if rank < 2:
        for name, options in WAYS_TO_BUCKET.items():
            yield f"bucket {name}", trained(at, at.pair, **options)
        yield "steady", trained(at, at.pair, turns=False)
        yield "static", trained(at, at.pair, turns=False, **STATIC)
        yield "resumed", resumed(at)
        yield "accumulated", accumulated(at)
        yield "resting", resting(at)
        yield "types", types(at)
        yield "nonfinite", nonfinite(at)
        yield "late", late(at)
        yield "copies", copies(at)
        yield "frozen", frozen(at)
        yield "uneven", uneven(at)
        for name, both in DISAGREEING.items():
            yield f"disagreeing {name}", error_of(partial(disagree, at, both[rank]))
        yield "another model", error_of(lambda: another_model(at))
        yield "twice", error_of(lambda: twice(at))
    dist.barrier()
    for finding in death(at):
        yield "death", finding


def error_of(act: Callable[[], None]) -> tuple[str, str]:
    """Type and text of what it raises."""
    try:
        act()
    except Exception as error:
        return type(error).__name__, str(error)
    return "none", ""


def compressed(
    group: Group, codec: str = "u4", model: nn.Module | None = None, **options: Any
) -> tuple[DistributedDataParallel, CompressionState, torch.optim.Optimizer]:
    ddp = ddp_of(model or Net(), process_group=group, **options)
    state = compress_gradients(ddp, codec, min_numel=MIN_NUMEL)
    return ddp, state, torch.optim.SGD(ddp.parameters(), lr=0.5)


def steps(
    ddp: nn.Module,
    optimizer: torch.optim.Optimizer,
    rank: int,
    first: int,
    last: int,
    turns: bool = True,
) -> None:
    """Some steps, in which the heads take turns if they are to."""
    for step in range(first, last):
        optimizer.zero_grad()
        loss_of(ddp, rank, step, use_other=turns and step % 2 == 1).backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def trained(
    at: Setting, group: Group, threads: int = 1, turns: bool = True, **options: Any
) -> dict[str, list[str]]:
    """By codec, digests of parameters and residuals after some steps; the threads are those of the
    hook, as torch's own products depend on theirs."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wire, "thread_count", lambda: threads)
        for codec in CODECS:
            ddp, state, optimizer = compressed(group, codec, **options)
            steps(ddp, optimizer, at.rank, 0, 4, turns)
            found[codec] = [digest_of(ddp.parameters()), digest_of(residuals_of(state))]
    return found


STATIC = {"static_graph": True, "find_unused_parameters": False}
WAYS_TO_BUCKET: dict[str, dict[str, Any]] = {
    "one": {},
    "many": {"bucket_cap_mb": 0.01},
    "views": {"gradient_as_bucket_view": True, "bucket_cap_mb": 0.03},
}


def sums(at: Setting) -> dict[str, dict[str, float]]:
    """By codec and residual and by parameter, how far sent and kept are from what was given."""
    found = {}
    for codec in CODECS:
        for residual in ("bf16", "fp32"):
            ddp = ddp_of(Net())
            state = CompressionState(ddp, codec, residual=residual, decay=1, min_numel=MIN_NUMEL)
            seen = Seen(ddp, state)
            steps(ddp, torch.optim.SGD(ddp.parameters(), lr=0.5), at.rank, 0, 6)
            found[f"{codec} {residual}"] = {
                name: gap(given, RANKS * seen.got[name], state.kept(name))
                for name, given in seen.given.items()
            }
    return found


def mean_as_it_is(at: Setting) -> list[np.ndarray[Any, Any]]:
    """A gradient that is too small to be encoded: given, and got."""
    net = nn.Linear(7, 5, bias=False, dtype=torch.float16)
    ddp = ddp_of(net)
    compress_gradients(ddp, min_numel=36)
    given = normal(at.rank, 5, 7, dtype=torch.float16)
    given_to(net, given)
    ddp(torch.ones(1, 7, dtype=torch.float16)).sum().backward()
    assert net.weight.grad is not None
    return [given.numpy(), net.weight.grad.numpy()]


def its_own_group(at: Setting) -> bool:
    """Whether a rank whose DistributedDataParallel is alone keeps its gradient for itself."""
    net = nn.Linear(8, 8, bias=False)
    ddp = ddp_of(net, process_group=at.alone)
    ddp.register_comm_hook(CompressionState(ddp), compress_hook)
    given = normal(at.rank, 8, 8)
    given_to(net, given)
    ddp(torch.ones(1, 8)).sum().backward()
    assert net.weight.grad is not None
    return torch.equal(net.weight.grad, given)


def resumed(at: Setting) -> list[list[str]]:
    """Digests of a run and of one that was saved and loaded in the middle."""
    ddp, state, optimizer = compressed(at.pair)
    steps(ddp, optimizer, at.rank, 0, 3)
    saved = through_a_file(state.state_dict())
    weights = copy.deepcopy(ddp.module.state_dict())
    steps(ddp, optimizer, at.rank, 3, 6)
    again, fresh, other = compressed(at.pair)
    again.module.load_state_dict(weights)
    fresh.load_state_dict(saved)
    steps(again, other, at.rank, 3, 6)
    return [
        [digest_of(d.parameters()), digest_of(residuals_of(s)), str(s.step), str(s.bytes_sent())]
        for d, s in ((ddp, state), (again, fresh))
    ]


def accumulated(at: Setting) -> tuple[int, float]:
    """Steps counted after two backwards for one step, and whether the sum of both was sent."""
    ddp = ddp_of(Net(), process_group=at.pair)
    state = CompressionState(ddp, "q8", min_numel=MIN_NUMEL, process_group=at.pair)
    seen = Seen(ddp, state)
    twin = Net()
    with ddp.no_sync():
        loss_of(ddp, at.rank, 0).backward()  # type: ignore[no-untyped-call]
    loss_of(ddp, at.rank, 1).backward()  # type: ignore[no-untyped-call]
    for step in range(2):
        loss_of(twin, at.rank, step).backward()  # type: ignore[no-untyped-call]
    wanted = twin.head.weight.grad
    assert wanted is not None
    return state.step, float((seen.given["head.weight"] - wanted).abs().max())


def resting(at: Setting) -> dict[str, Any]:
    """A head that all ranks use, then none, then one."""
    ddp, state, _ = compressed(at.pair)
    found: dict[str, Any] = {}
    for step, uses in enumerate(([True, True], [False, False], [True, False])):
        ddp.zero_grad()
        before = state.kept("other.weight")
        loss_of(ddp, at.rank, step, uses[at.rank]).backward()  # type: ignore[no-untyped-call]
        gradient, kept = ddp.module.other.weight.grad, state.kept("other.weight")
        same = before is not None and kept is not None and torch.equal(before, kept)
        found[str(step)] = (gradient is not None, same)
    return found


def types(at: Setting) -> dict[str, tuple[str, str, bool]]:
    """Digests after steps in other types; whether anything moved."""
    found = {}
    for dtype in (torch.bfloat16, torch.float64):
        ddp, _, optimizer = compressed(at.pair, model=Net().to(dtype))
        before = digest_of(ddp.parameters())
        steps(ddp, optimizer, at.rank, 0, 2)
        after = digest_of(ddp.parameters())
        found[str(dtype)] = (str(ddp.module.hidden.weight.grad.dtype), after, after != before)
    return found


def nonfinite(at: Setting) -> dict[str, Any]:
    """An element of rank 1 is infinite: which blocks come out as NaN, and what is kept."""
    found: dict[str, Any] = {}
    for codec in CODECS:
        net = nn.Linear(128, 16, bias=False)
        ddp = ddp_of(net, process_group=at.pair)
        state = compress_gradients(ddp, codec, min_numel=0)
        optimizer = Cosmic(net.parameters(), nonfinite="raise")
        given = normal(at.rank, 16, 128)
        for step in range(2):  # what is kept of the first must be lost in that block alone
            if step == 1 and at.rank == 1:
                given[5, 3] = float("inf")
            end = given_to(net, given)
            ddp.zero_grad()
            ddp(torch.ones(1, 128)).sum().backward()
            end()
        kept = state.kept("weight")
        assert kept is not None and net.weight.grad is not None
        spoiled = net.weight.grad.isnan()
        found[codec] = {
            "spoiled": np.flatnonzero(spoiled.any(1).numpy()).tolist(),
            "wholly": bool(spoiled[5].all()),
            "kept": np.flatnonzero((kept != 0).any(1).numpy()).tolist(),
            "step": error_of(optimizer.step)[0],
        }
    return found


def late(at: Setting) -> tuple[int, str]:
    """A hook that comes after two steps without one."""
    ddp = ddp_of(Net(), process_group=at.pair)
    optimizer = torch.optim.SGD(ddp.parameters(), lr=0.5)
    steps(ddp, optimizer, at.rank, 0, 2)
    state = compress_gradients(ddp, min_numel=MIN_NUMEL)
    steps(ddp, optimizer, at.rank, 2, 4)
    return state.step, digest_of(ddp.parameters())


def copies(at: Setting) -> list[str]:
    """Digests after one more step of a run, of its deep copy and of its pickle."""
    ddp, state, optimizer = compressed(at.pair)
    steps(ddp, optimizer, at.rank, 0, 2)
    pair = (ddp.module, state)
    found = []
    for net, its in (copy.deepcopy(pair), pickle.loads(pickle.dumps(pair)), pair):
        assert its is state or its.process_group is None
        its.process_group = at.pair
        again = ddp_of(net, process_group=at.pair)
        again.register_comm_hook(its, compress_hook)
        steps(again, torch.optim.SGD(net.parameters(), lr=0.5), at.rank, 2, 3)
        found.append(digest_of([*net.parameters(), *residuals_of(its)]))
    return found


def frozen(at: Setting) -> tuple[list[str], int, int]:
    """What has residuals where a matrix is frozen, their bytes, and those of a message."""
    net = Net()
    net.table.requires_grad_(False)
    ddp, state, optimizer = compressed(at.pair, model=net)
    steps(ddp, optimizer, at.rank, 0, 1)
    return sorted(state.state_dict()["residuals"]), state.state_bytes(), state.bytes_sent()


def uneven(at: Setting) -> str:
    """One rank has a batch more than the other."""
    ddp, _, optimizer = compressed(at.pair, find_unused_parameters=False, model=nn.Linear(64, 64))
    with ddp.join():
        for step in range(2 + at.rank):
            optimizer.zero_grad()
            ddp(normal(step + at.rank, 4, 64)).square().sum().backward()
            optimizer.step()
    return digest_of(ddp.parameters())


#: Of rank 0 and of rank 1.
DISAGREEING: dict[str, list[dict[str, Any]]] = {
    "codec": [{"codec": "u4"}, {"codec": "top8"}],
    "seed": [{"seed": 0}, {"seed": 1}],
    "model": [{"name": "weight"}, {"name": "kernel"}],
    "version": [{}, {"version": "0.0.1"}],
}


def disagree(at: Setting, options: dict[str, Any]) -> None:
    net = nn.Linear(64, 64, bias=False)
    ddp = ddp_of(net, process_group=at.pair)
    more = {key: value for key, value in options.items() if key not in ("name", "version")}
    named = [(options.get("name", "weight"), net.get_parameter("weight"))]
    state = CompressionState(named, process_group=at.pair, **more)
    ddp.register_comm_hook(state, compress_hook)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_core, "__version__", options.get("version", _core.__version__))
        ddp(torch.ones(1, 64)).sum().backward()


def another_model(at: Setting) -> None:
    ddp = ddp_of(nn.Linear(4, 4), process_group=at.pair)
    ddp.register_comm_hook(CompressionState(nn.Linear(4, 4), process_group=at.pair), compress_hook)
    ddp(torch.ones(1, 4)).sum().backward()


def twice(at: Setting) -> None:
    ddp, _, _ = compressed(at.pair)
    compress_gradients(ddp)


def steps_in_backward(at: Setting) -> None:
    ddp = ddp_of(nn.Linear(4, 4), process_group=at.alone)
    Cosmic(ddp.parameters()).step_in_backward(ddp)


def death(at: Setting) -> Iterator[tuple[str, str]]:
    """Rank 2 ends in the middle of a step; what the others raise."""
    ddp, _, optimizer = compressed(at.all)
    steps(ddp, optimizer, at.rank, 0, 1)
    if at.rank == 2:
        os._exit(1)
    yield error_of(lambda: steps(ddp, optimizer, at.rank, 1, 3))
