"""The preset's checkpoints: its own, torch.optim.Muon's, Cosmic's and AdamW's."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cosmic import Cosmic
from cosmic.presets import Muon
from helpers import digest, parameters, same_bits, take_steps, through_a_file
from matrix_runs import CODECS, SHAPES, go, muons, params_of


def copies(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [nn.Parameter(p.detach().clone()) for p in params_of(optimizer)]


@pytest.mark.parametrize("codec", CODECS)
def test_a_run_goes_on_with_the_same_bits_after_save_and_load(codec: str) -> None:
    options: dict[str, Any] = {"state_dtype": codec, "min_compress_size": 0, "lr": 0.01}
    through, broken = muons(**options), muons(**options)
    go(through, 0, 9)
    go(broken, 0, 5)
    resumed = Muon(copies(broken))  # whose options are the checkpoint's
    resumed.load_state_dict(through_a_file(broken.state_dict()))
    go(resumed, 5, 9)
    assert digest(resumed) == digest(through)
    assert {info.rung for info in resumed.tiers()} == {f"tier2:muon:{codec}"}


@pytest.mark.parametrize("way", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
def test_a_copy_goes_on_with_the_same_bits(way: Any) -> None:
    optimizer = muons(state_dtype="m4", min_compress_size=0)
    go(optimizer, 0, 3)
    twin = way(optimizer)
    go(optimizer, 3, 6)
    go(twin, 3, 6)
    assert digest(twin) == digest(optimizer)
    twin.add_param_group({"params": parameters((8, 9))})
    go(twin, 6, 7)
    assert len(twin.tiers()) == len(SHAPES) + 1


#: Of the way of five steps, as torch's iterations are in bfloat16.
NEAR = 0.02


def ways(start: list[Tensor], optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [p.detach() - s for p, s in zip(params_of(optimizer), start, strict=True)]


def same_way(ours: torch.optim.Optimizer, theirs: torch.optim.Optimizer) -> None:
    start = [p.detach().clone() for p in params_of(ours)]
    for param, twin in zip(start, params_of(theirs), strict=True):
        assert torch.equal(param, twin)
    go(ours, 5, 10)
    go(theirs, 5, 10)
    for mine, other in zip(ways(start, ours), ways(start, theirs), strict=True):
        assert float((mine - other).norm()) < NEAR * float(other.norm())


@pytest.mark.parametrize("state_dtype", ["fp32", "bf16"])
def test_torchs_checkpoint_is_taken_over_and_given_back(state_dtype: str) -> None:
    theirs = torch.optim.Muon(parameters(*SHAPES), lr=0.01, adjust_lr_fn="match_rms_adamw")
    go(theirs, 0, 5)
    ours = Muon(copies(theirs), state_dtype=state_dtype)
    ours.load_state_dict(through_a_file(theirs.state_dict()))
    assert ours.param_groups[0]["lr"] == 0.01
    assert ours.param_groups[0]["adjust_lr_fn"] == "match_rms_adamw"
    for mine, other in zip(params_of(ours), params_of(theirs), strict=True):
        momentum = ours.moments(mine).exp_avg
        assert momentum is not None
        assert same_bits(momentum, theirs.state[other]["momentum_buffer"])
    same_way(ours, theirs)
    assert {info.rung for info in ours.tiers()} == {f"tier2:muon:{state_dtype}"}

    again = torch.optim.Muon(copies(ours))
    again.load_state_dict(through_a_file(ours.to_muon_state_dict()))
    assert again.param_groups[0]["lr"] == 0.01
    same_way(ours, again)


@pytest.mark.parametrize("codec", CODECS)
def test_what_torch_is_given_is_the_decoded_momentum(codec: str) -> None:
    optimizer = muons(state_dtype=codec, min_compress_size=0)
    go(optimizer, 0, 3)
    given = optimizer.to_muon_state_dict()
    for index, param in enumerate(params_of(optimizer)):
        momentum = given["state"][index]["momentum_buffer"]
        held = optimizer.moments(param).exp_avg
        assert held is not None and momentum.dtype == torch.float32
        assert same_bits(momentum, held)
    theirs = torch.optim.Muon(copies(optimizer))
    theirs.load_state_dict(given)
    go(theirs, 3, 4)


def test_names_and_groups_go_both_ways() -> None:
    a, b = parameters((40, 70), (64, 64))
    ours = Muon([{"params": [("a", a)], "lr": 0.1}, {"params": [("b", b)], "ns_steps": 3}])
    go(ours, 0, 2)
    given = ours.to_muon_state_dict()
    assert [group["params"] for group in given["param_groups"]] == [[0], [1]]
    assert [group["param_names"] for group in given["param_groups"]] == [["a"], ["b"]]
    assert [group["lr"] for group in given["param_groups"]] == [0.1, 1e-3]
    assert [group["ns_steps"] for group in given["param_groups"]] == [5, 3]
    back = Muon([{"params": [("a", a)]}, {"params": [("b", b)]}])
    back.load_state_dict(given)
    assert back.param_groups[1]["ns_steps"] == 3
    assert torch.equal(back.state[a]["exp_avg"], ours.state[a]["exp_avg"])


def test_cosmic_takes_torchs_checkpoint_too() -> None:
    theirs = torch.optim.Muon(parameters(*SHAPES), lr=0.01, adjust_lr_fn="match_rms_adamw")
    go(theirs, 0, 5)
    ours = Cosmic(copies(theirs), matrix_rule="muon", rung="tier2:muon:fp32")
    ours.load_state_dict(through_a_file(theirs.state_dict()))
    same_way(ours, theirs)


def test_a_checkpoint_of_torchs_before_its_first_step() -> None:
    theirs = torch.optim.Muon(parameters(*SHAPES), lr=0.5)
    ours = muons()
    ours.load_state_dict(theirs.state_dict())
    assert ours.param_groups[0]["lr"] == 0.5
    assert muons().to_muon_state_dict()["state"] == {}
    go(ours, 0, 1)


@pytest.mark.parametrize(
    ("options", "named"), [({"maximize": True}, "maximize"), ({"ns_coefficients": None}, "None")]
)
def test_what_torchs_cannot_hold_is_refused(options: dict[str, Any], named: str) -> None:
    optimizer = muons(**options)
    go(optimizer, 0, 1)
    with pytest.raises(ValueError, match=named):
        optimizer.to_muon_state_dict()


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda s: s["state"][1].update(momentum_buffer=3.0), "momentum_buffer 3.0"),
        (lambda s: s["state"][1].update(momentum_buffer=torch.zeros(3, 4)), "shape"),
        (lambda s: s["param_groups"].append(dict(s["param_groups"][0])), "2 parameter groups"),
        (lambda s: s["param_groups"][0].update(adjust_lr_fn="mine"), "adjust_lr_fn"),
        (lambda s: s["state"].update({1: {"exp_avg": torch.zeros(90, 33)}}), "no rung"),
    ],
)
def test_a_checkpoint_of_torchs_that_does_not_fit_changes_nothing(spoil: Any, named: str) -> None:
    theirs = torch.optim.Muon(parameters(*SHAPES))
    go(theirs, 0, 2)
    saved = copy.deepcopy(theirs.state_dict())
    spoil(saved)
    optimizer = muons()
    go(optimizer, 0, 2)
    before, groups = digest(optimizer), copy.deepcopy(optimizer.param_groups)
    with pytest.raises(ValueError, match=named):
        optimizer.load_state_dict(saved)
    assert digest(optimizer) == before
    for group in groups:
        del group["params"]
    assert [{k: g[k] for k in groups[0]} for g in optimizer.param_groups] == groups


def test_a_run_of_cosmics_matrix_rule_goes_on_and_comes_back() -> None:
    cosmic = Cosmic(
        parameters(*SHAPES), matrix_rule="muon", matrix_state_dtype="m8", min_compress_size=0,
        rung="tier2:muon:m8",
    )  # fmt: skip
    go(cosmic, 0, 3)
    ours = Muon(copies(cosmic), state_dtype="m8", min_compress_size=0, ns_steps=3)
    ours.load_state_dict(cosmic.state_dict())
    assert ours.param_groups[0]["state_dtype"] == "m8"
    held = [cosmic.state[p]["exp_avg_m8_codes"] for p in params_of(cosmic)]
    for p, codes in zip(params_of(ours), held, strict=True):
        assert torch.equal(ours.state[p]["exp_avg_m8_codes"], codes)
    go(ours, 3, 5)
    assert {info.rung for info in ours.tiers()} == {"tier2:muon:m8"}


def test_the_first_of_adamws_moments_becomes_the_momentum() -> None:
    theirs = torch.optim.AdamW(parameters(*SHAPES), lr=0.01)
    take_steps(theirs, 0, 3)  # type: ignore[arg-type]
    ours = Muon(copies(theirs))
    ours.load_state_dict(theirs.state_dict())
    averages = [theirs.state[p]["exp_avg"].clone() for p in params_of(theirs)]
    for p in params_of(ours):
        p.grad = torch.zeros_like(p)
    ours.step()
    assert {info.rung for info in ours.tiers()} == {"tier2:muon:fp32"}
    for p, average in zip(params_of(ours), averages, strict=True):
        torch.testing.assert_close(ours.state[p]["exp_avg"], 0.95 * average, rtol=1e-6, atol=0)
