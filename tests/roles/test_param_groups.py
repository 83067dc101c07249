"""The groups that param_groups makes: complete, in order, of wrapped models, as overridden."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from cosmic import Cosmic, ParamGroups, param_groups
from cosmic.state.names import plain_name
from helpers import give_gradients
from role_models import SMALL, Bare, TinyGPT, found, gpt2, llama, roles_of

# Peft asks the model by a name that transformers is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")

# ---- what a group has --------------------------------------------------------------------------


def test_groups_are_as_torch_takes_them_and_in_the_model_s_order() -> None:
    model = gpt2()
    groups = param_groups(model)
    assert isinstance(groups, ParamGroups) and isinstance(groups, list)
    assert all(set(group) == {"params", "param_names", "role"} for group in groups)
    order = {id(p): k for k, p in enumerate(model.parameters())}
    for group in groups:
        places = [order[id(p)] for p in group["params"]]
        assert places == sorted(places)
        assert group["param_names"] == [
            name for name, p in model.named_parameters() if order[id(p)] in places
        ]
    firsts = [order[id(group["params"][0])] for group in groups]
    assert firsts == sorted(firsts)
    kinds: tuple[Any, ...] = (Cosmic, torch.optim.AdamW)
    for kind in kinds:
        optimizer = kind(param_groups(model), lr=1e-3)
        give_gradients(model.parameters(), 0)
        optimizer.step()
        assert [g["role"] for g in optimizer.param_groups] == [g["role"] for g in groups]


def test_weight_decay_is_the_caller_s() -> None:
    def decays(**options: Any) -> dict[str, float | None]:
        return {g["role"]: g.get("weight_decay") for g in param_groups(gpt2(), **options)}

    assert set(decays().values()) == {None}
    assert set(decays(weight_decay=0.1).values()) == {0.1}
    assert decays(no_decay_on_vectors=True) == {
        "embedding": None, "position": None, "norm": 0.0, "bias": 0.0, "matrix": None
    }  # fmt: skip
    both = {"no_decay_on_vectors": True, "no_decay_on_embeddings": True}
    assert decays(weight_decay=0.1, **both) == {
        "embedding": 0.0, "position": 0.0, "norm": 0.0, "bias": 0.0, "matrix": 0.1
    }  # fmt: skip


def test_it_says_what_it_found(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="cosmic"):
        groups = param_groups(TinyGPT(), fused="split")
    assert str(groups) == groups.table()
    lines = groups.table().splitlines()
    assert lines[0].split() == ["role", "tensors", "elements", "such", "as"]
    assert len(lines) == 1 + len(groups)
    (row,) = [line for line in lines if line.startswith("embedding")]
    assert row.split() == ["embedding", "1", "51,200", "wte.weight"]
    assert any(line.startswith("matrix of 3 parts ") for line in lines)
    assert any(line.endswith("and 1 more") for line in lines)
    (record,) = caplog.records
    assert record.levelno == logging.INFO and groups.table() in record.getMessage()


PIECES: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(6, 5), "embedding": lambda: nn.Embedding(7, 6),
    "norm": lambda: nn.LayerNorm(6), "conv": lambda: nn.Conv1d(4, 6, 3),
    "lstm": lambda: nn.LSTM(4, 5), "attention": lambda: nn.MultiheadAttention(4, 2),
    "bare": lambda: Bare(w=(3, 4), pos=(2, 3), scale=(1,), head=(2, 2)), "relu": nn.ReLU,
    "list": lambda: nn.ParameterList([torch.zeros(2, 3), torch.zeros(4)]),
}  # fmt: skip
NAMES = ("head", "body", "lm_head", "classifier", "wte", "module", "lora_A")
trees = st.recursive(
    st.sampled_from(sorted(PIECES)),
    lambda inner: st.tuples(st.sampled_from(NAMES), st.lists(inner, min_size=1, max_size=3)),
    max_leaves=8,
)


def planted(tree: Any, made: list[nn.Module], again: int) -> nn.Module:
    """A model by its tree; every now and then a module or a parameter that is there already."""
    if isinstance(tree, str):
        if made and again and len(made) % again == 0:
            return made[again % len(made)]
        made.append(PIECES[tree]())
        return made[-1]
    name, children = tree
    below = [planted(child, made, again) for child in children]
    return nn.ModuleDict({f"{name}_{k}" if k else name: m for k, m in enumerate(below)})


@settings(max_examples=150, deadline=None)
@given(tree=trees, again=st.integers(0, 3), frozen=st.integers(0, 4), fused=st.booleans())
def test_every_trainable_parameter_is_in_exactly_one_group(
    tree: Any, again: int, frozen: int, fused: bool
) -> None:
    made: list[nn.Module] = []
    model = planted(tree, made, again)
    linears = [m for m in made if isinstance(m, nn.Linear)]
    for other in linears[1:2]:
        other.weight = linears[0].weight
    for k, p in enumerate(model.parameters()):
        p.requires_grad_(not frozen or k % frozen > 0)
    groups = param_groups(model, fused="split" if fused else "whole")
    grouped = [id(p) for group in groups for p in group["params"]]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == {id(p) for p in model.parameters() if p.requires_grad}
    named = dict(model.named_parameters())
    for group in groups:
        assert [named[n] for n in group["param_names"]] == group["params"] != []
        if "parts" in group:
            dimension, sizes = group["parts"]
            assert {p.shape[dimension] for p in group["params"]} == {sum(sizes.values())}
    matrices = {id(p) for g in groups if g["role"] == "matrix" for p in g["params"]}
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    assert not matrices & tables


# ---- wrappers ----------------------------------------------------------------------------------


def compiled(model: nn.Module) -> Any:
    return torch.compile(model, backend="eager")


class Wrapped(nn.Module):
    """As DDP wraps: the same names below ``module``."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


