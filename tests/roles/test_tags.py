"""The tags that param_groups gives, also where names mislead."""

from __future__ import annotations

from typing import Any

import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.nn.utils import parametrizations

from architectures import ARCHITECTURES, made
from cosmic import param_groups
from role_models import SMALL, Bare, TinyGPT, gpt2, llama, without_numbers

# Peft asks the model by a name that transformers is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")


def tags(model: nn.Module, **options: Any) -> dict[str, str]:
    """The tag of each parameter by its name."""
    groups = param_groups(model, **{"tags": True, **options})
    return {name: group["tag"] for group in groups for name in group["param_names"]}


def tags_of_layers(model: nn.Module) -> dict[str, str]:
    """The tags of weights without norms, biases and embeddings, by names without numbers."""
    plain = ("norm", "bias", "embed", "position")
    return {without_numbers(n): tag for n, tag in tags(model).items() if tag not in plain}


# ---- language models ---------------------------------------------------------------------------


def test_gpt2_s_convolutions_are_the_layers_of_its_blocks() -> None:
    block = "transformer.h.#."
    assert tags_of_layers(gpt2(tied=False)) == {
        f"{block}attn.c_attn.weight": "attn_qkv", f"{block}attn.c_proj.weight": "attn_o",
        f"{block}mlp.c_fc.weight": "ffn_up", f"{block}mlp.c_proj.weight": "ffn_down",
        "lm_head.weight": "head",
    }  # fmt: skip
    crossing = tags_of_layers(gpt2(add_cross_attention=True))
    assert crossing[f"{block}crossattention.c_attn.weight"] == "attn_qkv", "key and value"
    assert crossing[f"{block}crossattention.q_attn.weight"] == "attn_q"


def test_llama_s_gate_is_one_of_the_feed_forward_part() -> None:
    model = llama()
    block = "model.layers.#."
    assert tags_of_layers(model) == {
        **{f"{block}self_attn.{x}_proj.weight": f"attn_{x}" for x in "qkvo"},
        **{f"{block}mlp.{x}_proj.weight": f"ffn_{x}" for x in ("gate", "up", "down")},
        "lm_head.weight": "head",
    }  # fmt: skip
    norms = {name for name, tag in tags(model).items() if tag == "norm"}
    assert norms == {name for name, _ in model.named_parameters() if "norm" in name}


def test_bert_s_norm_of_embeddings_is_a_norm() -> None:
    found = tags(transformers.BertForPreTraining(transformers.BertConfig(**SMALL)))
    assert found["bert.embeddings.LayerNorm.weight"] == "norm"
    assert found["bert.embeddings.LayerNorm.bias"] == "bias"
    assert found["bert.embeddings.word_embeddings.weight"] == "embed"
    layer = "bert.encoder.layer.0."
    assert {n: found[layer + n + ".weight"] for n in BERT} == BERT
    assert found["bert.pooler.dense.weight"] == "mlp", "no part of a block"


BERT = {
    "attention.self.query": "attn_q", "attention.self.key": "attn_k",
    "attention.self.value": "attn_v", "attention.output.dense": "attn_o",
    "attention.output.LayerNorm": "norm", "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
}  # fmt: skip


def test_projections_of_interleaved_heads_are_attention_s_and_stay_whole() -> None:
    model = transformers.GPTNeoXForCausalLM(transformers.GPTNeoXConfig(**SMALL))
    layers = tags_of_layers(model)
    assert layers["gpt_neox.layers.#.attention.query_key_value.weight"] == "attn_qkv"
    assert layers["gpt_neox.layers.#.attention.dense.weight"] == "attn_o"
    assert layers["gpt_neox.layers.#.mlp.dense_h_to_#h.weight"] == "ffn_up"
    groups = param_groups(model, tags=True, tag_rates=True, fused="split")
    (fused,) = [group for group in groups if group["tag"] == "attn_qkv"]
    assert "parts" not in fused and "lr_scale" not in fused


