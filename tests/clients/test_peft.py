"""COSMIC on the adapters of ``peft``: LoRA of rank 8 and 64, by hand and in Trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from transformers import GPT2LMHeadModel

from clients.setting import BATCH, KINDS, ROWS, Tokens, batches, parameter_bits, plain_loop
from clients.setting import tiny_gpt2 as gpt2
from clients.test_trainer import trainer_of
from cosmic import Cosmic
from cosmic.state.roles import Role
from helpers import digest, same_bits

# Peft asks the model by a name that transformers is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")

WIDE = 512  # of the hidden layer: long enough for a low-rank factor to look like a table

#: Bytes of state of a layer by rank: attention's A and B, the way down's A and B. Those below 4,096
#: elements have fp32 moments, the others "u4+factored" and 8 bytes a dimension; all have a counter
#: of 8 bytes.
LAYER_BYTES = {
    8: (8 * 512 + 8) + (8 * 1536 + 8) + (2048 + 2 * 32 + 4 * 520 + 16 + 8) + (8 * 512 + 8),
    64: 2648 + 7384 + 19224 + 2648,
}


def base_model() -> GPT2LMHeadModel:
    return gpt2(n_inner=WIDE)


def lora(rank: int, seed: int = 0) -> Any:
    """Adapters on attention (64 to 192) and on the way down (512 to 64); ``seed`` is of them."""
    base = base_model()
    torch.manual_seed(seed)
    config = LoraConfig(
        r=rank, lora_alpha=2 * rank, target_modules=["c_attn", "mlp.c_proj"], fan_in_fan_out=True,
        task_type="CAUSAL_LM",
    )  # fmt: skip
    return get_peft_model(base, config)


def frozen(model: Any) -> dict[str, bytes]:
    return {name: b for name, b in parameter_bits(model).items() if "lora_" not in name}


def adapters(model: Any) -> list[Tensor]:
    return [p for name, p in model.named_parameters() if "lora_" in name]


def loop(model: Any, optimizer: Cosmic, first: int, last: int, schedule: Any = None) -> list[float]:
    """Steps first..last - 1."""
    inputs = list(batches(Tokens(), last))[first:]
    return plain_loop(model, optimizer, iter(inputs), schedule)


# ---- what has state, and what changes ----------------------------------------------------------


@pytest.mark.parametrize("rank", [8, 64])
@pytest.mark.parametrize("way", ["loop", "Trainer"])
def test_only_adapters_have_state(way: str, rank: int, tmp_path: Path) -> None:
    """The optimizer is given the frozen weights, too."""
    model = lora(rank)
    before = frozen(model)
    optimizer = KINDS["default"](model.named_parameters())
    if way == "loop":
        losses = loop(model, optimizer, 0, 15)
    else:
        trainer = trainer_of(model, tmp_path, 15, optimizers=(optimizer, None))
        trainer.train()
        losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    assert losses[-1] < losses[0] - 0.1
    assert frozen(model) == before
    assert {id(p) for p in optimizer.state} == {id(p) for p in adapters(model)}
    assert optimizer.state_bytes() == 2 * LAYER_BYTES[rank]


@pytest.mark.parametrize("rank", [8, 64])
def test_trainer_gives_the_bits_of_a_loop_by_hand(rank: int, tmp_path: Path) -> None:
    """The class is given; Trainer leaves frozen weights out of its groups."""
    model, twin = lora(rank), lora(rank)
    kind, options = KINDS["default"].make, {"lr": 5e-3, "weight_decay": 0.1}
    args = {"lr_scheduler_type": "constant", "warmup_steps": 0, "weight_decay": 0.1}
    trainer = trainer_of(model, tmp_path, 8, args=args, optimizer_cls_and_kwargs=(kind, options))
    trainer.train()
    groups = [group["params"] for group in trainer.optimizer.param_groups]  # type: ignore[union-attr]
    assert [len(group) for group in groups] == [len(adapters(model)), 0]
    loop(twin, Cosmic(adapters(twin), lr=5e-3, weight_decay=0.1), 0, 8)
    assert parameter_bits(model) == parameter_bits(twin)


def test_adapters_merge_into_the_weights() -> None:
    model = lora(8)
    loop(model, KINDS["default"](model.named_parameters()), 0, 15)
    model.eval()
    ids = Tokens(4, seed=9).ids
    with torch.no_grad():
        expected = model(input_ids=ids).logits
        merged = model.merge_and_unload()
        found = merged(input_ids=ids).logits
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    plain = base_model()
    assert [n for n, _ in merged.named_parameters()] == [n for n, _ in plain.named_parameters()]
    for (name, p), (_, q) in zip(merged.named_parameters(), plain.named_parameters(), strict=True):
        adapted = name.endswith(("attn.c_attn.weight", "mlp.c_proj.weight"))
        assert same_bits(p, q) != adapted, name


# ---- a run that goes on from a checkpoint ------------------------------------------------------

RESUMED = [("default", 8), ("default", 64), ("budget", 8), ("budget by signal", 64)]


@pytest.mark.parametrize(("kind", "rank"), RESUMED)
def test_a_trainer_that_goes_on_has_the_same_bits(kind: str, rank: int, tmp_path: Path) -> None:
    """Its checkpoint has the adapters alone; those of the second model are others before."""
    steps, middle = KINDS[kind].steps, KINDS[kind].middle
    assert middle * BATCH % ROWS, "the checkpoint lies within an epoch"
    args = {"save_strategy": "steps", "save_steps": middle, "train_sampling_strategy": "random"}
    found = []
    for seed, resume in ((0, None), (5, str(tmp_path / f"checkpoint-{middle}"))):
        model = lora(rank, seed)
        optimizer = KINDS[kind](model.named_parameters())
        trainer = trainer_of(model, tmp_path, steps, args=args, optimizers=(optimizer, None))
        trainer.train(resume)
        found.append((digest(optimizer), optimizer.tiers()))
    assert found[0] == found[1]


@pytest.mark.parametrize(("kind", "rank"), RESUMED)
def test_a_loop_that_goes_on_has_the_same_bits(kind: str, rank: int, tmp_path: Path) -> None:
    steps, middle = KINDS[kind].steps, KINDS[kind].middle
    model = lora(rank)
    optimizer = KINDS[kind](model.named_parameters())
    schedule = LambdaLR(optimizer, lambda step: 1 / (step + 1))
    loop(model, optimizer, 0, middle, schedule)
    model.save_pretrained(tmp_path)
    torch.save([optimizer.state_dict(), schedule.state_dict()], tmp_path / "rest.pt")
    loop(model, optimizer, middle, steps, schedule)

    loaded = PeftModel.from_pretrained(base_model(), tmp_path, is_trainable=True)
    resumed = KINDS[kind](loaded.named_parameters())
    later = LambdaLR(resumed, lambda step: 1 / (step + 1))
    for thing, saved in zip((resumed, later), torch.load(tmp_path / "rest.pt"), strict=True):
        thing.load_state_dict(saved)
    loop(loaded, resumed, middle, steps, later)
    assert digest(resumed) == digest(optimizer)


# ---- a budget ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        # without a role, what is too long for its width is not stepped as a whole
        ({}, ["tier1:muon", "tier2:bf16+bf16", "tier2:q8+factored", "tier1:muon"]),
        ({"matrix_rule": "off"}, ["tier2:q8+factored", "tier2:q8+v4"] * 2),
        ({"policy": "role"}, ["tier1:factored", "tier1:v4"] * 2),
    ],
    ids=str,
)
def test_what_a_budget_buys_for_low_rank_factors(
    options: dict[str, Any], expected: list[str]
) -> None:
    """They are matrices, whatever their shapes."""
    model = lora(8)
    optimizer = Cosmic(
        model.named_parameters(), lr=5e-3, budget="20%", reallocate_every=4, **options
    )

    def held() -> list[tuple[Role | None, str]]:
        """Role and rung of the first layer's: attention's A and B, the way down's A and B."""
        return [(info.role, info.rung) for info in optimizer.tiers()][:4]

    for first, last in ((0, 1), (1, 6)):
        loop(model, optimizer, first, last)
        assert held() == [("matrix", rung) for rung in expected]
    of_adamw = 8 * sum(p.numel() for p in adapters(model))
    assert optimizer.budget_bytes() == int(0.2 * of_adamw), "frozen weights count for nothing"
    assert optimizer.state_bytes() <= int(0.2 * of_adamw)


def test_min_tier_keeps_momentum_of_low_rank_factors() -> None:
    model = lora(8)
    optimizer = Cosmic(model.named_parameters(), lr=5e-3, budget="20%", min_tier=2)
    loop(model, optimizer, 0, 6)
    assert {info.tier for info in optimizer.tiers()} == {2}
