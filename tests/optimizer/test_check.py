"""What ``check`` says of tensors and of the last step, and that it changes nothing."""

from __future__ import annotations

import copy
import hashlib
import math
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cosmic import Cosmic
from cosmic.check import Check, GroupCheck
from cosmic.presets import TurboAdam
from helpers import bits, digest, give_gradients, parameter, take_steps


def made(**options: Any) -> Cosmic:
    named = [
        ("table", parameter(0, 64, 65)), ("vector", parameter(1, 33)), ("other", parameter(2, 8, 8))
    ]  # fmt: skip
    groups: list[dict[str, Any]] = [{"params": named[:2]}, {"params": named[2:], "lr_scale": 0.5}]
    return Cosmic(groups, **{"lr": 0.1, "betas": (0.8, 0.95), **options})


def norm(*tensors: Tensor) -> float:
    return math.sqrt(sum(float(t.detach().double().square().sum()) for t in tensors))


def everything(optimizer: Cosmic) -> str:
    """Parameters, state, gradients, what is saved, what the next checkpoint says, random state."""
    found = hashlib.sha256(digest(optimizer).encode())
    for group in optimizer.param_groups:
        for param in group["params"]:
            found.update(repr((param._version, param.grad is None)).encode())
            if param.grad is not None:
                found.update(bits(param.grad).numpy().tobytes())
        found.update(repr([(k, v) for k, v in group.items() if k != "params"]).encode())
    found.update(repr((optimizer.state_dict()["cosmic"], optimizer.tiers())).encode())
    found.update(repr((optimizer.stats(), len(optimizer.state))).encode())
    found.update(torch.get_rng_state().numpy().tobytes())
    return found.hexdigest()


def test_numbers_are_those_of_the_tensors_and_of_the_step() -> None:
    optimizer = made(state_dtype="fp32", gate="snr")
    take_steps(optimizer, 0, 25)
    params = [p for group in optimizer.param_groups for p in group["params"]]
    before = [p.detach().clone() for p in params]
    take_steps(optimizer, 25, 26)
    moved = [p.detach() - old for p, old in zip(params, before, strict=True)]
    moments = [optimizer.moments(p).exp_avg for p in params]
    assert all(m is not None for m in moments)
    gates = optimizer.gate_factors()
    first, second = optimizer.check()
    assert (first.group, first.tensors, first.numel) == (0, 2, 64 * 65 + 33)
    assert first.param_norm == pytest.approx(norm(*params[:2]))
    assert first.momentum_norm == pytest.approx(norm(*moments[:2]))  # type: ignore[arg-type]
    assert first.update_norm == pytest.approx(norm(*moved[:2]) / 0.1, rel=1e-4)
    assert first.relative_step == pytest.approx(norm(*moved[:2]) / norm(*params[:2]), rel=1e-4)
    assert second.relative_step == pytest.approx(norm(moved[2]) / norm(params[2]), rel=1e-4)
    assert second.update_norm == pytest.approx(norm(moved[2]) / 0.05, rel=1e-4)
    assert second.effective_lr == pytest.approx(0.05 * gates["other"])
    assert (first.gate_min, first.gate_max) == (
        min(gates["table"], gates["vector"]), max(gates["table"], gates["vector"])
    )  # fmt: skip
    mean = (64 * 65 * gates["table"] + 33 * gates["vector"]) / first.numel
    assert first.gate_mean == pytest.approx(mean)
    assert first.effective_lr == pytest.approx(0.1 * mean)
    assert 0 < mean < 1


@pytest.mark.parametrize("steps", [0, 3])
@pytest.mark.parametrize(
    "options",
    [
        {}, {"state_dtype": "q8"}, {"tier": 0}, {"rung": "tier1:factored"}, {"gate": "agar"},
        {"budget": "20%", "reallocate_every": 2}, {"matrix_rule": "muon"},
    ],
    ids=lambda options: "-".join(options) or "default",
)  # fmt: skip
def test_nothing_changes(options: dict[str, Any], steps: int) -> None:
    optimizer, twin = made(**options), made(**options)
    for one in (optimizer, twin):
        take_steps(one, 0, steps)
    before = everything(optimizer)
    str(optimizer.check())
    assert everything(optimizer) == before
    take_steps(optimizer, steps, steps + 3)
    take_steps(twin, steps, steps + 3)
    assert everything(optimizer) == everything(twin)


