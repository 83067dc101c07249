"""The same bits for every ISA, thread count and split into groups, and over a save in between."""

from __future__ import annotations

import copy
import io
import pickle
import warnings
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from conftest import Runner
from cosmic import Cosmic, _core
from cosmic.presets import CASMO
from helpers import UNUSUAL, digest, normal, parameters, real_dtype_name
from trajectories import SPECIAL_VALUES

THREADS = (1, 2, 3, 7)

#: Odd sizes, and enough elements that seven threads have work: of a vector, and of matrices whose
#: work items begin within rows and which are tall and wide.
SHAPES = (
    (70001,),
    (257, 65),
    (4097,),
    (1,),
    (127,),
    (0, 3),
    (),
    (3, 41, 407),
    (16, 17, 129),
    (40, 1601),
)


def combination_options(name: str) -> dict[str, Any]:
    """From a row of the table of combinations, such as "float adam bf16 none fp32", to options. A
    sixth word names the sums that a codec or a gate asks for."""
    arithmetic, rule, m, m_slow, v, *probe = name.split()
    dtype = torch.float64 if arithmetic == "double" else torch.float32
    if rule == "sign":
        return {"dtype": dtype, "tier": 0}
    if rule == "rmsprop":
        return {"rung": f"tier1:{v}", "special": True, "min_compress_size": 0}
    slow = {} if m_slow == "none" else {"beta_slow": 0.99, "slow_warmup": 3}
    moments = {} if arithmetic == "double" else {"state_dtype": f"{m}+{v}", "min_compress_size": 0}
    gate = {"gate": "agar"} if rule == "belief" else {}
    kind = lagged_casmo() if probe == ["agar"] else {"tier": 2}
    return {"dtype": dtype, "special": True, **kind, **slow, **moments, **gate}


def lagged_casmo() -> dict[str, Any]:
    """Options of a scenario whose steps look at the moments; each tensor on its own, so that the
    split into groups makes no difference."""
    return {"optimizer": CASMO, "exact": False, "granularity": "parameter"}


#: Options by scenario; "dtype", "steps" and "special" are of the trajectory.
SCENARIOS: dict[str, dict[str, Any]] = {
    **{name: combination_options(name) for name in _core.combinations()},
    "casmo": {"optimizer": CASMO, "granularity": "parameter"},
    "ordinary": {"state_dtype": "u4+factored"},
    "tier1": {"tier": 1},
    "bfloat16": {"dtype": torch.bfloat16, "state_dtype": "bf16"},
    "bfloat16-tier0": {"dtype": torch.bfloat16, "tier": 0},
    "bfloat16-to-nearest": {
        "dtype": torch.bfloat16, "state_dtype": "u2+factored", "stochastic_rounding": False
    },
    "bfloat16-of-the-tensor": {"dtype": torch.bfloat16, "state_dtype": "ustate+vlog4"},
    "float16": {"dtype": torch.float16, "tier": 1},
    "complex64": {"dtype": torch.complex64, "state_dtype": "fp32"},
    "complex64-of-the-gradient": {"dtype": torch.complex64, "state_dtype": "costate+vlog3"},
    "complex64-compressed": {"dtype": torch.complex64, "state_dtype": "q8+factored"},
    "special-float16": {"special": True, "dtype": torch.float16, "state_dtype": "fp32"},
    "special-bfloat16": {"special": True, "dtype": torch.bfloat16, "state_dtype": "u4+v4"},
    "without-momentum": {"rung": "tier1:factored", "min_compress_size": 200},
    "without-momentum-bfloat16": {"rung": "tier1:rowmean", "dtype": torch.bfloat16},
    "without-momentum-complex64": {"rung": "tier1:v4", "dtype": torch.complex64},
    "without-momentum-gate": {"rung": "tier1:factored", "gate": "snr", "steps": 26},
    "gate": {"gate": "snr", "c_min": 0.2, "steps": 26, "state_dtype": "fp32"},
    "gate-compressed": {"gate": "snr", "c_min": 0.2, "steps": 26, "state_dtype": "u4+factored"},
    "gate-of-the-tensor": {"gate": "snr", "steps": 26, "state_dtype": "ustate+vlog6"},
    "gate-tier1-double": {"gate": "snr", "tier": 1, "dtype": torch.float64, "steps": 26},
    "budget": {
        "budget": "15%", "reallocate_every": 3, "steps": 10, "gate": "snr", "state_dtype": "fp32"
    },
    "budget-of-any-codec": {"budget": "7%", "reallocate_every": 3, "steps": 10, "gate": "snr"},
    "budget-by-signal": {"budget": "5%", "policy": "signal", "reallocate_every": 3, "steps": 10},
    "budget-compressed": {
        "budget": "4%", "reallocate_every": 3, "steps": 10, "state_dtype": "u2+factored"
    },
}  # fmt: skip