@pytest.mark.parametrize(
    ("wrap", "prefix"),
    [
        (compiled, "_orig_mod."), (nn.DataParallel, "module."), (Wrapped, "module."),
        (lambda model: Wrapped(compiled(model)), "module._orig_mod."),
    ],
    ids=["compile", "DataParallel", "DDP", "both"],
)  # fmt: skip
@pytest.mark.parametrize("make", [gpt2, llama, TinyGPT])
def test_wrappers_change_names_and_nothing_else(wrap: Any, prefix: str, make: Any) -> None:
    plain = found(make())
    wrapped = wrap(make())
    assert found(wrapped) == {prefix + name: role for name, role in plain.items()}
    assert {plain_name(name) for name in found(wrapped)} == set(plain)
    some = next(iter(plain))
    assert found(wrapped, roles={some: "other"})[prefix + some] == "other"


def test_parametrized_weights_are_what_they_stand_for() -> None:
    model = nn.ModuleDict(
        {
            "spectral": parametrizations.spectral_norm(nn.Linear(8, 9)),
            "normed": parametrizations.weight_norm(nn.Linear(8, 9)),
            "table": parametrizations.weight_norm(nn.Embedding(12, 9)),
            "norm": nn.LayerNorm(8),
        }
    )
    weight = "parametrizations.weight.original"
    assert found(model) == {
        "spectral.bias": "bias", f"spectral.{weight}": "matrix", "normed.bias": "bias",
        f"normed.{weight}0": "vector", f"normed.{weight}1": "matrix",
        f"table.{weight}0": "embedding", f"table.{weight}1": "embedding",
        "norm.weight": "norm", "norm.bias": "bias",
    }  # fmt: skip
    assert found(model, roles={"spectral.weight": "other"})[f"spectral.{weight}"] == "other"


class FlatParameter(nn.Parameter):
    """As FSDP's is called."""


def test_flat_parameters_of_fsdp_are_refused_unless_their_role_is_given() -> None:
    model = nn.Module()
    model.register_parameter("_flat_param", FlatParameter(torch.zeros(100)))
    with pytest.raises(ValueError, match=r"_flat_param of FSDP .*use_orig_params=True"):
        param_groups(model)
    assert found(model, roles={"_flat_param": "other"}) == {"_flat_param": "other"}