def test_before_the_first_step_it_says_so() -> None:
    found = made().check()
    assert found.step == 0
    assert found.table().startswith("no step has been taken yet\n")
    for group in found:
        assert group.param_norm > 0
        assert group[4:6] == (None, None) and group[7:12] == (None,) * 5
    assert found.finite


def test_a_loaded_optimizer_knows_its_moments_and_no_step() -> None:
    optimizer, fresh = made(), made()
    take_steps(optimizer, 0, 3)
    fresh.load_state_dict(optimizer.state_dict())
    (first, _), (again, _) = optimizer.check(), fresh.check()
    assert again.momentum_norm == pytest.approx(first.momentum_norm)
    assert again.update_norm is None
    assert fresh.check().table().startswith("after step 3\n")


def test_what_is_not_finite_is_named_and_counted() -> None:
    optimizer = made()
    take_steps(optimizer, 0, 1)
    table, vector = optimizer.param_groups[0]["params"]
    other = optimizer.param_groups[1]["params"][0]
    with torch.no_grad():
        vector[[3, 5]] = torch.tensor([math.nan, math.inf])
    other.grad[0, :3] = -math.inf
    table.grad = None
    found = optimizer.check()
    assert found[0].nonfinite_params == {"vector": 2}
    assert found[0].nonfinite_gradients == {}
    assert found[1].nonfinite_params == {}
    assert found[1].nonfinite_gradients == {"other": 3}
    assert math.isnan(found[0].param_norm)
    assert not found.finite
    assert found.table().splitlines()[-2:] == [
        "group 0: not finite: vector (2)", "group 1: not finite: gradients of other (3)"
    ]  # fmt: skip


def test_momentum_that_is_not_kept_or_not_known_yet_is_none() -> None:
    optimizer = made(rung="tier1:factored")
    take_steps(optimizer, 0, 2)
    assert [group.momentum_norm for group in optimizer.check()] == [None, None]
    codec = TurboAdam([parameter(0, 128, 128)], m_codec="costate", min_m_compress_elements=1)
    take_steps(codec, 0, 2)
    assert [group.momentum_norm for group in codec.check()] == [None]


def test_the_table_has_a_line_a_group_in_columns() -> None:
    group = GroupCheck(0, 2, 4193, 1.5, None, 2.25, 0.1, 0.05, 0.015, 0.5, 0.75, 1.0, {}, {})
    assert str(Check(7, [group, group._replace(group=10, momentum_norm=0.125)])) == (
        "after step 7\n"
        "group  tensors  elements  |p|    |m|   |u|   lr  effective  relative        gate\n"
        "    0        2     4,193  1.5      -  2.25  0.1       0.05     0.015  0.5 0.75 1\n"
        "   10        2     4,193  1.5  0.125  2.25  0.1       0.05     0.015  0.5 0.75 1"
    )


def test_parameters_of_other_kinds_are_counted_as_they_are() -> None:
    """Complex ones as pairs of numbers, empty and lazy ones as nothing."""
    whole = nn.Parameter(torch.tensor([3 + 4j, 12 - 5j]))
    lazy = nn.LazyLinear(4, bias=False)
    groups: list[dict[str, Any]] = [
        {"params": [whole]}, {"params": [nn.Parameter(torch.zeros(0))]}, {"params": [lazy.weight]}
    ]  # fmt: skip
    optimizer = Cosmic(groups)
    give_gradients([whole], 0)
    optimizer.step()
    with torch.no_grad():
        whole.copy_(torch.tensor([3 + 4j, complex(12, math.nan)]))
    found = optimizer.check()
    assert [(g.tensors, g.numel) for g in found] == [(1, 4), (1, 0), (1, 0)]
    assert found[0].nonfinite_params == {"0": 1}
    assert [g.param_norm for g in found[1:]] == [0.0, 0.0]


def test_it_can_be_copied_and_pickled() -> None:
    found = made().check()
    for again in (copy.deepcopy(found), pickle.loads(pickle.dumps(found))):
        assert isinstance(again, Check)
        assert again == found and again.table() == found.table()
