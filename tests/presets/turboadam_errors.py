"""What TurboAdam's codecs lose of exact moments: the preset's, the package's and wrong ones'."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from cosmic.presets import TurboAdam
from helpers import normal
from turboadam_packages import release_0_2_0

STEPS = 30
BETA1, BETA2, EPS = 0.9, 0.999, 1e-8
BLOCK, MEAN_BLOCK, FACTOR = 128, 64, 1.1

#: Of an error's distribution, beside mean and root mean square.
QUANTILES = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95], dtype=torch.float64)


def gradients(numel: int, seed: int) -> list[Tensor]:
    """Elements differ by an order of magnitude; 64 neighbours have a mean in common, half of their
    own spread; in the middle of the run all grow threefold."""
    sizes = 1e-3 * torch.exp(normal(seed, numel, scale=0.7))
    common = normal(seed + 1, -(-numel // MEAN_BLOCK), scale=0.5)
    common = common.repeat_interleave(MEAN_BLOCK)[:numel]
    return [
        sizes * (normal(1000 * seed + t, numel) + common) * (3 if t >= STEPS // 2 else 1)
        for t in range(STEPS)
    ]


def exact_moments(given: list[Tensor]) -> tuple[Tensor, Tensor]:
    m = torch.zeros(given[0].shape, dtype=torch.float64)
    v = torch.zeros_like(m)
    for g in given:
        m.mul_(BETA1).add_(g, alpha=1 - BETA1)
        v.mul_(BETA2).addcmul_(g.double(), g.double(), value=1 - BETA2)
    return m, v


@dataclass
class Run:
    """Decoded moments after the last step, and the tensor's steps between codes after every one:
    those that the codes were made with and those for the next."""

    m: Tensor
    v: Tensor
    steps: list[tuple[float, float]] = field(default_factory=list)


def preset_run(given: list[Tensor], v_bits: int, seed: int) -> Run:
    param = nn.Parameter(torch.zeros_like(given[0]))
    optimizer = TurboAdam(
        [param], betas=(BETA1, BETA2), eps=EPS, v_bits=v_bits, rounding_seed=seed,
        min_m_compress_elements=0, min_v_compress_elements=0,
    )  # fmt: skip
    steps = []
    for param.grad in given:
        optimizer.step()
        decode_step, encode_step = optimizer.state[param]["exp_avg_ustate_steps"].tolist()
        steps.append((decode_step, encode_step))
    moments = optimizer.to_adamw_state_dict()["state"][0]
    return Run(moments["exp_avg"], moments["exp_avg_sq"], steps)


def package_run(given: list[Tensor], v_bits: int, seed: int) -> Run:
    package = release_0_2_0()
    param = nn.Parameter(torch.zeros_like(given[0]))
    optimizer = package.TurboAdam(
        [param], betas=(BETA1, BETA2), eps=EPS, v_bits=v_bits, rounding_seed=seed,
        min_m_compress_elements=0, min_v_compress_elements=0,
    )  # fmt: skip
    steps = []
    for param.grad in given:
        optimizer.step()
        held = optimizer.state[param]["ustate"]
        steps.append((held["decode_step"].item(), held["encode_step"].item()))
    v = package.quantize.decompress_v_state(optimizer.state[param]["v_state"])
    m = package.ustate.reconstruct_first_moment(held, v, len(given), BETA1, BETA2, EPS)
    return Run(m, v, steps)


# ---- wrong codecs, of the package's own parts --------------------------------------------------

Keep = Callable[[dict[str, Any], Tensor, int], None]


def keep_unbiased(state: dict[str, Any], v: Tensor, seed: int) -> None:
    release_0_2_0().quantize.recompress_v_state(state, v, seed=seed)


def keep_unbiased_in_the_logarithm(state: dict[str, Any], v: Tensor, seed: int) -> None:
    """Between two levels by the place of the logarithm, not of the number."""
    quantize = release_0_2_0().quantize
    logs = torch.full((-(-v.numel() // BLOCK), BLOCK), math.nan)
    logs.view(-1)[: v.numel()] = v.clamp_min(1e-38).log()
    logs = torch.where(logs.isnan(), logs[:, :1], logs)
    ends = quantize._outward_fp16_log_scales(logs.amin(1), logs.amax(1))
    low, high = ends.float().unsqueeze(2).unbind(1)
    top = (1 << state["n_bits"]) - 1
    places = (logs - low) / ((high - low) / top).clamp_min(1e-10)
    random = quantize.counter_uniform(places.numel(), seed, device=v.device).view_as(places)
    codes = (places + random).floor().clamp(0, top).to(torch.uint8)
    state["indices"].copy_(quantize.pack_nbit_indices(codes.view(-1), state["n_bits"]))
    state["scales"].copy_(ends)


def keep_to_nearest(state: dict[str, Any], v: Tensor, seed: int) -> None:
    padded = torch.cat([v, v[-1:].expand(-v.numel() % BLOCK)])
    release_0_2_0().quantize.quantize_logscale(
        padded, state["n_bits"], out_indices=state["indices"], out_scales=state["scales"]
    )


def without_means(held: dict[str, Any], anew: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    kept = anew()
    kept["means"].zero_()
    return kept


def not_lagged(held: dict[str, Any], anew: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """By the root mean square of this step's own units."""
    before = {key: x.clone() if isinstance(x, Tensor) else x for key, x in held.items()}
    following = anew()["encode_step"].clone()
    held.update(before)
    held["encode_step"] = following
    return anew()


