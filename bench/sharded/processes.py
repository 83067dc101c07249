"""Processes that hold shards of one model, and what each measures of its step."""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.debug import CommDebugMode
from torch.multiprocessing.spawn import start_processes

from cosmic import Cosmic
from cosmic.state.shards import local_of

WIDTH = 1024
#: Steps that are not counted: plans are made, and ranks compare what they are about to do.
WARMUP = 3
#: Seconds in which what was sent has arrived.
QUIET = 0.05

OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "torch AdamW, foreach": lambda params: torch.optim.AdamW(params, lr=1e-4, foreach=True),
    "cosmic": lambda params: Cosmic(params, lr=1e-4),
    "cosmic u4+v4": lambda params: Cosmic(params, lr=1e-4, state_dtype="u4+v4"),
    "cosmic, budget 10%": lambda params: Cosmic(params, lr=1e-4, budget="10%", policy="uniform"),
    "cosmic, global_sums": lambda params: Cosmic(params, lr=1e-4, global_sums=True),
}


@dataclass(frozen=True)
class Row:
    """One optimizer on so many ranks.

    Attributes:
        step_ms: of ``step()``, the slowest rank's median.
        cpu_ms: that its process takes for it.
        most: bytes of state on the rank that has most, for each parameter of the model.
        least: the same of the rank that has least.
        whole: of all ranks together.
        collectives: that a rank takes part in within a step.
        step_bytes: that travel within a step.
        first_bytes: that travel within the first one.
        train_bytes: that travel in forward and backward, all ranks together.
    """

    ranks: int
    optimizer: str
    step_ms: float
    cpu_ms: float
    most: float
    least: float
    whole: float
    collectives: float
    step_bytes: float
    first_bytes: float
    train_bytes: float


def rows_of(ranks: int, millions: float, steps: int, names: list[str], folder: Path) -> list[Row]:
    """What so many processes measure of each optimizer."""
    store = dist.TCPStore(  # type: ignore[attr-defined]
        "127.0.0.1", 0, is_master=True, wait_for_workers=False
    )
    start_processes(  # type: ignore[no-untyped-call]
        _rank, (ranks, millions, steps, names, folder, store.port), ranks, start_method="spawn"
    )
    found = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(ranks)]
    return [_row(name, [of[name] for of in found]) for name in names]


def _row(name: str, of: list[dict[str, float]]) -> Row:
    state = [each["state"] for each in of]
    return Row(
        len(of), name, max(each["ms"] for each in of), max(each["cpu_ms"] for each in of),
        max(state), min(state), sum(state), of[0]["collectives"], of[0]["step_bytes"],
        of[0]["first_bytes"], of[0]["train_bytes"],
    )  # fmt: skip


def _rank(
    rank: int, ranks: int, millions: float, steps: int, names: list[str], folder: Path, port: int
) -> None:
    torch.set_num_threads(1)
    if sys.platform == "linux":
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    store = dist.TCPStore("127.0.0.1", port, is_master=False)  # type: ignore[attr-defined]
    dist.init_process_group("gloo", store=store, rank=rank, world_size=ranks)
    found = {name: measure(name, millions, steps) for name in names}
    (folder / f"{rank}.json").write_text(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()


def measure(name: str, millions: float, steps: int) -> dict[str, float]:
    """One rank's numbers."""
    torch.manual_seed(0)
    layers = max(1, round(millions * 1e6 / WIDTH**2))
    model = nn.Sequential(*(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(layers)))
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for layer in model:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    optimizer = OPTIMIZERS[name](model.parameters())
    train_bytes = _traffic(lambda: _backward(model))
    first_bytes = _traffic(optimizer.step)
    for _ in range(WARMUP):
        optimizer.step()
    with CommDebugMode() as seen:  # type: ignore[no-untyped-call]
        step_bytes = min(_traffic(optimizer.step) for _ in range(3))
    ms, cpu = _times(optimizer.step, steps)
    return {
        "ms": ms,
        "cpu_ms": cpu,
        "state": _state_bytes(optimizer) / (layers * WIDTH**2),
        "collectives": seen.get_total_counts() / 3,
        "step_bytes": step_bytes,
        "first_bytes": first_bytes,
        "train_bytes": train_bytes,
    }


def _backward(model: nn.Module) -> None:
    model(torch.randn(4, WIDTH)).square().mean().backward()


def _times(step: Callable[[], Any], steps: int) -> tuple[float, float]:
    """Milliseconds of the clock and of the process, medians."""
    walls, cpus = [], []
    for _ in range(steps):
        dist.barrier()
        wall, cpu = time.perf_counter(), time.process_time()
        step()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return 1e3 * statistics.median(walls), 1e3 * statistics.median(cpus)


def _traffic(act: Callable[[], Any]) -> float:
    """Bytes that the loopback device has carried meanwhile; NaN where that is not counted. The
    first rank's number is the one to go by: it has waited for the others to be silent."""
    dist.barrier()
    time.sleep(QUIET)
    before = _carried()
    time.sleep(QUIET)  # every rank has read by now
    act()
    time.sleep(QUIET)
    after = _carried()
    dist.barrier()
    return after - before


def _carried() -> float:
    counts = Path("/proc/net/dev")
    if not counts.exists():
        return float("nan")
    line = next(x for x in counts.read_text().splitlines() if x.strip().startswith("lo:"))
    return float(line.split(":")[1].split()[0])


def _state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Of this rank's tensors."""
    held = (v for state in optimizer.state.values() for v in state.values())
    return sum(local_of(value).nbytes for value in held if isinstance(value, Tensor))