def make(scenario: str, split: int = 1) -> Cosmic:
    """The scenario's optimizer, its parameters dealt to ``split`` groups."""
    options = dict(SCENARIOS[scenario])
    dtype = options.pop("dtype", torch.float32)
    kind: type[Cosmic] = options.pop("optimizer", Cosmic)
    for key in ("steps", "special"):
        options.pop(key, None)
    params = parameters(*SHAPES, dtype=dtype)
    bounds = [len(params) * k // split for k in range(split + 1)]
    groups = [{"params": params[a:b]} for a, b in pairwise(bounds)]
    return kind(groups, **{**UNUSUAL, **options}, seed=99)


@cache
def gradient(index: int, step: int, dtype: torch.dtype, special: bool) -> Tensor | None:
    """The tensors have gradients of sizes of their own, which grow and shrink."""
    if (index + step) % 5 == 4:
        return None
    scale = 10.0 ** ((3 * index + step) % 4 - 3)
    g = normal(1000 * step + index, *SHAPES[index], dtype=dtype, scale=scale)
    if special and g.numel() > 100 and (index + step) % 2:
        values = torch.tensor(SPECIAL_VALUES, dtype=torch.float64).to(g.dtype)
        g.view(-1)[3 : 3 + len(values)] = values
    return g


def gradients(scenario: str, step: int) -> list[Tensor | None]:
    options = SCENARIOS[scenario]
    dtype, special = options.get("dtype", torch.float32), options.get("special", False)
    return [gradient(k, step, dtype, special) for k in range(len(SHAPES))]


def run(optimizer: Cosmic, scenario: str, first: int, last: int) -> Cosmic:
    params = [p for group in optimizer.param_groups for p in group["params"]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        for step in range(first, last):
            for p, g in zip(params, gradients(scenario, step), strict=True):
                p.grad = g
            optimizer.step()
    return optimizer


def steps_of(scenario: str) -> int:
    return int(SCENARIOS[scenario].get("steps", 4))


def fingerprint(scenario: str, threads: int, split: int = 1) -> str:
    """Parameters and state after the scenario's steps."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return digest(run(make(scenario, split), scenario, 0, steps_of(scenario)))
    finally:
        torch.set_num_threads(before)


@cache
def expected(scenario: str) -> str:
    return fingerprint(scenario, threads=1)


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_bits_depend_neither_on_isa_nor_on_threads(
    scenario: str, threads: int, on_isa: Runner
) -> None:
    assert on_isa(fingerprint, scenario, threads) == expected(scenario)


@pytest.mark.parametrize("split", [2, 7])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_bits_do_not_depend_on_the_split_into_groups(scenario: str, split: int) -> None:
    assert fingerprint(scenario, 2, split) == expected(scenario)


@pytest.mark.parametrize("name", _core.combinations())
def test_a_scenario_runs_its_combination(name: str) -> None:
    """What the tests above compare is what its name says."""
    _, rule, m, m_slow, v, *_ = name.split()
    rung = "tier0"
    if rule == "rmsprop":
        rung = f"tier1:{v}"
    elif rule == "adam":
        rung = f"tier2:{m}+{v}" + ("" if m_slow == "none" else "+slow")
    elif rule == "belief":
        rung = f"tier2:{m}+{v}+centered"
    held = {info.rung for info in run(make(name), name, 0, 2).tiers()}
    assert rung in held, held


@pytest.mark.parametrize(
    "scenario",
    [
        "ordinary",
        "float adam bf16 none bf16",
        "bfloat16-tier0",
        "gate",
        "budget",
        "budget-compressed",
    ],
)
def test_bits_depend_on_seed_and_gradient(scenario: str) -> None:
    """What the tests above compare does change when it should."""
    other_seed = make(scenario)
    other_seed.seed = 98
    other_gradient = make(scenario)
    run(other_gradient, scenario, 1, steps_of(scenario))
    found = {digest(run(other_seed, scenario, 0, steps_of(scenario))), digest(other_gradient)}
    stochastic = scenario != "gate"  # with fp32 state the seed has nothing to do
    assert len(found - {expected(scenario)}) == 1 + stochastic


# ---- a save, a copy or a pickle in mid-trajectory ----------------------------------------------


def by_state_dict(optimizer: Cosmic, scenario: str) -> Cosmic:
    """Through torch.save and torch.load(weights_only=True), into a new process's optimizer."""
    params = [p for group in optimizer.param_groups for p in group["params"]]
    file = io.BytesIO()
    torch.save({"params": params, "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    new = make(scenario, len(optimizer.param_groups))
    with torch.no_grad():
        for p, value in zip(
            (p for group in new.param_groups for p in group["params"]), saved["params"], strict=True
        ):
            p.copy_(value)
    new.load_state_dict(saved["optimizer"])
    return new


def by_deepcopy(optimizer: Cosmic, scenario: str) -> Cosmic:
    del scenario
    return copy.deepcopy(optimizer)


def by_pickle(optimizer: Cosmic, scenario: str) -> Cosmic:
    del scenario
    loaded = pickle.loads(pickle.dumps(optimizer))
    assert isinstance(loaded, Cosmic)
    return loaded


@pytest.mark.parametrize("way", [by_state_dict, by_deepcopy, by_pickle])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_copy_continues_with_the_same_bits(
    scenario: str, way: Callable[[Cosmic, str], Cosmic]
) -> None:
    last = steps_of(scenario)
    middle = last // 2
    original = run(make(scenario, split=3), scenario, 0, middle)
    copied = way(original, scenario)

    assert digest(copied) == digest(original)
    before = digest(original)
    assert digest(run(copied, scenario, middle, last)) == expected(scenario)
    assert digest(original) == before, "the copy shares memory with its original"


def test_a_copy_is_of_the_same_configuration() -> None:
    optimizer = make("budget")
    optimizer.nonfinite = "skip"
    for copied in (by_deepcopy(optimizer, ""), by_pickle(optimizer, "")):
        for name in ("budget", "policy", "nonfinite", "seed", "reallocate_every"):
            assert getattr(copied, name) == getattr(optimizer, name), name


# ---- the user's floating-point environment -----------------------------------------------------


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(
    ("dtype", "scale"),
    [
        (torch.float32, 1e-39), (torch.bfloat16, 1e-39), (torch.float16, 1e-6),
        (torch.float64, 1e-309),
    ],
    ids=lambda value: real_dtype_name(value) if isinstance(value, torch.dtype) else "",
)  # fmt: skip
@pytest.mark.parametrize("tier", [0, 1, 2])
def test_flushing_denormals_changes_no_bit(
    tier: int, dtype: torch.dtype, scale: float, threads: int, set_threads: Callable[[int], None]
) -> None:
    """torch.set_flush_denormal is per thread: without care threads would disagree."""

    def trajectory(flush: bool) -> tuple[str, bool]:
        param = nn.Parameter(normal(0, 40001, dtype=dtype, scale=scale))
        optimizer = Cosmic([param], lr=scale, tier=tier, weight_decay=0.1, betas=(0.8, 0.95))
        several = [normal(k, 40001, dtype=dtype, scale=scale) for k in (1, 2, 3)]
        torch.set_flush_denormal(flush)
        try:
            for param.grad in several:
                optimizer.step()
            still = bool(torch.tensor(1e-310, dtype=torch.float64).mul(1.0) == 0)
        finally:
            torch.set_flush_denormal(False)
        return digest(optimizer), still

    set_threads(threads)
    plain, flushed = trajectory(False), trajectory(True)
    assert plain[0] == flushed[0]
    assert (plain[1], flushed[1]) == (False, True), "the user's setting is left as it was"
