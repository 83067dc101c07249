"""What param_groups makes of types of modules: no table is ever a matrix."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from torch import nn

from cosmic import param_groups
from role_models import SMALL, Bare, TinyGPT, found, gpt2, llama, roles_of


def small(kind: str, **more: Any) -> nn.Module:
    config = getattr(transformers, f"{kind}Config")(**{**SMALL, **more})
    return transformers.AutoModelForCausalLM.from_config(config)  # type: ignore[no-any-return]


# ---- language models ---------------------------------------------------------------------------


def test_gpt2() -> None:
    model = gpt2()
    roles = roles_of(model)
    assert list(roles) == ["embedding", "position", "norm", "bias", "matrix"]
    assert roles["embedding"] == {"transformer.wte.weight"}, "the head is tied to it"
    assert roles["position"] == {"transformer.wpe.weight"}
    names = [name for name, _ in model.named_parameters()]
    assert roles["norm"] == {n for n in names if "ln_" in n and n.endswith("weight")}
    assert roles["bias"] == {n for n in names if n.endswith("bias")}
    assert roles["matrix"] == {n for n in names if ".c_" in n and n.endswith("weight")}


def test_an_untied_head_is_a_head() -> None:
    assert roles_of(gpt2(tied=False))["head"] == {"lm_head.weight"}
    assert roles_of(llama())["head"] == {"lm_head.weight"}
    assert "head" not in roles_of(llama(tie_word_embeddings=True))


def test_llama_has_matrices_in_its_blocks_alone() -> None:
    matrices = roles_of(llama())["matrix"]
    assert len(matrices) == 2 * 7 and all(name.startswith("model.layers.") for name in matrices)


def test_bert() -> None:
    config = transformers.BertConfig(**SMALL)
    roles = roles_of(transformers.BertForPreTraining(config))
    assert roles["embedding"] == {
        "bert.embeddings.word_embeddings.weight", "bert.embeddings.token_type_embeddings.weight"
    }  # fmt: skip
    assert roles["head"] == {"cls.seq_relationship.weight"}
    assert "cls.predictions.transform.dense.weight" in roles["matrix"]
    assert "bert.pooler.dense.weight" in roles["matrix"]
    classifier = transformers.BertForSequenceClassification(config)
    assert roles_of(classifier)["head"] == {"classifier.weight"}
    base = roles_of(transformers.BertModel(config))
    assert "head" not in base and "pooler.dense.weight" in base["matrix"]
    roberta = transformers.RobertaForSequenceClassification(transformers.RobertaConfig(**SMALL))
    assert roles_of(roberta)["head"] == {"classifier.out_proj.weight"}


def test_t5() -> None:
    config = transformers.T5Config(
        vocab_size=800, d_model=64, d_kv=32, d_ff=128, num_layers=2, num_heads=2
    )
    roles = roles_of(transformers.T5ForConditionalGeneration(config))
    assert roles["embedding"] == {"shared.weight"}
    assert len(roles["matrix"]) == 2 * 6 + 2 * 10
    assert all("relative_attention_bias" in name for name in roles["position"])
    config.tie_word_embeddings = False
    untied = roles_of(transformers.T5ForConditionalGeneration(config))
    assert "lm_head.weight" not in untied.get("matrix", set())


def test_an_mlp_in_a_block_is_no_head_by_its_name() -> None:
    roles = roles_of(small("GPTJ", n_embd=64, n_layer=2, n_head=4, rotary_dim=8))
    assert {f"transformer.h.{k}.mlp.fc_out.weight" for k in range(2)} <= roles["matrix"]
    assert roles["head"] == {"lm_head.weight"}


def test_stacked_experts_and_routers_are_left_to_the_caller() -> None:
    model = small("Mixtral", num_key_value_heads=2, num_local_experts=4)
    others = roles_of(model)["other"]
    assert {name.rsplit(".", 1)[1] for name in others} == {"weight", "gate_up_proj", "down_proj"}
    chosen = found(model, roles={"*.experts.*": "matrix"})
    assert {chosen[name] for name in others if "experts" in name} == {"matrix"}
    assert "matrix" not in {chosen[name] for name in others if "experts" not in name}


def test_a_vision_transformer() -> None:
    config = transformers.ViTConfig(**SMALL, image_size=32, patch_size=8)
    roles = roles_of(transformers.ViTForImageClassification(config))
    assert roles["embedding"] == {"vit.embeddings.cls_token"}
    assert roles["position"] == {"vit.embeddings.position_embeddings"}
    assert roles["convolution"] == {"vit.embeddings.patch_embeddings.projection.weight"}
    assert roles["head"] == {"classifier.weight"}
    swin = transformers.SwinConfig(
        embed_dim=16, depths=[1, 1], num_heads=[2, 2], image_size=32, window_size=4
    )
    tables = roles_of(transformers.SwinForImageClassification(swin))["position"]
    assert len(tables) == 2 and all(n.endswith("relative_position_bias_table") for n in tables)


# ---- modules of torch --------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [True, False])
def test_a_model_written_by_hand(tied: bool) -> None:
    roles = roles_of(TinyGPT(tied))
    assert roles["embedding"] == {"wte.weight"}
    assert roles["position"] == {"wpe.weight"}
    assert roles.get("head") == (None if tied else {"out.weight"}), "by its outputs"
    assert len(roles["matrix"]) == 6


def test_heads_by_name_by_width_and_by_place() -> None:
    def blocks() -> nn.Module:
        return nn.ModuleList([nn.Sequential(nn.Linear(32, 32), nn.Linear(32, 32))])

    named = nn.ModuleDict({"head": nn.Linear(32, 5), "body": blocks(), "norm": nn.LayerNorm(32)})
    assert roles_of(named)["head"] == {"head.weight"}
    several = nn.ModuleDict({"heads": nn.ModuleDict({"a": nn.Linear(8, 2), "b": nn.Linear(8, 3)})})
    assert roles_of(several)["head"] == {"heads.a.weight", "heads.b.weight"}
    classifier = nn.Sequential(nn.Linear(8, 9), nn.Linear(9, 2))
    vgg = nn.ModuleDict({"features": nn.Conv2d(3, 8, 3), "classifier": classifier})
    assert roles_of(vgg)["head"] == {"classifier.1.weight"}
    last = nn.Sequential(nn.Linear(10, 64), nn.ReLU(), nn.Linear(64, 10))
    assert roles_of(last) == {
        "matrix": {"0.weight"}, "bias": {"0.bias", "2.bias"}, "head": {"2.weight"}
    }  # fmt: skip
    assert "head" not in roles_of(nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8)))
    wide = nn.ModuleDict(
        {"emb": nn.Embedding(300, 8), "out": nn.Linear(8, 300), "up": nn.Linear(8, 8)}
    )
    assert roles_of(wide) == {
        "embedding": {"emb.weight"}, "head": {"out.weight"}, "matrix": {"up.weight"},
        "bias": {"out.bias", "up.bias"},
    }  # fmt: skip


def test_layers_of_a_stack_are_no_heads_for_being_as_wide_as_a_table() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wte, self.wpe = nn.Embedding(800, 64), nn.Embedding(256, 64)
            self.blocks = nn.ModuleList([nn.Linear(64, 256), nn.Linear(256, 64)])
            self.medusa = nn.ModuleList([nn.Linear(64, 800, bias=False)])

    roles = roles_of(Model())
    assert roles["matrix"] == {"blocks.0.weight", "blocks.1.weight"}
    assert roles["head"] == {"medusa.0.weight"}


def test_adaptive_softmax_is_all_head() -> None:
    model = nn.AdaptiveLogSoftmaxWithLoss(16, 100, [20, 50], div_value=2.0)
    assert set(found(model).values()) == {"head"}


def test_convolutions() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.Conv2d(16, 16, 3, groups=16),
        nn.Conv2d(16, 32, 1, groups=2), nn.ConvTranspose1d(32, 8, 3), nn.Conv3d(1, 4, 3),
        nn.GroupNorm(2, 8), nn.InstanceNorm2d(4, affine=True),
    )  # fmt: skip
    roles = roles_of(model)
    assert roles["convolution"] == {"0.weight", "3.weight", "4.weight", "5.weight"}
    assert roles["vector"] == {"2.weight"}, "depthwise"
    assert roles["norm"] == {"1.weight", "6.weight", "7.weight"}


def test_norms_by_their_class_and_of_any_shape() -> None:
    class LlamaRMSNorm(Bare):
        pass

    class LayerNorm2d(Bare):
        pass

    model = nn.ModuleList(
        [nn.LayerNorm((4, 5)), nn.RMSNorm(8), LlamaRMSNorm(weight=(8,)), LayerNorm2d(weight=(8, 9))]
    )
    assert roles_of(model)["norm"] == {"0.weight", "1.weight", "2.weight", "3.weight"}
    assert roles_of(model)["bias"] == {"0.bias"}


def test_recurrent_layers_attention_and_bilinear() -> None:
    model = nn.ModuleDict(
        {
            "lstm": nn.LSTM(8, 16, num_layers=2, bidirectional=True, proj_size=4),
            "cell": nn.GRUCell(8, 16),
            "attention": nn.MultiheadAttention(16, 2, add_bias_kv=True),
            "apart": nn.MultiheadAttention(16, 2, kdim=8, vdim=8),
            "bilinear": nn.Bilinear(4, 5, 6),
            "norm": nn.LayerNorm(4),
        }
    )
    roles = found(model)
    for name, role in roles.items():
        if name == "norm.weight":
            assert role == "norm"
        else:
            assert role == ("bias" if "bias" in name else "matrix"), name


@pytest.mark.parametrize(
    ("name", "shape", "role"),
    [
        ("pos_embed", (1, 197, 64), "position"), ("position", (64, 64), "position"),
        ("relative_position_bias_table", (49, 4), "position"), ("wpe", (64, 64), "position"),
        ("cls_token", (1, 1, 64), "embedding"), ("query_tokens", (1, 32, 64), "embedding"),
        ("codebook", (256, 64), "embedding"), ("token_embedding_table", (65, 64), "embedding"),
        ("w1", (64, 64), "other"), ("experts", (4, 64, 64), "other"), ("weight", (64, 64), "other"),
        ("gate_up_proj_bias", (4, 64), "bias"), ("bias", (64,), "bias"), ("gamma", (64,), "vector"),
        ("logit_scale", (), "vector"), ("row", (1, 64), "vector"), ("nothing", (0, 4), "vector"),
    ],
)  # fmt: skip
def test_bare_parameters(name: str, shape: tuple[int, ...], role: str) -> None:
    assert found(Bare(**{name: shape})) == {name: role}


def test_lists_of_parameters_are_judged_by_who_has_them() -> None:
    model = nn.Module()
    model.prompts = nn.ParameterList([torch.zeros(4, 8)])
    model.tables = nn.ParameterDict({"a": torch.zeros(4, 8)})
    model.others = nn.ParameterList([torch.zeros(4, 8)])
    assert found(model) == {"prompts.0": "embedding", "tables.a": "embedding", "others.0": "other"}


def test_linear_layers_of_other_packages_by_the_name_of_their_class() -> None:
    class ColumnParallelLinear(Bare):
        pass

    class VocabParallelEmbedding(Bare):
        pass

    model = nn.ModuleDict(
        {
            "up": ColumnParallelLinear(weight=(16, 8), bias=(16,)),
            "experts": ColumnParallelLinear(weight=(4, 16, 8)),
            "words": VocabParallelEmbedding(weight=(16, 8)),
        }
    )
    assert found(model) == {
        "up.weight": "matrix", "up.bias": "bias", "experts.weight": "other",
        "words.weight": "embedding",
    }  # fmt: skip


# ---- shared parameters -------------------------------------------------------------------------


def test_a_shared_parameter_is_in_one_group_by_the_role_that_asks_for_most_care() -> None:
    model = nn.ModuleDict({"a": nn.Linear(8, 9), "b": nn.Linear(8, 8), "n": nn.LayerNorm(8)})
    model["c"] = model["a"]
    embedding = nn.Embedding(8, 8)
    embedding.weight = model["b"].weight  # type: ignore[assignment]
    model["late"] = embedding
    roles = found(model)
    assert (roles["a.weight"], roles["b.weight"]) == ("matrix", "embedding")
    assert not {"c.weight", "late.weight"} & set(roles)


def test_a_module_that_is_below_itself_ends_the_way() -> None:
    inner = nn.Linear(4, 4)
    outer = nn.Sequential(nn.Linear(4, 4), inner, nn.LayerNorm(4))
    inner.parent = outer
    with pytest.raises(RecursionError):
        list(outer.named_modules(remove_duplicate=False))
    assert roles_of(outer)["matrix"] == {"0.weight", "1.weight"}


def test_frozen_parameters_are_left_out() -> None:
    model = gpt2()
    model.requires_grad_(False)
    assert param_groups(model) == []
    model.transformer.wte.weight.requires_grad_(True)
    assert roles_of(model) == {"embedding": {"transformer.wte.weight"}}
