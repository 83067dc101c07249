"""Roles found without a model: those of the modules' types, of many architectures, at any batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from architectures import ARCHITECTURES, Recommender, made, mlp
from cosmic import Cosmic, estimate_memory, param_groups
from cosmic.rungs import Geometry
from cosmic.state.roles import KINDS, Role, is_hidden_matrix, structural_role
from cosmic.state.structure import Structure
from role_models import without_numbers

#: What is found otherwise than by modules, by names without numbers: with names as without. One row
#: has no second side, whatever it is; depthwise kernels have no columns that tell them from others;
#: and a first layer that takes 8 times as much as it gives looks like a transposed head.
OTHERWISE: dict[str, dict[str, Role]] = {
    "roberta": {"roberta.embeddings.token_type_embeddings.weight": "vector"},
    "clip": {"vision_model.embeddings.class_embedding": "vector"},
    "vit": {"vit.embeddings.cls_token": "vector"},
    "mamba": {"backbone.layers.#.mixer.conv#d.weight": "matrix"},
    "convnext": {"convnext.encoder.stages.#.layers.#.dwconv.weight": "matrix"},
    "mlp-narrow": {"#.weight": "table"},
}

#: Matrices that a rule for hidden ones leaves out: too thin, or beside an embedding or a head.
LEFT_OUT = {
    ("mamba", "backbone.layers.#.mixer.x_proj.weight"),
    ("mamba", "backbone.layers.#.mixer.dt_proj.weight"),
    ("mlp-narrow", "#.weight"),
}
LEFT_OUT_BY_NAME = {
    ("roberta", "classifier.dense.weight"), ("electra", "electra.embeddings_project.weight"),
}  # fmt: skip

Found = list[tuple[str, Tensor, str, Role, bool]]


def found(model: nn.Module, names: bool) -> Found:
    """Name, tensor, kind by modules, and what is found without these: role, hidden matrix."""
    kinds = {n: group["role"] for group in param_groups(model) for n in group["param_names"]}
    trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    given = [(n if names else str(k), p) for k, (n, p) in enumerate(trained)]
    structure = Structure(given)
    out: Found = []
    for (name, param), (shown, _) in zip(trained, given, strict=True):
        geometry = Geometry.of(param)
        role = structural_role(param, geometry, shown, structure)
        hidden = is_hidden_matrix(param, geometry, shown, {}, structure)
        out.append((name, param, kinds[name], role, hidden))
    return out


def test_there_are_more_than_twenty() -> None:
    assert len(ARCHITECTURES) > 20


@pytest.mark.parametrize("names", [True, False], ids=["names", "no-names"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_roles_are_those_of_the_modules(architecture: str, names: bool) -> None:
    """Positions aside, which without names are tables or matrices. Of hidden matrices none is
    taken that is something else, and few are left out."""
    rows = found(made(architecture), names)
    otherwise: dict[str, Role] = {}
    for name, _, kind, role, _ in rows:
        if kind == "position" and not names:
            assert role in ("table", "matrix")
        elif KINDS[kind] not in (None, role):
            otherwise[without_numbers(name)] = role
    assert otherwise == OTHERWISE.get(architecture, {})
    assert not [name for name, _, kind, _, hidden in rows if hidden and kind != "matrix"]
    left = {
        (architecture, without_numbers(name))
        for name, _, kind, _, hidden in rows
        if kind == "matrix" and not hidden
    }
    allowed = LEFT_OUT | LEFT_OUT_BY_NAME if names else LEFT_OUT
    assert left == {pair for pair in allowed if pair[0] == architecture}


@pytest.mark.parametrize("names", [True, False], ids=["names", "no-names"])
def test_almost_all_tensors_agree(names: bool) -> None:
    agree = total = 0
    for architecture in ARCHITECTURES:
        for _, _, kind, role, _ in found(made(architecture), names):
            if KINDS[kind] is not None and kind != "position":
                agree, total = agree + (KINDS[kind] == role), total + 1
    print(f"{agree} of {total} tensors, {'with' if names else 'without'} names")
    assert total > 1500 and agree > 0.98 * total


# ---- whatever the batch ------------------------------------------------------------------------

TOKENS, WORDS = 4, 100
TINY: dict[str, Any] = {
    "vocab_size": WORDS, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2,
    "intermediate_size": 80, "max_position_embeddings": 24, "pad_token_id": None,
    "bos_token_id": 0, "eos_token_id": 0,
}  # fmt: skip


def gpt2(batch: int) -> tuple[nn.Module, Tensor]:
    config = transformers.GPT2Config(
        vocab_size=WORDS, n_positions=24, n_embd=32, n_layer=3, n_head=2, bos_token_id=0,
        eos_token_id=0,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config), torch.randint(0, WORDS, (batch, TOKENS))


def llama(batch: int) -> tuple[nn.Module, Tensor]:
    config = transformers.LlamaConfig(**TINY, num_key_value_heads=1)
    return transformers.LlamaForCausalLM(config), torch.randint(0, WORDS, (batch, TOKENS))


def bert(batch: int) -> tuple[nn.Module, Tensor]:
    config = transformers.BertConfig(**{**TINY, "pad_token_id": 0})
    return transformers.BertForMaskedLM(config), torch.randint(0, WORDS, (batch, TOKENS))


def recommender(batch: int) -> tuple[nn.Module, Tensor]:
    return Recommender(200, 60, 16), torch.randint(0, 60, (batch * TOKENS, 2))


def plain(batch: int) -> tuple[nn.Module, Tensor]:
    return mlp(96, 32, 24, 10), torch.randn(batch * TOKENS, 96)


def trained_roles(make: Callable[[int], tuple[nn.Module, Tensor]], batch: int, names: bool) -> Any:
    """Roles before the first gradient, where names are given, and after each of some steps."""
    torch.manual_seed(0)
    model, inputs = make(batch)
    params = model.named_parameters() if names else model.parameters()
    optimizer = Cosmic(params, budget="5%", lr=1e-3, reallocate_every=1)
    held: list[list[str | None]] = []
    if names:
        held.append([t.role for t in estimate_memory(model, "5%").tensors])
    for _ in range(2):
        optimizer.zero_grad()
        out = model(inputs)
        getattr(out, "logits", out).float().logsumexp(-1).mean().backward()
        optimizer.step()
        held.append([info.role for info in optimizer.tiers()])
    assert all(roles == held[0] for roles in held), "no step changes a role"
    return dict(zip((n for n, _ in model.named_parameters()), held[0], strict=True))


@pytest.mark.parametrize("names", [True, False], ids=["names", "no-names"])
@pytest.mark.parametrize("make", [gpt2, llama, bert, recommender, plain])
def test_no_batch_changes_a_role(
    make: Callable[[int], tuple[nn.Module, Tensor]], names: bool
) -> None:
    one = trained_roles(make, 1, names)
    assert one == trained_roles(make, 64, names) == trained_roles(make, 1024, names)
    kinds = {n: g["role"] for g in param_groups(make(1)[0]) for n in g["param_names"]}
    assert all(
        one[name] == KINDS[kind] for name, kind in kinds.items() if names or kind != "position"
    )
    assert "table" in one.values() and "matrix" in one.values()
