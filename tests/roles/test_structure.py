"""What the sides of all tensors, and their names, say of one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from cosmic import Cosmic, estimate_memory
from cosmic.rungs import Geometry
from cosmic.state.entries import ROLE, role_of
from cosmic.state.roles import Role, is_hidden_matrix, structural_role
from cosmic.state.structure import Structure, Word
from helpers import normal, parameters, take_steps, through_a_file
from role_models import TinyGPT

Shape = tuple[int, ...]

#: Two layers of a GPT of width 64 without embedding and head.
LAYER: tuple[Shape, ...] = ((192, 64), (192,), (64, 64), (64,), (256, 64), (256,), (64, 256), (64,))
LAYERS = 2 * LAYER


def tensors(*shapes: Shape) -> list[Tensor]:
    return [torch.empty(shape, device="meta") for shape in shapes]


def roles_of(*shapes: Shape) -> list[Role]:
    """Of tensors without names."""
    params = tensors(*shapes)
    structure = Structure((str(k), p) for k, p in enumerate(params))
    return [structural_role(p, Geometry.of(p), str(k), structure) for k, p in enumerate(params)]


def hidden_of(*shapes: Shape) -> list[bool]:
    params = tensors(*shapes)
    structure = Structure((str(k), p) for k, p in enumerate(params))
    return [
        is_hidden_matrix(p, Geometry.of(p), str(k), {}, structure) for k, p in enumerate(params)
    ]


# ---- shapes alone --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "role"),
    [
        ((1000,), "vector"), ((1, 768), "vector"), ((), "vector"), ((0, 8), "vector"),
        ((65535,), "vector"), ((65536,), "matrix"), ((50257, 768), "table"),
        ((768, 50257), "table"), ((768, 3072), "matrix"), ((5632, 2048), "matrix"),
        ((128, 16), "matrix"), ((512, 64), "table"), ((511, 16), "matrix"),
        ((2048, 3, 3, 3), "matrix"), ((4, 9000, 16), "matrix"), ((1, 9000, 16), "table"),
    ],
)  # fmt: skip
def test_of_one_tensor_there_is_the_shape_alone(shape: Shape, role: Role) -> None:
    assert roles_of(shape) == [role]


# ---- shapes together -----------------------------------------------------------------------------


@pytest.mark.parametrize("words", [65, 100, 600, 50257])
def test_words_are_rows_that_no_layer_takes(words: int) -> None:
    tied = roles_of((words, 64), *LAYERS)
    untied = roles_of((words, 64), *LAYERS, (words, 64), (words,))
    assert tied[0] == untied[0] == untied[-2] == "table"
    assert tied[1:] == untied[1:-2] == roles_of(*LAYERS)
    assert set(tied[1:]) == {"matrix", "vector"}
    assert not hidden_of((words, 64), *LAYERS, (words, 64))[0]


def test_labels_are_too() -> None:
    assert roles_of((10, 64), (10,), *LAYERS)[0] == "table"


@pytest.mark.parametrize("words", [64, 256])
def test_words_as_many_as_a_layer_gives_are_not_told_apart(words: int) -> None:
    assert roles_of((words, 64), *LAYERS)[0] == "matrix"


def test_a_transposed_head_is_a_table() -> None:
    assert roles_of((900, 64), *LAYERS, (64, 900))[::17] == ["table", "table"]


def test_a_pair_of_low_rank_is_none() -> None:
    assert roles_of((16, 1024), (1024, 16)) == ["matrix"] * 2
    assert set(roles_of(*((16, 1024), (1024, 16)) * 6)) == {"matrix"}


def test_a_long_bias_is_a_vector() -> None:
    assert roles_of((100_000, 64), (100_000,), *LAYERS)[:2] == ["table", "vector"]


def test_a_wide_layer_that_another_takes_is_hidden() -> None:
    """256 x 64 alone may be an embedding of bytes."""
    assert hidden_of((256, 64), (64, 64)) == [False, True]
    assert hidden_of((256, 64), (64, 256), (64, 64)) == [True] * 3
    assert hidden_of((1024, 64), *LAYERS)[0] is False


def test_parameters_without_gradients_count() -> None:
    params = parameters((100, 64), *LAYERS)
    optimizer = Cosmic(params, budget="9%")
    params[0].grad = normal(0, 100, 64)
    optimizer.step()
    assert role_of(optimizer.state[params[0]]) == "table"
    assert roles_of((100, 64)) == ["matrix"]


def test_a_group_that_comes_later_changes_no_role_that_is_held() -> None:
    first = parameters((100, 64), (64, 64), (64, 96), (64,))
    optimizer = Cosmic(first, budget="9%", reallocate_every=1)
    take_steps(optimizer, 0, 2)
    before = [role_of(optimizer.state[p]) for p in first]
    assert before[0] == "table"
    optimizer.add_param_group({"params": parameters((48, 100), (100, 100))})
    take_steps(optimizer, 2, 5)
    assert [role_of(optimizer.state[p]) for p in first] == before
    assert roles_of((100, 64), (64, 64), (64, 96), (64,), (48, 100), (100, 100))[0] == "matrix"


def test_what_is_stepped_as_a_whole_stays_so() -> None:
    optimizer = Cosmic(parameters((40, 70)), matrix_rule="muon", min_compress_size=0)
    take_steps(optimizer, 0, 1)
    optimizer.add_param_group({"params": parameters((70, 90))})
    take_steps(optimizer, 1, 3)
    assert [info.rung for info in optimizer.tiers()] == ["tier2:muon:m1"] * 2
    assert hidden_of((40, 70), (70, 90)) == [False, True], "such as labels"


@pytest.mark.parametrize("role", ["table", "matrix"])
def test_a_role_that_a_checkpoint_holds_stays(role: Role) -> None:
    """Such as one that gradients had shown, in releases that went by them."""
    params = parameters((100, 64), (64, 64), (64, 96), (64,))
    before = Cosmic(params, budget="9%")
    take_steps(before, 0, 1)
    saved = through_a_file(before.state_dict())
    saved["state"][0][ROLE] = saved["state"][1][ROLE] = ["table", "matrix"].index(role)
    after = Cosmic(params, budget="9%", reallocate_every=1)
    after.load_state_dict(saved)
    take_steps(after, 1, 4)
    assert [info.role for info in after.tiers()] == [role, role, "matrix", "vector"]


def test_an_estimate_counts_what_is_frozen() -> None:
    model = TinyGPT()
    for name, param in model.named_parameters():
        param.requires_grad = name in ("wte.weight", "out.weight")
    optimizer = Cosmic(model.named_parameters(), budget="10%")
    for table in (model.wte.weight, model.out.weight):
        table.grad = normal(0, *table.shape)
    optimizer.step()
    estimate = estimate_memory(model, "10%")
    held = [(info.name, info.role, info.nbytes) for info in optimizer.tiers()]
    assert [(t.name, t.role, t.state_bytes) for t in estimate.tensors] == held


# ---- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("model.embed_tokens.weight", "table"), ("transformer.wte.weight", "table"),
        ("tok_emb.weight", "table"), ("bert.embeddings.word_embeddings.weight", "table"),
        ("embed_tokens.modules_to_save.default.weight", "table"), ("lm_head.weight", "table"),
        ("gpt_neox.embed_in.weight", "table"), ("embed_out.weight", "table"),
        ("score.weight", "table"), ("classifier.bias", "table"), ("transformer.wpe.weight",
        "position"), ("pos_embed", "position"), ("model.embed_positions.weight", "position"),
        ("embeddings_project.weight", "beside"), ("time_emb_proj.weight", "beside"),
        ("patch_embed.proj.weight", "beside"), ("embeddings.0.weight", "beside"),
        ("classifier.dense.weight", "beside"), ("classifier.0.weight", "beside"),
        ("ensemble.weight", None), ("fc.weight", None), ("0.weight", None), ("12", None),
        ("h.0.attn.weight", None), ("weight", None),
    ],
)  # fmt: skip
def test_what_a_name_says(name: str, word: Word | None) -> None:
    param = torch.empty(40, 40, device="meta")
    assert Structure([(name, param)]).word(name, param) == word


def test_a_layer_among_layers_alike_is_stacked() -> None:
    names = ["h.0.attn.weight", "h.1.attn.weight", "h.0.w1", "h.1.w1", "h.2.attn_head.weight",
             "h.3.attn_head.weight", "heads.0.weight", "heads.1.weight"]  # fmt: skip
    params = tensors(*[(40, 30)] * 7, (40, 31))
    structure = Structure(zip(names, params, strict=True))
    words = [structure.word(name, param) for name, param in zip(names, params, strict=True)]
    assert words == ["stacked"] * 6 + ["beside"] * 2


def test_names_come_before_sides() -> None:
    """A table of as many words as the width, positions as long, and two layers of each kind."""
    model = TinyGPT()
    model.wte = nn.Embedding(64, 64)
    named = list(model.named_parameters())
    structure = Structure(named)
    roles = {name: structural_role(p, Geometry.of(p), name, structure) for name, p in named}
    hidden = {n for n, p in named if is_hidden_matrix(p, Geometry.of(p), n, {}, structure)}
    assert roles["wte.weight"] == roles["out.weight"] == "table"
    assert roles["wpe.weight"] == "matrix"
    assert hidden == {n for n, p in named if n.startswith("blocks.") and p.dim() == 2}