APART, FUSED = {"attn_q", "attn_k", "attn_v", "attn_o"}, {"attn_qkv", "attn_o"}
TWO, THREE = {"ffn_up", "ffn_down"}, {"ffn_gate", "ffn_up", "ffn_down"}
#: Tags of the layers in the blocks of each architecture, however they are called.
LAYERS: dict[str, set[str]] = {
    "mistral": APART | THREE, "qwen2": APART | THREE, "gemma": APART | THREE, "t5": APART | THREE,
    "phi3": FUSED | TWO, "bloom": FUSED | TWO, "falcon": FUSED | TWO, "phi": APART | TWO,
    "opt": APART | TWO, "bart": APART | TWO, "whisper": APART | TWO, "roberta": APART | TWO,
    "distilbert": APART | TWO, "electra": APART | TWO, "clip": APART | TWO, "vit": APART | TWO,
    "swin": APART | TWO, "convnext": TWO, "mixer": TWO, "resnet": set(), "mlp": set(),
    "recommender": set(), "mamba": set(),
}  # fmt: skip


@pytest.mark.parametrize("architecture", LAYERS)
def test_blocks_have_their_layers_and_each_as_often_as_the_others(architecture: str) -> None:
    model = made(architecture)
    found = tags(model)
    count = {tag: list(found.values()).count(tag) for tag in set(found.values())}
    layers = {tag: n for tag, n in count.items() if tag.startswith(("attn_", "ffn_"))}
    assert set(layers) == LAYERS[architecture]
    attention = {n for tag, n in layers.items() if tag.startswith("attn_")}
    assert len(attention) <= 1 and len({n for t, n in layers.items() if t.startswith("ffn")}) <= 1


def test_what_remains_without_a_tag_is_a_mamba_s_own() -> None:
    others = {
        (architecture, without_numbers(name))
        for architecture in ARCHITECTURES
        for name, tag in tags(made(architecture)).items()
        if tag == "other"
    }
    mixer = "backbone.layers.#.mixer."
    assert others == {("mamba", mixer + "A_log"), ("mamba", mixer + "D")}


def test_experts_are_feed_forward_and_what_chooses_among_them_is_not() -> None:
    config = transformers.MixtralConfig(**SMALL, num_key_value_heads=2, num_local_experts=4)
    layers = tags_of_layers(transformers.MixtralForCausalLM(config))
    assert layers["model.layers.#.mlp.experts.gate_up_proj"] == "ffn_up"
    assert layers["model.layers.#.mlp.experts.down_proj"] == "ffn_down"
    assert layers["model.layers.#.mlp.gate.weight"] == "mlp"


# ---- models written by hand --------------------------------------------------------------------


@pytest.mark.parametrize("layer", [nn.TransformerEncoderLayer, nn.TransformerDecoderLayer])
def test_torch_s_own_layers(layer: Any) -> None:
    found = tags(layer(32, 4, 64))
    assert found["linear1.weight"] == "ffn_up" and found["linear2.weight"] == "ffn_down"
    assert found["self_attn.in_proj_weight"] == "attn_qkv"
    assert found["self_attn.out_proj.weight"] == "attn_o"
    assert found["norm1.weight"] == "norm"
    assert found["self_attn.in_proj_bias"] == found["linear1.bias"] == "bias"
    apart = tags(nn.MultiheadAttention(32, 4, kdim=16, vdim=24, add_bias_kv=True))
    assert [apart[f"{x}_proj_weight"] for x in "qkv"] == ["attn_q", "attn_k", "attn_v"]
    assert apart["bias_k"] == apart["bias_v"] == "bias"


def test_layers_that_blocks_hold_themselves() -> None:
    found = tags(TinyGPT())
    block = {n.removeprefix("blocks.1."): t for n, t in found.items() if n.startswith("blocks.1.")}
    assert {n: t for n, t in block.items() if t != "bias"} == {
        "ln.weight": "norm", "qkv.weight": "attn_qkv", "fc_in.weight": "ffn_up",
        "fc_out.weight": "ffn_down",
    }  # fmt: skip
    assert found["wpe.weight"] == "position" and found["out.weight"] == "head"


def stacked(**layers: nn.Module) -> nn.Module:
    """Two blocks in a row, and a head."""
    blocks = [nn.ModuleDict(layers), nn.ModuleDict({"ln": nn.LayerNorm(8)})]
    return nn.ModuleDict({"blocks": nn.ModuleList(blocks), "head": nn.Linear(8, 5)})


