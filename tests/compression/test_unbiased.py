"""Compressed second moments do not drift: over thousands of steps they mean what exact ones do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cosmic import Cosmic
from cosmic.state.building import decoded_moments

BETA2 = 0.999
STEPS = 4000
SNAPSHOTS = (2000, 2500, 3000, 3500, 4000)

#: What a mean over all elements may be off. A codec whose levels lie a binade apart keeps a moment
#: whose own noise has a standard deviation of about 0.6 v (rounding adds (1 - beta2) v gap a step,
#: memory lasts 1 / (2 (1 - beta2)) steps), so that 65,536 elements leave 0.25 %, and several
#: snapshots less. Of the gradients' noise nothing is left: codecs of elements are held against the
#: exact average of the same gradients; of a matrix 65,536 elements over 2,000 steps leave 0.02 %.
BOUND = 0.01

Floats = NDArray[np.float32]


class Run(NamedTuple):
    """Of every codec, the mean of its snapshots relative to what they should be."""

    ratios: dict[str, Tensor]
    deviations: Tensor


def stationary_run(state_dtypes: tuple[str, ...], deviations: Tensor, *, exact: bool) -> Run:
    """One parameter a codec, all with the same normal gradients of these standard deviations.

    Args:
        exact: compare with the exact average, not with the variance.
    """
    params = {s: nn.Parameter(torch.zeros_like(deviations)) for s in state_dtypes}
    groups: list[dict[str, Any]] = [{"params": p, "state_dtype": s} for s, p in params.items()]
    optimizer = Cosmic(groups, betas=(0.9, BETA2), min_compress_size=0)
    generator = torch.Generator().manual_seed(1)
    gradient = torch.empty_like(deviations)
    average = torch.zeros(deviations.shape, dtype=torch.float64)
    sums = {s: torch.zeros(deviations.shape, dtype=torch.float64) for s in state_dtypes}
    for param in params.values():
        param.grad = gradient
    for step in range(1, STEPS + 1):
        torch.randn(deviations.shape, generator=generator, out=gradient)
        gradient.mul_(deviations)
        optimizer.step()
        if exact:
            average.mul_(BETA2).addcmul_(gradient, gradient, value=1 - BETA2)
        if step in SNAPSHOTS:
            truth = average if exact else deviations.double() ** 2 * (1 - BETA2**step)
            for group in optimizer.param_groups:
                param = params[group["state_dtype"]]
                moments = decoded_moments(param, optimizer.state[param], group)
                sums[group["state_dtype"]] += moments["exp_avg_sq"] / truth
    held = [info.rung for info in optimizer.tiers()]
    assert held == [f"tier2:{s}" for s in state_dtypes]
    return Run({s: total / len(SNAPSHOTS) for s, total in sums.items()}, deviations)


def powers_of_two(seed: int, spread: float, *shape: int) -> Tensor:
    """Log-uniform over ``spread`` binades around 1."""
    generator = torch.Generator().manual_seed(seed)
    return torch.exp2((torch.rand(shape, generator=generator) - 0.5) * spread)


# ---- codecs of elements ------------------------------------------------------------------------

OF_ELEMENTS = (
    "fp32+v4", "u4+v4", "u1+v4", "q8+q8", "u4+q8", "fp32+bf16", "ustate+v4", "fp32+vlog6",
    "ustate+vlog8", "costate+vlog8",
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Thousands of short steps: threads would wait for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def elements() -> Run:
    """Half of the blocks hold second moments over eight binades, half over two."""
    wide, narrow = powers_of_two(2, 4.0, 256, 128), powers_of_two(3, 1.0, 256, 128)
    return stationary_run(OF_ELEMENTS, torch.cat([wide, narrow]) * 1e-3, exact=True)


@pytest.mark.parametrize("state_dtype", OF_ELEMENTS)
def test_codecs_of_elements_mean_the_exact_average(state_dtype: str, elements: Run) -> None:
    assert elements.ratios[state_dtype].mean().item() == pytest.approx(1, abs=BOUND)


@pytest.mark.parametrize("state_dtype", OF_ELEMENTS)
def test_neither_small_nor_large_elements_of_a_block_drift(state_dtype: str, elements: Run) -> None:
    """A quarter of the wide blocks' elements, by size: an eighth of all, hence twice the bound and
    a half."""
    ratios = elements.ratios[state_dtype][:256].flatten()
    for quarter in elements.deviations[:256].flatten().argsort().chunk(4):
        assert ratios[quarter].mean().item() == pytest.approx(1, abs=2.5 * BOUND)


# ---- codecs of rows and columns ----------------------------------------------------------------

#: Rows and columns of 257 and 255, so that blocks of 128 end anywhere.
MATRIX = (257, 255)


def matrix_run(state_dtype: str, row_spread: float, column_spread: float) -> Tensor:
    rows = powers_of_two(4, row_spread, MATRIX[0], 1)
    columns = powers_of_two(5, column_spread, 1, MATRIX[1])
    return stationary_run((state_dtype,), rows * columns * 1e-3, exact=False).ratios[state_dtype]


@pytest.mark.parametrize(
    ("state_dtype", "row_spread", "column_spread"),
    [("fp32+factored", 4.0, 3.0), ("u4+rowmean", 5.0, 0.0), ("u1+colmean", 0.0, 5.0)],
)
def test_codecs_of_rows_and_columns_mean_the_variance(
    state_dtype: str, row_spread: float, column_spread: float
) -> None:
    """Of a row or a column, 255 elements over 2,000 steps leave 0.2 %; of the worst of 512, five
    standard deviations."""
    ratios = matrix_run(state_dtype, row_spread, column_spread)
    assert ratios.mean().item() == pytest.approx(1, abs=BOUND)
    for dim in (0, 1):
        assert (ratios.mean(dim) - 1).abs().max().item() < 2 * BOUND


# ---- the bound tells codecs apart --------------------------------------------------------------


def unbiased(v: Floats, random: Floats) -> Floats:
    """v4's arithmetic where levels are a binade apart: linear between two powers of two."""
    bits = v.view(np.uint32) + (random * 2.0**23).astype(np.uint32)
    return (bits & np.uint32(0xFF800000)).view(np.float32)


