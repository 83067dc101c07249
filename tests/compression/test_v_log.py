"""``vlog2`` to ``vlog8``: second moments in logarithmic levels, beside TurboAdam's and beside exact
arithmetic."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cosmic import Cosmic, Rung, _core
from cosmic.rungs import Geometry
from cosmic.state.building import decoded_moments
from helpers import SIZES, UNUSUAL, normal, plane
from reference.codecs import LOGARITHMIC
from reference.packed import unpack

turboadam = pytest.importorskip("turboadam.quantize")

BITS = (2, 3, 4, 6, 8)
Floats = NDArray[np.float64]


class Packed(NamedTuple):
    """A second moment as the core keeps it: codes (blocks, 128), logarithms of the outer levels in
    half precision (blocks, 2), and what they decode to, flat."""

    codes: NDArray[np.int64]
    ends: Tensor
    decoded: Tensor

    def progression(self, bits: int) -> tuple[Floats, Floats]:
        """Logarithm of the first level and distance of two, (blocks, 1) each."""
        low, high = self.ends.double().numpy().T[:, :, None]
        return low, (high - low) / (2**bits - 1)


def packed(values: Tensor, bits: int, seed: int = 0, *, fresh: bool = False) -> Packed:
    """The values as the core encodes them; or state that nothing has been written to."""
    param, rung = torch.zeros(values.numel()), Rung(2, "fp32", "none", f"vlog{bits}")
    options = Cosmic([torch.zeros(1, requires_grad=True)], **UNUSUAL).param_groups[0]
    state: dict[str, Any] = {"step": torch.tensor(7)}
    for key, (_, dtype, count, _, _) in rung.planes(Geometry.of(param)).items():
        state[key] = torch.zeros(count, dtype=getattr(torch, dtype))
    plan = _core.Plan(seed)
    plan.add_row(param, "it", 0, 3, "adam", rung.m, "none", rung.v, "none", False, state)
    if not fresh:
        plan.write_moments(options, {"exp_avg": param, "exp_avg_sq": values.flatten()})
    decoded = {"exp_avg": torch.empty_like(param), "exp_avg_sq": torch.empty_like(param)}
    plan.read_moments(options, decoded)
    codes = unpack(state[f"exp_avg_sq_vlog{bits}_codes"].numpy(), bits)
    ends = state[f"exp_avg_sq_vlog{bits}_scale"].view(-1, 2)
    return Packed(codes, ends, decoded["exp_avg_sq"])


def blocks(seed: int, count: int, binades: float, middle: float = 1e-6) -> Tensor:
    """Log-uniform numbers, (count, 128)."""
    generator = torch.Generator().manual_seed(seed)
    spread = (torch.rand(count, 128, generator=generator, dtype=torch.float64) - 0.5) * binades
    return (middle * torch.exp2(spread)).float()


#: What blocks can be: wide, narrow, around 1, one number each, very small and large, with zeros.
VALUES = {
    "wide": blocks(1, 300, 40.0),
    "narrow": blocks(2, 300, 0.5),
    "around-1": blocks(3, 300, 3.0, 1.0),
    "near-1": blocks(4, 300, 1e-3, 1.0),
    "small": blocks(5, 300, 20.0, 1e-34),
    "large": blocks(6, 300, 20.0, 1e34),
    "equal": blocks(7, 300, 40.0)[:, :1].expand(300, 128),
    "zeros": blocks(8, 300, 9.0) * (torch.arange(128) % 3 > 0),
}


# ---- beside the package ------------------------------------------------------------------------


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("name", VALUES)
def test_ends_and_levels_are_the_packages(name: str, bits: int) -> None:
    """Ends, but where a logarithm is a half to within its last places. Numbers below 2^-126 count
    as that here, and as 1e-38 there."""
    values = VALUES[name].clamp_min(2.0**-126)
    ours = packed(VALUES[name], bits)
    _, ends = turboadam.quantize_logscale(values.flatten(), bits)
    other = (ours.ends != ends).sum().item()
    assert other <= 0.002 * ends.numel(), (other, ends.numel())

    codes = torch.from_numpy(ours.codes.astype(np.uint8)).flatten()
    theirs = turboadam.dequantize_logscale(
        turboadam.pack_nbit_indices(codes, bits), ours.ends, bits
    )
    # the argument of their exponential, up to 88, is rounded to 2^-18
    torch.testing.assert_close(ours.decoded, theirs, rtol=1e-5, atol=0)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("name", VALUES)
def test_numbers_go_to_the_levels_around_them(name: str, bits: int) -> None:
    """As the package's do; only a number that is within a thousandth of a level may go to the next
    one but one, when it is a hair under it."""
    values = VALUES[name].clamp_min(2.0**-126)
    ours = packed(VALUES[name], bits)
    low, distance = ours.progression(bits)
    place = (np.log(values.double().numpy()) - low) / np.where(distance > 0, distance, np.inf)
    hair = 1.1e-3 / np.where(distance > 0, distance, np.inf)
    top = 2**bits - 1
    assert (ours.codes >= np.clip(np.floor(place - hair), 0, top)).all()
    assert (ours.codes <= np.clip(np.ceil(place + hair), 0, top)).all()
    if name in ("wide", "small", "large", "zeros"):
        away = np.abs(place - np.rint(place)) > hair
        assert away.mean() > 0.5
        lower = np.clip(np.floor(place), 0, top - 1)
        assert np.isin((ours.codes - lower)[away], (0, 1)).all()


@pytest.mark.parametrize("bits", BITS)
def test_fresh_state_is_the_packages(bits: int) -> None:
    theirs = turboadam.initialize_v_state((300,), device=torch.device("cpu"), n_bits=bits)
    ours = packed(torch.zeros(300), bits, fresh=True)
    torch.testing.assert_close(
        ours.decoded, turboadam.decompress_v_state(theirs), rtol=1e-5, atol=0
    )
    assert (ours.decoded == ours.decoded[0]).all()


@pytest.mark.parametrize("bits", BITS)
def test_a_block_of_ones_is_no_fresh_block(bits: int) -> None:
    ours = packed(torch.ones(128), bits)
    assert ours.ends.view(torch.int16).tolist() == [[-(2**15), 0]]  # -0 and 0
    assert (ours.decoded == 1).all()


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("numel", [*SIZES, 256, 100_000])
def test_no_larger_than_the_packages(numel: int, bits: int) -> None:
    param = nn.Parameter(normal(0, numel))
    optimizer = Cosmic([param], state_dtype=f"fp32+vlog{bits}", min_compress_size=0)
    param.grad = normal(1, numel)
    optimizer.step()
    state = optimizer.state[param]
    codes, ends = plane(state, "exp_avg_sq"), plane(state, "exp_avg_sq", "scale")
    count = -(-numel // 128)
    assert (codes.dtype, codes.nbytes) == (torch.uint8, count * 16 * bits)
    assert (ends.dtype, ends.nbytes) == (torch.float16, count * 4)
    assert optimizer.state_bytes() == 8 + 8 + 4 * numel + codes.nbytes + ends.nbytes

    theirs = turboadam.initialize_v_state((numel,), device=torch.device("cpu"), n_bits=bits)
    assert codes.nbytes + ends.nbytes <= theirs["indices"].nbytes + theirs["scales"].nbytes


# ---- rounding ----------------------------------------------------------------------------------

SEEDS = 1500
#: Of a mean over seeds, in standard errors, 640 elements at once.
ERRORS = 5.5


def near_levels(bits: int, offset: float) -> Tensor:
    """Five blocks whose levels are known, every element but the outer ones a little beside one."""
    top = 2**bits - 1
    low, high = -20.0, -20.0 + 0.25 * top if bits <= 4 else -10.0
    rng = np.random.default_rng(bits)
    codes = rng.integers(1, top, (5, 128)) if top > 1 else np.ones((5, 128))
    logs = low + codes * ((high - low) / top) + offset
    logs[:, 0], logs[:, 1] = low + 1e-4, high - 1e-4  # inside, so that they are rounded to these
    return torch.from_numpy(np.exp(logs)).float()


def mean_and_error(values: Tensor, bits: int) -> tuple[Floats, Floats]:
    """Of what is decoded, over seeds: its mean less the value, and the largest standard error that
    rounding between the levels around the value can have; relative to the value, flat."""
    total = torch.zeros(values.numel(), dtype=torch.float64)
    for seed in range(SEEDS):
        result = packed(values, bits, seed)
        total += result.decoded
    exact = values.flatten().double()
    _, distance = result.progression(bits)
    gaps = np.repeat(np.expm1(distance), 128)
    off = ((total / SEEDS - exact) / exact).numpy()
    return off, gaps / 2 / math.sqrt(SEEDS)


def held_unbiased(off: Floats, error: Floats) -> None:
    assert (np.abs(off) / error).max() < ERRORS
    assert abs((off / error).mean()) < ERRORS / math.sqrt(len(off) / 128)


#: Binades of a block such that levels lie about one apart, as far as floats reach.
WIDE = {2: 4.0, 3: 8.0, 4: 16.0, 6: 64.0, 8: 64.0}


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("part", [1.0, 0.1])
def test_rounding_is_unbiased(bits: int, part: float) -> None:
    held_unbiased(*mean_and_error(blocks(10, 5, part * WIDE[bits]), bits))


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("offset", [-5e-4, -1e-6, 1e-6, 5e-4])
def test_rounding_beside_a_level_is_unbiased(bits: int, offset: float) -> None:
    held_unbiased(*mean_and_error(near_levels(bits, offset), bits))


@pytest.mark.parametrize("bits", [2, 3, 4, 6])
def test_the_errors_would_catch_what_is_unbiased_in_the_logarithm(bits: int) -> None:
    values = blocks(10, 5, WIDE[bits])
    low, distance = packed(values, bits).progression(bits)
    place = (np.log(values.double().numpy()) - low) / distance
    rng = np.random.default_rng(0)
    total = np.zeros(values.shape)
    for _ in range(SEEDS):
        total += np.exp(low + np.floor(place + rng.random(values.shape)) * distance)
    off = (total / SEEDS / values.double().numpy() - 1).flatten()
    with pytest.raises(AssertionError):
        held_unbiased(off, np.repeat(np.expm1(distance), 128) / 2 / math.sqrt(SEEDS))


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("name", ["wide", "narrow", "around-1", "near-1", "large"])
def test_a_place_between_two_levels_is_the_mean_right_one(name: str, bits: int) -> None:
    """What rounding means is the number, to 1e-6 of it and the last place of a float place: also a
    hair under a level, where numbers of an average are most of the time, and where the guess at
    their level is too high."""
    ends, codec = VALUES[name].numpy(), LOGARITHMIC[f"vlog{bits}"]
    first, step, high = codec._ends(codec._words(ends))
    distance = step.coarse.astype(np.float64) + step.fine
    levels = np.exp2((first.coarse.astype(np.float64) + first.fine) + distance * np.arange(2**bits))
    rng = np.random.default_rng(bits)
    above = rng.integers(1, 2**bits, ends.shape)
    beside = np.exp(rng.choice([-2e-3, -1e-3, -5e-4, -1e-4, 1e-4], ends.shape))
    beside[:, ::4] = np.exp2(-distance * rng.random(beside[:, ::4].shape))  # anywhere
    numbers = np.take_along_axis(levels, above, 1) * beside
    values = np.clip(numbers, levels[:, :1], levels[:, -1:]).astype(np.float32)

    places = codec._places(values, first, step, high).astype(np.float64)
    below = np.minimum(places.astype(np.int64), 2**bits - 2)
    lower, upper = (np.take_along_axis(levels, below + k, 1) for k in (0, 1))
    mean = lower + (places - below) * (upper - lower)
    last_place = 2.0 ** (bits - 23) * np.expm1(distance * math.log(2))
    assert (np.abs(mean / values - 1) < 1e-6 + last_place).all()


# ---- steps -------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")], ids=str)
@pytest.mark.parametrize("bits", BITS)
def test_a_bad_gradient_spoils_its_own_element_only(bits: int, bad: float) -> None:
    """The element's second moment stays what it was, between the levels that its block now has;
    its neighbours are those of a run whose gradient there was harmless."""
    clean, spoiled = nn.Parameter(normal(0, 300)), nn.Parameter(normal(0, 300))
    optimizers = [
        Cosmic([p], **UNUSUAL, state_dtype=f"fp32+vlog{bits}", min_compress_size=0)
        for p in (clean, spoiled)
    ]
    for step in range(4):
        gradient = normal(10 + step, 300)
        clean.grad, spoiled.grad = gradient.clone(), gradient.clone()
        if step == 2:
            spoiled.grad[129] = bad
        for optimizer in optimizers:
            optimizer.step()
        if step == 2:
            moments = decoded_moments(
                spoiled, optimizers[1].state[spoiled], optimizers[1].param_groups[0]
            )
            assert moments["exp_avg_sq"].isfinite().all()
    others = torch.arange(300) != 129
    assert spoiled[others].isfinite().all() and not spoiled[129].isfinite()
    # blocks 0 and 2 do not know of it
    assert torch.equal(clean[:128], spoiled[:128]) and torch.equal(clean[256:], spoiled[256:])
    ends = plane(optimizers[1].state[spoiled], "exp_avg_sq", "scale")
    assert ends.isfinite().all()


BETA2, STEPS = 0.999, 3000


class Ratio(NamedTuple):
    """Of a mean over all elements to the exact average's."""

    mean: float
    error: float  # its standard error; elements of a block share random bits and levels

    @classmethod
    def of(cls, average: Tensor, exact: Tensor) -> Ratio:
        by_block = (average / exact).mean(1)
        return cls(by_block.mean().item(), by_block.std().item() / math.sqrt(len(by_block)))