def test_lazy_modules_are_refused_until_they_have_a_shape() -> None:
    model = nn.Sequential(nn.LazyLinear(8), nn.LayerNorm(8))
    with pytest.raises(ValueError, match=r"no shape yet: 0\.weight, 0\.bias; run a batch"):
        param_groups(model)
    model(torch.zeros(2, 4))
    assert found(model)["0.weight"] == "matrix"


def test_adapters_of_peft() -> None:
    def adapted(model: Any, **options: Any) -> Any:
        config = LoraConfig(r=4, target_modules=["c_attn", "wte"], fan_in_fan_out=True, **options)
        return get_peft_model(model, config)

    roles = roles_of(adapted(gpt2()))
    assert len(roles["lora_a"]) == 2 and all(".lora_A." in name for name in roles["lora_a"])
    assert len(roles["lora_b"]) == 3, "of the embedding, too"
    assert roles["embedding"] == {"base_model.model.transformer.wte.lora_embedding_A.default"}
    dora = roles_of(adapted(gpt2(), use_dora=True))
    assert all("magnitude" in name for name in dora["vector"]) and len(dora["vector"]) == 3
    labels: dict[str, Any] = {"num_labels": 3}
    config = transformers.GPT2Config(n_embd=64, n_layer=1, n_head=2, **labels, **ENDS)
    classifier = transformers.GPT2ForSequenceClassification(config)
    heads = roles_of(adapted(classifier, task_type="SEQ_CLS"))["head"]
    assert heads == {"base_model.model.score.modules_to_save.default.weight"}


ENDS: dict[str, Any] = {"vocab_size": 800, "n_positions": 64, "bos_token_id": 0, "eos_token_id": 0}

# ---- overrides ---------------------------------------------------------------------------------


def test_what_the_caller_knows_better_holds_and_the_first_entry_before_others() -> None:
    given: Any = {"blocks.0.qkv.weight": "other", nn.Linear: "vector", "w?e.weight": "head"}
    roles = found(TinyGPT(), roles=given)
    assert roles["blocks.0.qkv.weight"] == "other"
    assert roles["blocks.1.qkv.weight"] == roles["blocks.1.qkv.bias"] == "vector"
    assert roles["wte.weight"] == roles["wpe.weight"] == "head"
    assert roles["ln_f.weight"] == "norm"


def test_any_name_of_a_shared_parameter_will_do() -> None:
    assert found(TinyGPT(tied=True), roles={"out.weight": "head"})["wte.weight"] == "head"


