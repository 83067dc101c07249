"""Steps hold no memory: nothing that grows with time, nothing the size of a parameter.

Every measurement is made in another process, and beside each is one that must be noticed.
"""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, NamedTuple, TypeVar

import pytest
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from cosmic import Cosmic
from cosmic.train.memory import PeakRss, rss_bytes
from helpers import give_gradients, parameters

T = TypeVar("T")

#: 69 MB in float32; in bf16 more than the 32 MB from which the C library always asks the system,
#: so that what is freed is gone.
SHAPE = (4097, 4223)
MEGABYTE = 2**20

#: What a step may take: huge pages, counters of the kernel that run behind. A parameter is 66 times
#: as much, in bf16 33 times.
SMALL = 1 * MEGABYTE


def in_its_own_process(function: Callable[..., T], *arguments: Any) -> T:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as worker:
        return worker.submit(function, *arguments).result()


@pytest.fixture(scope="module")
def worker() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
        yield executor


# ---- the size of a parameter -------------------------------------------------------------------


class Growth(NamedTuple):
    """Bytes by which the peak of resident memory rose above what was resident before."""

    first: int
    later: int
    state: int  # by state_bytes()


def big_parameter(dtype: torch.dtype, layout: str) -> nn.Parameter:
    """With a gradient, both touched."""
    shape = SHAPE[::-1] if layout == "transposed" else SHAPE
    value, gradient = torch.full(shape, 0.5, dtype=dtype), torch.full(shape, 0.25, dtype=dtype)
    if layout == "transposed":
        value = value.t()
        gradient = gradient.t()
    if layout == "gradient-transposed":
        gradient = torch.full(SHAPE[::-1], 0.25, dtype=dtype).t()
    param = nn.Parameter(value)
    param.grad = gradient
    return param


def grown(work: Callable[[], object]) -> int:
    gc.collect()
    before = rss_bytes()
    with PeakRss() as peak:
        work()
    return peak.bytes - before


def allocate_a_copy(optimizer: Any, *_: Any) -> None:
    for param in optimizer.param_groups[0]["params"]:
        param.detach().clone()


def growth_of(options: dict[str, Any], dtype: torch.dtype, layout: str, copies: bool) -> Growth:
    """The first step's growth and that of three more."""
    warm = [nn.Parameter(torch.ones(300, 300, dtype=dtype))]
    give_gradients(warm, 0)
    Cosmic(warm, **options).step()  # OpenMP's threads, torch's own laziness
    rss_bytes()
    param = big_parameter(dtype, layout)
    optimizer = Cosmic([param], **options)
    if copies:
        optimizer.register_step_post_hook(allocate_a_copy)
    first = grown(optimizer.step)
    later = grown(lambda: [optimizer.step() for _ in range(3)])
    return Growth(first, later, optimizer.state_bytes())