def in_block(**layers: nn.Module) -> dict[str, str]:
    found = tags(stacked(**layers))
    start = "blocks.0."
    return {
        n.removeprefix(start).removesuffix(".weight"): tag
        for n, tag in found.items()
        if n.startswith(start) and tag != "bias"
    }


def test_one_word_means_one_thing_in_attention_and_another_beside_it() -> None:
    attention = nn.ModuleDict({n: nn.Linear(8, 8) for n in ("q", "wk", "to_v", "c_proj", "gate")})
    feed_forward = nn.ModuleDict({n: nn.Linear(8, 8) for n in ("gate", "w_up", "c_proj", "q")})
    assert in_block(attn=attention, ffn=feed_forward) == {
        "attn.q": "attn_q", "attn.wk": "attn_k", "attn.to_v": "attn_v", "attn.c_proj": "attn_o",
        "attn.gate": "attn_gate", "ffn.gate": "ffn_gate", "ffn.w_up": "ffn_up",
        "ffn.c_proj": "ffn_down", "ffn.q": "mlp",
    }  # fmt: skip


def test_w1_is_a_gate_where_there_is_a_third() -> None:
    two = nn.ModuleDict({n: nn.Linear(8, 8) for n in ("w1", "w2")})
    three = nn.ModuleDict({n: nn.Linear(8, 8) for n in ("w1", "w2", "w3")})
    assert in_block(mlp=two) == {"mlp.w1": "ffn_up", "mlp.w2": "ffn_down"}
    assert in_block(mlp=three) == {
        "mlp.w1": "ffn_gate", "mlp.w2": "ffn_down", "mlp.w3": "ffn_up"
    }  # fmt: skip


def test_numbers_leave_it_to_widths_and_to_what_holds_them() -> None:
    to_out = nn.Sequential(nn.Linear(8, 8), nn.Dropout())
    found = in_block(
        attn=nn.ModuleDict({"to_out": to_out}),
        mlp=nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 8), nn.Linear(8, 8)),
    )
    assert found == {
        "attn.to_out.0": "attn_o", "mlp.0": "ffn_up", "mlp.2": "ffn_down", "mlp.3": "mlp"
    }  # fmt: skip
    assert set(tags(nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 8))).values()) == {
        "mlp", "bias", "head"
    }, "no block"  # fmt: skip


class Holder(Bare):
    """A module whose type says nothing."""


class LayerScale(Bare):
    """As vision transformers have it."""


class RotaryEmbedding(Bare):
    """With learned frequencies."""


class RMSNormGated(Bare):
    """A norm by the middle of its name."""


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (Holder(property=(8, 8), properties=(8,)), "other"),
        (Holder(rope_theta=(8,)), "rope"),
        (RotaryEmbedding(weight=(8,)), "rope"),
        (Holder(logit_scale=()), "scaling"),
        (Holder(scale_factor=(3,)), "scaling"),
        (Holder(upscaled=(3,)), "other"),
        (LayerScale(weight=(8,)), "scaling"),
        (RMSNormGated(weight=(8,)), "norm"),
        (Holder(cls_token=(1, 1, 8)), "embed"),
        (Holder(class_embedding=(8,)), "embed"),
        (Holder(pos_embed=(1, 9, 8)), "position"),
        (nn.ModuleDict({"patch_embed": nn.Conv2d(3, 8, 4)}), "conv"),
        (nn.ModuleDict({"tokens": nn.Conv1d(8, 8, 3, groups=8)}), "conv"),
        (nn.LSTM(8, 8), "mlp"),
    ],
    ids=str,
)
def test_names_do_not_mislead(module: Any, expected: str) -> None:
    assert {tag for tag in tags(module).values() if tag != "bias"} == {expected}


def test_plain_layers_are_no_feed_forward_part_by_their_numbers() -> None:
    """As in LeNet: fc1 leads to fc2, but nothing says that they are a block."""
    model = nn.ModuleDict({f"fc{k}": nn.Linear(8, 8) for k in (1, 2, 3)})
    found = {n: tag for n, tag in tags(model).items() if tag != "bias"}
    assert found == {"fc1.weight": "mlp", "fc2.weight": "mlp", "fc3.weight": "head"}


