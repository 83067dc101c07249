"""The same bits for every ISA, thread count and split into groups, and over a save in between."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import nn

from conftest import Runner
from cosmic import Cosmic, _core
from helpers import digest, normal, real_dtype_name
from scenarios import SCENARIOS, by_state_dict, make, run, steps_of

#: What is expected is of one thread; two are those of the test of groups.
THREADS = (3, 7)


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
    elif rule in ("belief", "softsign", "tiger"):
        rung = f"tier2:{m}+{v}+" + {"belief": "centered"}.get(rule, rule)
    elif rule == "muon":
        rung = f"tier2:muon:{m}"
    elif rule == "muon_gradient":
        rung = "tier1:muon"
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


def by_deepcopy(optimizer: Cosmic, scenario: str) -> Cosmic:
    del scenario
    return copy.deepcopy(optimizer)


def by_pickle(optimizer: Cosmic, scenario: str) -> Cosmic:
    del scenario
    loaded = pickle.loads(pickle.dumps(optimizer))
    assert isinstance(loaded, Cosmic)
    return loaded


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_copy_continues_with_the_same_bits(scenario: str) -> None:
    last = steps_of(scenario)
    middle = last // 2
    original = run(make(scenario, split=3), scenario, 0, middle)
    before = digest(original)
    for way in (by_state_dict, by_deepcopy, by_pickle):
        copied = way(original, scenario)
        assert digest(copied) == before, way.__name__
        assert digest(run(copied, scenario, middle, last)) == expected(scenario), way.__name__
        assert digest(original) == before, f"{way.__name__}: it shares memory with its original"


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