FP32, BF16 = torch.float32, torch.bfloat16
FAMILIES: dict[str, tuple[dict[str, Any], torch.dtype, str]] = {
    "fp32": ({"state_dtype": "fp32"}, FP32, "contiguous"),
    "bf16": ({"state_dtype": "bf16"}, FP32, "contiguous"),
    "q8+q8": ({"state_dtype": "q8"}, FP32, "contiguous"),
    "u4+v4": ({"state_dtype": "u4+v4"}, FP32, "contiguous"),
    "u4+factored": ({"state_dtype": "u4+factored"}, FP32, "contiguous"),
    "u2+rowmean": ({"state_dtype": "u2+rowmean"}, FP32, "contiguous"),
    "u1+factored": ({"state_dtype": "u1+factored"}, FP32, "contiguous"),
    "tier0": ({"tier": 0}, FP32, "contiguous"),
    "u4+v4+slow": ({"state_dtype": "u4+v4", "beta_slow": 0.99}, FP32, "contiguous"),
    "u4+factored-skip": ({"state_dtype": "u4+factored", "nonfinite": "skip"}, FP32, "contiguous"),
    "u4+v4-gate": ({"state_dtype": "u4+v4", "gate": "snr"}, FP32, "contiguous"),
    "bf16-params": ({"state_dtype": "u4+factored"}, BF16, "contiguous"),
    "transposed": ({"state_dtype": "u4+factored"}, FP32, "transposed"),
    "gradient-transposed": ({"state_dtype": "u4+v4"}, FP32, "gradient-transposed"),
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_no_step_makes_a_temporary_the_size_of_a_parameter(
    family: str, worker: ProcessPoolExecutor
) -> None:
    """The first makes the state, and for rows and columns their sums."""
    growth = worker.submit(growth_of, *FAMILIES[family], False).result()
    assert growth.later < SMALL
    assert growth.first < growth.state + 4 * SMALL


def test_the_measure_would_catch_a_temporary(worker: ProcessPoolExecutor) -> None:
    growth = worker.submit(growth_of, *FAMILIES["u4+factored"], True).result()
    size = 4 * SHAPE[0] * SHAPE[1]
    assert growth.later > 0.9 * size
    assert growth.first > 0.9 * size


# ---- a thousand steps --------------------------------------------------------------------------

MODEL = ((129, 127), (511,), (7,), (1,), (64, 64), (8, 4, 3, 3))
RUNS: dict[str, dict[str, Any]] = {
    "u4+factored": {"min_compress_size": 0, "state_dtype": "u4+factored", "beta_slow": 0.99},
    "q8-skip-gate": {"state_dtype": "q8", "nonfinite": "skip", "gate": "snr"},
    "budget": {"budget": "30%", "reallocate_every": 25, "state_dtype": "u4+v4"},
}


class Held(NamedTuple):
    """What a thousand steps left behind."""

    resident: int
    python: int  # bytes
    objects: int  # that the collector knows


def held_after(steps: int, options: dict[str, Any], dtype: torch.dtype, leak: int) -> Held:
    """After a warm-up; ``leak``: bytes that a hook keeps at every step."""
    torch.set_num_threads(1)
    params = parameters(*MODEL, dtype=dtype)
    optimizer = Cosmic(params, **options)
    kept: list[list[bytes]] = []
    if leak:
        optimizer.register_step_post_hook(lambda *_: kept.append([bytes([1]) * leak]))

    def run(count: int) -> None:
        for step in range(count):
            generator = torch.Generator().manual_seed(step % 10)
            for p in params:
                p.grad = torch.randn(p.shape, generator=generator, dtype=dtype)
            optimizer.step()

    def now() -> Held:
        gc.collect()
        return Held(rss_bytes(), tracemalloc.get_traced_memory()[0], len(gc.get_objects()))

    tracemalloc.start()
    run(150)
    now()
    before = now()
    run(steps)
    after = now()
    return Held(*(b - a for a, b in zip(before, after, strict=True)))


@pytest.mark.parametrize(
    ("run", "dtype"), [("u4+factored", BF16), ("q8-skip-gate", FP32), ("budget", FP32)], ids=str
)
def test_a_thousand_steps_leave_nothing_behind(run: str, dtype: torch.dtype) -> None:
    """Python's own bookkeeping is a few objects and 10 to 30 kB, however many steps."""
    held = in_its_own_process(held_after, 1000, RUNS[run], dtype, 0)
    assert held.resident < MEGABYTE
    assert held.python < 40_000
    assert held.objects < 50


def test_the_count_would_catch_a_leak() -> None:
    held = in_its_own_process(held_after, 1000, RUNS["q8-skip-gate"], FP32, 4000)
    assert held.resident > MEGABYTE
    assert held.python > 4_000_000
    assert held.objects >= 1000


# ---- torch's allocator -------------------------------------------------------------------------


def torch_allocations(work: Callable[[], object]) -> int:
    """Allocations that torch's CPU allocator made."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        work()
    return sum(
        event.name() == "[memory]" and event.nbytes() > 0
        for event in recorded.profiler.kineto_results.events()
    )


@pytest.mark.parametrize("dtype", [FP32, BF16], ids=str)
@pytest.mark.parametrize("run", RUNS)
def test_a_step_asks_torch_for_no_memory(run: str, dtype: torch.dtype) -> None:
    params = parameters(*MODEL, dtype=dtype)
    optimizer = Cosmic(params, **{**RUNS[run], "reallocate_every": 1000})
    give_gradients(params, 0)
    optimizer.step()

    def more() -> None:
        for _ in range(3):
            optimizer.step()

    assert torch_allocations(more) == 0


def test_the_profiler_would_see_an_allocation() -> None:
    def more() -> Tensor:
        return torch.zeros(300) + 1

    assert torch_allocations(more) > 0