def to_the_nearest_logarithm(v: Floats, _: Floats) -> Floats:
    return np.exp2(np.rint(np.log2(v)))


def unbiased_in_the_logarithm(v: Floats, random: Floats) -> Floats:
    return np.exp2(np.floor(np.log2(v) + random))


def emulated(encode: Callable[[Floats, Floats], Floats]) -> float:
    """The mean ratio of a codec with a level a binade to the exact average of the same gradients,
    over the same steps as above."""
    rng = np.random.default_rng(6)
    deviations = np.exp2(rng.uniform(-2, 2, 16384)).astype(np.float32)
    first = np.square(deviations * rng.standard_normal(deviations.size, dtype=np.float32)) + 1e-6
    exact, v, ratios = first.astype(np.float64), first, []
    for step in range(2, STEPS + 1):
        square = np.square(deviations * rng.standard_normal(deviations.size, dtype=np.float32))
        exact += (1 - BETA2) * (square - exact)
        random = rng.random(deviations.size, dtype=np.float32)
        v = encode(v + np.float32(1 - BETA2) * (square - v), random)
        if step in SNAPSHOTS:
            ratios.append(float(np.mean(v / exact)))
    return float(np.mean(ratios))


EMULATED: dict[str, tuple[Any, bool]] = {
    "unbiased": (unbiased, True),
    "nearest-logarithm": (to_the_nearest_logarithm, False),
    "unbiased-in-the-logarithm": (unbiased_in_the_logarithm, False),
}


@pytest.mark.parametrize("codec", EMULATED)
def test_the_bound_would_catch_a_biased_codec(codec: str) -> None:
    encode, within = EMULATED[codec]
    assert (abs(emulated(encode) - 1) < BOUND) == within
