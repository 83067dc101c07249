"""A step's peak of resident memory, with what autograd saves packed."""

from __future__ import annotations

import gc
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from multiprocessing import get_context

import pytest
import torch
from torch import nn

import cosmic
from cosmic.train.memory import PeakRss, rss_bytes

ROWS, WIDTH, LAYERS = 4096, 256, 8


def growth(codec: str | None) -> int:
    """Bytes of resident memory that forward and backward take at their peak."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.GELU()) for _ in range(LAYERS))
    )
    x = torch.randn(ROWS, WIDTH)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    gc.collect()
    before = rss_bytes()
    with PeakRss() as peak:
        with cosmic.compress_activations(codec) if codec else nullcontext():
            loss = model(x).square().mean()
        loss.backward()
    return peak.bytes - before


def test_the_peak_of_memory_falls() -> None:
    """Of what is saved less than a third is left; a few tensors of a layer come and go besides."""
    tensor = 4 * ROWS * WIDTH
    with (
        pytest.MonkeyPatch.context() as patch,
        ProcessPoolExecutor(1, mp_context=get_context("spawn")) as worker,
    ):
        patch.setenv("MALLOC_MMAP_THRESHOLD_", "65536")  # what is freed is gone
        worker.submit(growth, "q8").result()  # libraries are read
        packed = worker.submit(growth, "q8").result()
        kept = worker.submit(growth, None).result()
    assert kept > 2 * LAYERS * tensor  # a layer's input and that of its GELU
    assert packed < (0.26 * 2 * LAYERS + 6) * tensor
