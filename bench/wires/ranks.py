"""Processes that train one model together over loopback."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import start_processes
from torch.nn.parallel import DistributedDataParallel

from cosmic import Cosmic
from cosmic.models.configs import silence_transformers
from saved.models import build, loss_of
from saved.training import EVALUATED, SIZE, batches, share_of_rate, texts
from shared.lines import Lines
from wires.ways import WAYS

WINDOWS = 4  # of a rank's batch


@dataclass(frozen=True)
class Course:
    """One training: how gradients travel, the highest rate, the seed and the steps."""

    way: str
    lr: float
    seed: int
    steps: int


def run(courses: Sequence[Course], ranks: int, out: Path) -> None:
    """Train each in turn, in one group of processes with one thread each; results go to ``out``."""
    rendezvous = out.resolve().with_suffix(f".{time.time_ns()}")  # of an absolute path, in a URL
    start_processes(  # type: ignore[no-untyped-call]
        _rank, (ranks, list(courses), rendezvous, out), ranks, start_method="spawn"
    )


def _rank(rank: int, ranks: int, courses: list[Course], rendezvous: Path, out: Path) -> None:
    torch.set_num_threads(1)
    silence_transformers()
    dist.init_process_group("gloo", f"file://{rendezvous}", rank=rank, world_size=ranks)
    lines = Lines(out)
    for course in courses:
        found = train(course, rank, ranks)
        if rank == 0:
            lines.append({"key": key(course, ranks), **found})
            print(ranks, course.way, course.lr, course.seed, f"{found['loss']:.4f}", flush=True)
    dist.destroy_process_group()


def key(course: Course, ranks: int) -> list[Any]:
    return [ranks, course.way, course.lr, course.seed, course.steps]


def train(course: Course, rank: int, ranks: int) -> dict[str, float]:
    """Validation loss in nats a byte, bytes, and the process's own median time of a step: that of
    the clock depends on what else the machine does, and on the other ranks.

    The seed decides initial weights, batches and random bits; ranks have windows of their own.
    """
    torch.manual_seed(course.seed)
    ddp = DistributedDataParallel(build("llama", SIZE))
    traffic = WAYS[course.way](ddp, course.seed)
    optimizer = Cosmic(ddp.parameters(), lr=course.lr, weight_decay=0.01, state_dtype="fp32")
    text, held_out = texts()
    seconds = []
    for step, ids in enumerate(batches(text, course.steps, 1000 * course.seed + rank)):
        start = time.process_time()
        optimizer.param_groups[0]["lr"] = course.lr * share_of_rate(step, course.steps)
        loss = loss_of(ddp, ids[:WINDOWS])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        seconds.append(time.process_time() - start)
    with torch.no_grad():
        losses = [float(loss_of(ddp.module, ids)) for ids in batches(held_out, EVALUATED, 12345)]
    sent = traffic(course.steps)
    return {
        "loss": sum(losses) / len(losses),
        "message": sent.message,
        "sent": sent.sent(ranks),
        "state": sent.state,
        "cpu_ms": 1000 * statistics.median(seconds),
        "parameters": sum(p.numel() for p in ddp.parameters()),
    }
