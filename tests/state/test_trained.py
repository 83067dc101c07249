"""Matrices whose weights had been trained before are told by their rows and columns alone."""

from __future__ import annotations

import io

import pytest
import torch
from torch import nn

from cosmic import Cosmic
from cosmic.state.entries import TRAINED
from cosmic.state.trained import is_trained


def fresh(kind: str) -> torch.Tensor:
    weight = torch.empty(96, 160)
    made = {
        "normal": lambda: nn.init.normal_(weight, std=0.02),
        "uniform": lambda: nn.init.xavier_uniform_(weight),
        "kaiming": lambda: nn.init.kaiming_normal_(weight),
        "truncated": lambda: nn.init.trunc_normal_(weight, std=0.02),
        "orthogonal": lambda: nn.init.orthogonal_(weight),
        "constant": lambda: nn.init.constant_(weight, 0.5),
        "zeros": lambda: nn.init.zeros_(weight),
    }
    out: torch.Tensor = made[kind]()
    return out


KINDS = ("normal", "uniform", "kaiming", "truncated", "orthogonal", "constant", "zeros")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fresh_weights_of_every_kind_are_no_trained_ones(kind: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    assert not is_trained(fresh(kind).to(dtype), "w")


@pytest.mark.parametrize("along", [0, 1])
@pytest.mark.parametrize("transposed", [False, True])
def test_rows_or_columns_of_many_lengths_are(along: int, transposed: bool) -> None:
    torch.manual_seed(0)
    lengths = torch.linspace(0.5, 1.5, 96 if along == 0 else 160)
    weight = fresh("normal") * (lengths[:, None] if along == 0 else lengths)
    assert is_trained(weight.t() if transposed else weight, "w")


def test_what_cannot_be_told_is_fresh() -> None:
    assert not is_trained(torch.empty(96, 160, device="meta"), "w")
    assert not is_trained(torch.linspace(0, 1, 4096), "w")


def matrices() -> list[tuple[str, nn.Parameter]]:
    torch.manual_seed(0)
    lengths = torch.linspace(0.2, 2.0, 96)[:, None]
    weights = {"h.0.mlp.weight": fresh("normal"), "h.1.mlp.weight": fresh("normal") * lengths}
    return [(name, nn.Parameter(weight)) for name, weight in weights.items()]


def stepped(optimizer: Cosmic, count: int) -> None:
    random = torch.Generator().manual_seed(1)
    for _ in range(count):
        for param in optimizer.param_groups[0]["params"]:
            param.grad = torch.randn(param.shape, generator=random)
        optimizer.step()


def rungs(optimizer: Cosmic) -> dict[str, str]:
    return {info.name: info.rung for info in optimizer.tiers()}


def test_the_default_policy_steps_them_by_elements() -> None:
    optimizer = Cosmic(matrices(), lr=0.1, budget="10%", reallocate_every=2)
    stepped(optimizer, 1)
    first = rungs(optimizer)
    assert first["h.0.mlp.weight"] == "tier1:muon" and "muon" not in first["h.1.mlp.weight"]
    (_, trained) = optimizer.param_groups[0]["params"]
    assert optimizer.state[trained][TRAINED] == 1
    assert "trained before" in next(i.why for i in optimizer.tiers() if i.name == "h.1.mlp.weight")
    stepped(optimizer, 6)  # what training has done to the other one since does not count
    assert rungs(optimizer) == first


def test_who_asks_for_the_rule_gets_it_for_all() -> None:
    optimizer = Cosmic(matrices(), lr=0.1, budget="10%", matrix_rule="muon")
    stepped(optimizer, 1)
    assert set(rungs(optimizer).values()) == {"tier1:muon"}


def test_a_checkpoint_keeps_it() -> None:
    optimizer = Cosmic(matrices(), lr=0.1, budget="10%", reallocate_every=2)
    stepped(optimizer, 3)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    flat = [(f"h.{k}.mlp.weight", nn.Parameter(torch.zeros(96, 160))) for k in range(2)]
    other = Cosmic(flat, lr=0.1, budget="10%", reallocate_every=2)
    other.load_state_dict(torch.load(file, weights_only=True))
    stepped(other, 4)
    assert rungs(other) == rungs(optimizer)


def test_a_state_that_says_something_else_is_refused() -> None:
    optimizer = Cosmic(matrices(), lr=0.1, budget="10%")
    stepped(optimizer, 1)
    saved = optimizer.state_dict()
    saved["state"][1][TRAINED] = 2
    with pytest.raises(ValueError, match="trained 2; expected 1 or no such entry"):
        Cosmic(matrices(), lr=0.1, budget="10%").load_state_dict(saved)


def test_it_is_looked_at_whenever_the_rule_would_begin() -> None:
    named = matrices()
    adamw = torch.optim.AdamW([param for _, param in named], lr=1e-4)
    for _, param in named:
        param.grad = torch.ones_like(param)
    adamw.step()
    after_adamw = Cosmic(named, lr=1e-4, budget="10%")
    after_adamw.load_state_dict(adamw.state_dict())
    later = Cosmic(matrices(), lr=1e-4)
    stepped(later, 1)
    later.budget = "10%"
    by_role = Cosmic(matrices(), lr=1e-4, budget="10%", policy="role")
    stepped(by_role, 1)
    by_role.policy = "calibrated"
    for optimizer in (after_adamw, later, by_role):
        stepped(optimizer, 1)
        assert "muon" not in rungs(optimizer)["h.1.mlp.weight"]


def test_why_says_it_only_where_it_has_decided() -> None:
    optimizer = Cosmic(matrices(), lr=1e-4, budget="10%")
    stepped(optimizer, 1)
    optimizer.param_groups[0]["matrix_rule"] = "muon"
    stepped(optimizer, 1)
    assert set(rungs(optimizer).values()) == {"tier1:muon"}
    assert not any("trained" in info.why for info in optimizer.tiers())
    optimizer.param_groups[0]["matrix_rule"], optimizer.budget = None, None
    stepped(optimizer, 1)
    assert not any("trained" in info.why for info in optimizer.tiers())