#: Options of ``emulated_run``: what each of them does otherwise than the package.
WRONG: dict[str, dict[str, Any]] = {
    "without-means": {"keep_m": without_means},
    "scale-not-lagged": {"keep_m": not_lagged},
    "half-the-step": {"factor": FACTOR / 2},
    "units-of-the-exact-second-moment": {"units_of_exact": True},
    "unbiased-in-the-logarithm": {"keep_v": keep_unbiased_in_the_logarithm},
    "nearest-logarithm": {"keep_v": keep_to_nearest},
}


def emulated_run(
    given: list[Tensor],
    v_bits: int,
    seed: int,
    *,
    keep_v: Keep = keep_unbiased,
    keep_m: Callable[..., Any] | None = None,
    factor: float = FACTOR,
    units_of_exact: bool = False,
) -> Run:
    """The package's step, put together anew of its functions; without options it is the package."""
    package, numel = release_0_2_0(), given[0].numel()
    ustate, quantize = package.ustate, package.quantize
    cpu = torch.device("cpu")
    held = ustate.initialize_ustate(numel, device=cpu, step_factor=factor)
    state = quantize.initialize_v_state((numel,), device=cpu, n_bits=v_bits)
    steps = []
    for t, g in enumerate(given, start=1):
        v = quantize.decompress_v_state(state)
        m = ustate.reconstruct_first_moment(held, v, t - 1, BETA1, BETA2, EPS)
        m.lerp_(g, 1 - BETA1)
        v.mul_(BETA2).addcmul_(g, g, value=1 - BETA2)
        m_seed, v_seed = (package.TurboAdam._seed_for(seed, t, 0, 0, k) for k in (1, 2))
        keep_v(state, v, v_seed)
        kept = v if units_of_exact else quantize.decompress_v_state(state)

        anew = partial(
            ustate.encode_first_moment, m, kept, t, BETA1, BETA2, EPS, seed=m_seed,
            step_factor=factor, out=held,
        )  # fmt: skip
        held = keep_m(held, anew) if keep_m else anew()
        steps.append((held["decode_step"].item(), held["encode_step"].item()))
    v = quantize.decompress_v_state(state)
    m = ustate.reconstruct_first_moment(held, v, len(given), BETA1, BETA2, EPS)
    return Run(m, v, steps)


# ---- statistics --------------------------------------------------------------------------------

#: Names of what ``statistics`` gives, in order.
NAMES = [
    *(f"m {of}" for of in ("mean", "shrinkage", "rms", *QUANTILES.tolist())),
    *(f"v {of}" for of in ("mean", "mean log", "rms log", *QUANTILES.tolist())),
]


def statistics(run: Run, m: Tensor, v: Tensor) -> Tensor:
    """Of the first moment's error in units of the update; of the second's as a ratio."""
    units = (v / (1 - BETA2**STEPS)).sqrt() + EPS
    off = (run.m - m) / units / (1 - BETA1**STEPS)
    ratio = run.v / v
    logs = ratio.log()
    of_m = [off.mean(), (off * m.sign()).mean(), off.square().mean().sqrt()]
    of_v = [ratio.mean(), logs.mean(), logs.square().mean().sqrt()]
    return torch.cat(
        [torch.stack(of_m), off.quantile(QUANTILES), torch.stack(of_v), logs.quantile(QUANTILES)]
    )