def test_magnitudes_of_weight_norm_are_scales() -> None:
    found = tags(stacked(fc1=parametrizations.weight_norm(nn.Linear(8, 9))))
    weight = "blocks.0.fc1.parametrizations.weight.original"
    assert found[f"{weight}0"] == "scaling" and found[f"{weight}1"] == "ffn_up"


# ---- shared, adapted ---------------------------------------------------------------------------


def test_a_shared_parameter_has_the_tag_of_its_role_or_a_general_one() -> None:
    assert tags(TinyGPT(tied=True))["wte.weight"] == "embed"
    layer = nn.Linear(8, 8)
    found = in_block(attn=nn.ModuleDict({"q_proj": layer, "k_proj": layer}))
    assert found == {"attn.q_proj": "mlp"}, "query and key in one: neither"


def test_adapters_have_their_own_tags_and_the_layers_below_keep_theirs() -> None:
    def adapted(**options: Any) -> nn.Module:
        config = LoraConfig(r=4, target_modules=["c_fc", "wte"], fan_in_fan_out=True, **options)
        model: nn.Module = get_peft_model(gpt2(), config)
        return model.requires_grad_(True)

    found = tags(adapted())
    plain = {f"base_model.model.{name}": tag for name, tag in tags(gpt2()).items()}
    below = {n.replace(".base_layer", ""): t for n, t in found.items() if "lora" not in n}
    assert below == plain
    factors = {t: {n.split("lora_")[1][:11] for n in found if found[n] == t and "lora" in n}
               for t in ("lora_a", "lora_b")}  # fmt: skip
    assert factors == {"lora_a": {"A.default.w", "embedding_A"[:11]},
                       "lora_b": {"B.default.w", "embedding_B"[:11]}}  # fmt: skip
    dora = tags(adapted(use_dora=True))
    assert {t for n, t in dora.items() if "magnitude" in n} == {"scaling"}


# ---- whatever the model ------------------------------------------------------------------------

WORDS = ("attn", "mlp", "q_proj", "gate", "head", "norm", "rope", "experts", "proj", "w1", "embed")
PIECES: Any = {
    "linear": lambda: nn.Linear(6, 5), "embedding": lambda: nn.Embedding(7, 6),
    "norm": lambda: nn.LayerNorm(6), "conv": lambda: nn.Conv1d(4, 6, 3),
    "attention": lambda: nn.MultiheadAttention(4, 2), "bare": lambda: Bare(q=(3, 4), scale=(1,)),
}  # fmt: skip
trees = st.recursive(
    st.sampled_from(sorted(PIECES)),
    lambda inner: st.dictionaries(st.sampled_from(WORDS), inner, min_size=1, max_size=3),
    max_leaves=8,
)


def planted(tree: Any) -> nn.Module:
    if isinstance(tree, str):
        return PIECES[tree]()  # type: ignore[no-any-return]
    return nn.ModuleDict({name: planted(below) for name, below in tree.items()})


@settings(max_examples=100, deadline=None)
@given(tree=trees, split=st.booleans())
def test_tags_only_make_the_groups_finer(tree: Any, split: bool) -> None:
    """No name changes what a type says, and no role changes by the tags."""
    model = planted(tree)
    fused = "split" if split else "whole"
    plain = {n: g["role"] for g in param_groups(model, fused=fused) for n in g["param_names"]}
    groups = param_groups(model, tags=True, fused=fused)
    assert {n: g["role"] for g in groups for n in g["param_names"]} == plain
    keys = [(g["tag"], g["role"], str(g.get("parts"))) for g in groups]
    assert len(keys) == len(set(keys))
    named = dict(model.named_parameters())
    for group in groups:
        assert [named[n] for n in group["param_names"]] == group["params"] != []
    found = tags(model)
    types: Any = {nn.LayerNorm: {"norm"}, nn.Conv1d: {"conv", "head"}}
    own = {id(m.weight): types[type(m)] for m in model.modules() if type(m) in types}
    assert all(found[n] in own[id(p)] for n, p in named.items() if id(p) in own)