@pytest.fixture(scope="module")
def averages() -> dict[str, Ratio]:
    """Averages over thousands of steps in every codec, and in the package's of 4 bits; 512 blocks
    of variances over three binades."""
    deviations = blocks(20, 512, 1.5, 1e-3)
    generator = torch.Generator().manual_seed(1)
    params = {f"vlog{bits}": nn.Parameter(torch.zeros_like(deviations)) for bits in BITS}
    groups = [{"params": p, "state_dtype": f"fp32+{name}"} for name, p in params.items()]
    optimizer = Cosmic(groups, betas=(0.9, BETA2), min_compress_size=0)
    theirs = turboadam.initialize_v_state(deviations.shape, device=deviations.device, n_bits=4)
    exact = torch.full(deviations.shape, 1e-30, dtype=torch.float64)
    gradient = torch.empty_like(deviations)
    for param in params.values():
        param.grad = gradient
    for step in range(STEPS):
        torch.randn(deviations.shape, generator=generator, out=gradient)
        gradient.mul_(deviations)
        optimizer.step()
        _, last = turboadam.update_v_state(theirs, gradient, BETA2, seed=step)
        exact.mul_(BETA2).addcmul_(gradient.double(), gradient.double(), value=1 - BETA2)
    found = {"theirs": Ratio.of(last, exact)}
    for group, (name, param) in zip(optimizer.param_groups, params.items(), strict=True):
        moments = decoded_moments(param, optimizer.state[param], group)
        found[name] = Ratio.of(moments["exp_avg_sq"], exact)
    return found


#: Standard errors that the averages have at most: noise of rounding between levels far apart.
NOISE = {"vlog2": 0.025, "vlog3": 0.01, "vlog4": 0.006, "vlog6": 0.002, "vlog8": 0.0005}


@pytest.mark.parametrize("name", NOISE)
def test_an_average_over_thousands_of_steps_does_not_drift(
    name: str, averages: dict[str, Ratio]
) -> None:
    """What is unbiased in the logarithm, with levels 0.3 apart as those of 4 bits are here, would
    be 7 % too high."""
    assert averages[name].error < NOISE[name]
    assert abs(averages[name].mean - 1) < 4 * averages[name].error


def test_an_average_is_as_near_to_the_exact_one_as_the_packages(
    averages: dict[str, Ratio],
) -> None:
    ours, theirs = averages["vlog4"], averages["theirs"]
    assert abs(ours.mean - 1) < abs(theirs.mean - 1) + 3 * math.hypot(ours.error, theirs.error)
    assert ours.error < 1.3 * theirs.error
