"""Bytes of shards: what is spent over all of them is what the budget was told, to the byte."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.tensor import Replicate, Shard

from cosmic import Cosmic, estimate_memory
from cosmic.capital.named import policy_named
from cosmic.step.choices import choose
from played_ranks import parameter, placed, played

SHAPES = {
    "embed.weight": (301, 128), "layers.0.weight": (64, 256), "layers.1.weight": (64, 256),
    "short.weight": (5, 300), "kernel": (6, 4, 3, 3), "norm.weight": (130,), "scale": (1,),
}  # fmt: skip
HSDP = (Replicate(), Shard(0))


def gradients(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


def steps_of(
    rank: int, sizes: Sequence[int], placements: Sequence[Any], **options: Any
) -> tuple[Cosmic, int]:
    """An optimizer after two steps, and what the choice of its rungs was priced at."""
    with played(rank, sizes) as mesh:
        params = {n: parameter(t, mesh, placements) for n, t in gradients(0).items()}
        optimizer = Cosmic(list(params.items()), lr=0.01, **options)
        for step in (1, 2):
            for name, gradient in gradients(step).items():
                params[name].grad = placed(gradient, mesh, placements)
            optimizer.step()
        choices = choose(
            optimizer.param_groups, optimizer.state, budget=optimizer.budget,
            policy=policy_named(optimizer.policy),
        )  # fmt: skip
        assert sum(choice.nbytes for choice in choices) == optimizer.state_bytes()
        return optimizer, sum(choice.live.price(choice.rung) for choice in choices)


@pytest.mark.parametrize(
    ("sizes", "placements"),
    [
        ((1,), (Shard(0),)), ((2,), (Shard(0),)), ((3,), (Shard(0),)), ((8,), (Shard(0),)),
        ((2, 3), HSDP),
    ],
    ids=["1", "2", "3", "8", "2 copies on 3"],
)  # fmt: skip
@pytest.mark.parametrize(
    "options",
    [
        {}, {"budget": "6%"}, {"budget": "12%", "policy": "role"}, {"budget": "60%", "gate": "snr"},
        {"rung": "tier2:u4+factored", "min_compress_size": 0, "gate": "trust"},
    ],
    ids=["default", "6%", "role", "60% with gate", "rows and columns"],
)  # fmt: skip
def test_shards_of_one_copy_take_what_was_priced(
    sizes: tuple[int, ...], placements: tuple[Any, ...], options: dict[str, Any]
) -> None:
    ranks = torch.Size(sizes).numel()
    copies = sizes[0] if len(sizes) > 1 else 1
    found = [steps_of(rank, sizes, placements, **options) for rank in range(ranks)]
    (price,) = {price for _, price in found}
    assert sum(optimizer.state_bytes() for optimizer, _ in found) == copies * price
    budgets = {optimizer.budget_bytes() for optimizer, _ in found}
    assert len(budgets) == 1
    (budget,) = budgets
    assert budget is None or price <= budget
    rungs = {tuple((t.name, t.rung) for t in optimizer.tiers()) for optimizer, _ in found}
    assert len(rungs) == 1


@pytest.mark.parametrize("ranks", [2, 3, 8])
def test_a_budget_counts_what_shards_take_more_than_one_tensor(ranks: int) -> None:
    """Factors that are known to hold all of it at one process hold less on several."""
    alone, price = steps_of(0, (1,), (Shard(0),), rung="tier2:u4+factored", min_compress_size=0)
    assert alone.state_bytes() == price
    with pytest.raises(ValueError, match="the budget is") as caught:
        steps_of(0, (ranks,), (Shard(0),), rung="tier2:u4+factored", min_compress_size=0,
                 budget=price)  # fmt: skip
    assert f"the budget is {price} bytes, but" in str(caught.value)


@pytest.mark.parametrize("rank", [0, 2])
def test_an_estimate_is_of_what_is_here(rank: int) -> None:
    model = nn.Linear(256, 100)
    with played(rank, 3) as mesh:
        for name, whole in list(model.named_parameters()):
            setattr(model, name, parameter(whole.detach(), mesh))
        found = estimate_memory(model)
        rows = 34 if rank < 2 else 32
        assert found.weight_bytes == found.gradient_bytes == 4 * (257 * rows)
        assert found.adamw_bytes == 8 * 257 * rows + 2 * 4
        optimizer = Cosmic(model.named_parameters())
        for param in model.parameters():
            param.grad = placed(torch.ones(param.shape), mesh)
        optimizer.step()
        assert found.state_bytes == optimizer.state_bytes()