@pytest.mark.parametrize(
    ("roles", "error", "message"),
    [
        ({"nothing.*": "matrix"}, ValueError, r"roles\['nothing\.\*'\] matches no parameter"),
        ({nn.Conv2d: "matrix"}, ValueError, r"roles\[Conv2d\] matches no .*such as wte\.weight"),
        ({"wte.weight": "matrices"}, ValueError, r"\['wte\.weight'\] is 'matrices'; expected one"),
        ({"wte.weight": None}, ValueError, r"is None; expected one of 'embedding'"),
        ({"*.bias": "matrix"}, ValueError, r"'\*\.bias'\] is 'matrix', but '.*', which it matches"),
        ({3: "matrix"}, TypeError, "roles has the key 3; expected a pattern"),
        ({int: "matrix"}, TypeError, "roles has the key <class 'int'>"),
        (["wte.weight"], TypeError, r"roles is \['wte\.weight'\]; expected a dict"),
    ],
)
def test_overrides_that_cannot_be(roles: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        param_groups(TinyGPT(), roles=roles)


def test_what_is_no_model_is_refused() -> None:
    model: Any = list(TinyGPT().parameters())
    with pytest.raises(TypeError, match=r"model is a list; expected an nn\.Module"):
        param_groups(model)
    with pytest.raises(ValueError, match="fused is 'thirds'; expected 'whole' or 'split'"):
        param_groups(TinyGPT(), fused="thirds")


# ---- fused projections -------------------------------------------------------------------------


def parts(model: nn.Module) -> dict[str, Any]:
    """The parts of each parameter that has some."""
    groups = param_groups(model, fused="split")
    return {n: g["parts"] for g in groups if "parts" in g for n in g["param_names"]}


def test_projections_are_whole_unless_asked_for() -> None:
    assert not any("parts" in group for group in param_groups(gpt2()))


def test_parts_of_attention() -> None:
    thirds = {"q": 64, "k": 64, "v": 64}
    assert list(parts(gpt2()).values()) == [(1, thirds)] * 2
    crossing = parts(gpt2(add_cross_attention=True))
    assert [p for n, p in crossing.items() if "cross" in n] == [(1, {"k": 64, "v": 64})] * 2
    assert list(parts(TinyGPT()).values()) == [(0, thirds)] * 2
    assert parts(nn.MultiheadAttention(64, 2)) == {"in_proj_weight": (0, thirds)}
    config = transformers.Phi3Config(**SMALL, num_key_value_heads=2)
    phi = parts(transformers.Phi3ForCausalLM(config))
    assert {n: p for n, p in phi.items() if ".0." in n} == {
        "model.layers.0.self_attn.qkv_proj.weight": (0, {"q": 64, "k": 32, "v": 32}),
        "model.layers.0.mlp.gate_up_proj.weight": (0, {"gate": 128, "up": 128}),
    }


def test_parts_of_recurrent_layers() -> None:
    lstm = nn.LSTM(8, 16, proj_size=4)
    gates = (0, dict.fromkeys("ifgo", 16))
    assert parts(lstm) == {"weight_ih_l0": gates, "weight_hh_l0": gates}
    gates = (0, dict.fromkeys("rzn", 16))
    assert parts(nn.GRUCell(8, 16)) == {"weight_ih": gates, "weight_hh": gates}
    assert parts(nn.RNN(8, 16)) == {}


def test_heads_that_are_interleaved_are_left_whole() -> None:
    """Thirds of such a weight would be no query, key and value."""
    neox = transformers.GPTNeoXConfig(**SMALL)
    assert parts(transformers.GPTNeoXForCausalLM(neox)) == {}
    bigcode = transformers.GPTBigCodeConfig(
        n_embd=64, n_layer=1, n_head=2, multi_query=False, **ENDS
    )
    assert parts(transformers.GPTBigCodeForCausalLM(bigcode)) == {}
    codegen = transformers.CodeGenConfig(n_embd=64, n_layer=1, n_head=4, rotary_dim=8, **ENDS)
    assert parts(transformers.CodeGenForCausalLM(codegen)) == {}
    bloom = transformers.BloomConfig(vocab_size=800, hidden_size=64, n_layer=1, n_head=4)
    assert parts(transformers.BloomForCausalLM(bloom)) == {}
    falcon = transformers.FalconConfig(**SMALL, multi_query=False)
    assert parts(transformers.FalconForCausalLM(falcon)) == {}


@pytest.mark.parametrize("name", ["CodeGenAttention", "GPTNeoXAttention"])
def test_a_copy_of_interleaved_attention_is_left_whole_too(name: str) -> None:
    """A layer called as those are whose thirds are query, key and value, in a class that is not."""
    for kind, expected in (("Attention", [(0, dict.fromkeys("qkv", 64))]), (name, [])):
        attention: nn.Module = type(kind, (nn.Module,), {})()
        attention.qkv_proj = nn.Linear(64, 192)
        model = nn.Sequential(attention, nn.Linear(64, 8))
        assert list(parts(model).values()) == expected


def test_the_parts_lie_one_after_another() -> None:
    """What GPT-2 calls query, key and value is what the parts cut out."""
    model = gpt2().eval()
    attention = model.transformer.h[0].attn
    seen: list[Tensor] = []
    attention.c_attn.register_forward_hook(lambda _, given, out: seen.extend([given[0], out]))
    model(torch.arange(5)[None])
    dimension, sizes = parts(model)["transformer.h.0.attn.c_attn.weight"]
    sizes = list(sizes.values())
    weights = torch.split(attention.c_attn.weight, sizes, dimension)
    outs = torch.split(seen[1], attention.split_size, dim=2)
    biases = torch.split(attention.c_attn.bias, sizes)
    for weight, bias, out in zip(weights, biases, outs, strict=True):
        torch.testing.assert_close(seen[0] @ weight + bias, out)
