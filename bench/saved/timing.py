"""Time and memory of a training step, and the speed of packing."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

import torch

from cosmic import compress_activations, quantize
from cosmic.activations import saved_bytes
from cosmic.train.memory import PeakRss, rss_bytes
from saved.models import Size, build, holding, loss_of, random_ids
from shared.harness import seconds

SIZE = Size(layers=6, width=256, tokens=256, batch=8, vocabulary=1024)


@dataclass
class Step:
    """Of one way to hold what autograd saves.

    Attributes:
        way: its name.
        time: of forward and backward, over that with everything kept, median of the rounds.
        seconds: of the process, all threads together.
        packing: share of the time that went into packing and unpacking.
        held: bytes held for backward, over those with everything kept, by `saved_bytes`.
        peak_mb: resident memory that forward and backward took at their peak.
    """

    way: str
    time: float = 0.0
    seconds: float = 0.0
    packing: float = 0.0
    held: float = 0.0
    peak_mb: float = 0.0


def peak_of(model_name: str, way: str) -> float:
    """MB of resident memory above what the model and its gradients take, in this process."""
    torch.set_num_threads(1)
    model = build(model_name, SIZE)
    held, ids = holding(way, model), random_ids(SIZE)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    before = rss_bytes()
    with PeakRss() as peak:
        with held():
            loss = loss_of(model, ids)
        loss.backward()  # type: ignore[no-untyped-call]
    return (peak.bytes - before) / 1e6


def in_a_process(function: Callable[..., float], *arguments: Any) -> float:
    """Memory that earlier work has left behind does not count in a fresh one, nor does what malloc
    keeps of what was freed."""
    os.environ["MALLOC_MMAP_THRESHOLD_"] = "65536"
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as worker:
        return worker.submit(function, *arguments).result()


def steps(model_name: str, ways: Sequence[str], rounds: int) -> list[Step]:
    """Time all ways in turn, so that a machine that changes its speed does so for all."""
    model, ids = build(model_name, SIZE), random_ids(SIZE)
    rows = {way: Step(way) for way in ways}
    times: dict[str, list[float]] = {way: [] for way in ways}
    packing: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds + 1):
        for way in ways:
            held = holding(way, model)
            model.zero_grad()
            start = time.process_time()
            with held() as meter:
                loss = loss_of(model, ids)
            loss.backward()  # type: ignore[no-untyped-call]
            times[way].append(time.process_time() - start)
            packing[way].append(meter.seconds if meter else 0.0)
    kept = statistics.median(times["kept"][1:])
    model.activation_checkpointing_disable()
    everything = saved_bytes(lambda: loss_of(model, ids))
    for way, row in rows.items():
        row.seconds = statistics.median(times[way][1:])
        row.time = row.seconds / kept
        row.peak_mb = in_a_process(peak_of, model_name, way)
        if isinstance(holding(way, model)(), compress_activations):
            row.held = saved_bytes(lambda way=way: loss_of(model, ids), way) / everything  # type: ignore[misc]
            row.packing = statistics.median(packing[way][1:]) / row.seconds
        else:
            row.held = saved_bytes(lambda: loss_of(model, ids)) / everything
    return list(rows.values())


@dataclass
class Speed:
    """GB of fp32 a second."""

    what: str
    threads: int
    pack: float
    unpack: float


def speeds(codecs: Sequence[str], threads: Sequence[int]) -> list[Speed]:
    """Packing and unpacking 2M normal numbers, beside a copy; the best of 15."""
    x = torch.randn(8 * 256 * 1024)
    y = torch.empty_like(x)
    rows = []

    def rate(step: Callable[[], Any]) -> float:
        return x.nbytes / min(seconds(step, 1) for _ in range(15)) / 1e9

    for count in threads:
        torch.set_num_threads(count)
        rows.append(Speed("copy", count, rate(lambda: y.copy_(x)), rate(lambda: x.copy_(y))))
        for codec in codecs:
            packed = quantize(x, codec=codec)
            pack = rate(lambda codec=codec: quantize(x, codec=codec))  # type: ignore[misc]
            rows.append(Speed(codec, count, pack, rate(packed.dequantize)))
    return rows
