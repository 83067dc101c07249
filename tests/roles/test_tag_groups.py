"""The groups that param_groups makes by tags: their options, overrides, refusals and summary."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from cosmic import Cosmic, ParamGroups, estimate_memory, param_groups
from cosmic.grouping.heads import is_linear
from cosmic.grouping.tag_options import TAG_RATES, UNDECAYED
from cosmic.grouping.tag_words import TAGS
from helpers import give_gradients
from role_models import SMALL, Bare, TinyGPT, found, gpt2, llama


def by_tag(model: nn.Module, **options: Any) -> dict[str, dict[str, Any]]:
    """The group of each tag; of models of which each tag has one role."""
    groups = param_groups(model, **{"tags": True, **options})
    assert len({group["tag"] for group in groups}) == len(groups)
    return {group["tag"]: group for group in groups}


# ---- options -----------------------------------------------------------------------------------


def test_a_group_has_no_option_but_those_of_its_tag() -> None:
    """Every option more would stand before what the optimizer is given."""
    plain = {"params", "param_names", "tag", "role"}
    for tag, group in by_tag(gpt2(tied=False)).items():
        assert set(group) - plain == ({"weight_decay"} if tag in UNDECAYED else set())
        assert group.get("weight_decay", 0.0) == 0.0


OPTIONS: dict[str, Any] = {
    "lr": 0.5, "betas": (0.8, 0.9), "eps": 1e-5, "maximize": True, "tier": 1, "exact": True,
    "lr_scale": 0.25, "state_dtype": "bf16", "gate": "snr", "c_min": 0.3, "beta_slow": 0.9999,
    "alpha": 2.0, "min_compress_size": 7, "stochastic_rounding": False, "momentum": 0.9,
    "matrix_rule": "muon", "ns_steps": 4, "slow_warmup": 10, "robustness": 0.5, "rel_floor": 0.2,
    "matrix_every": 2, "matrix_blocks": 2, "matrix_state_dtype": "m8", "weight_decay": 0.3,
}  # fmt: skip


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_of_the_optimizer_reaches_every_group(option: str) -> None:
    optimizer = Cosmic(param_groups(gpt2(), tags=True), **{option: OPTIONS[option]})
    untouched = [
        group
        for group in optimizer.param_groups
        if not (option == "weight_decay" and group["tag"] in UNDECAYED)
    ]
    assert untouched and {str(group[option]) for group in untouched} == {str(OPTIONS[option])}


def test_weight_decay_is_the_caller_s_but_for_tags_without() -> None:
    groups = by_tag(gpt2(tied=False), weight_decay=0.1)
    decays = {tag: group["weight_decay"] for tag, group in groups.items()}
    assert decays == {
        "embed": 0.0, "position": 0.0, "norm": 0.0, "bias": 0.0, "attn_qkv": 0.1, "attn_o": 0.1,
        "ffn_up": 0.1, "ffn_down": 0.1, "head": 0.1,
    }  # fmt: skip
    assert by_tag(Bare(foo=(8,)), weight_decay=0.1)["other"]["weight_decay"] == 0.0, "a vector"
    assert by_tag(Bare(foo=(8, 8)), weight_decay=0.1)["other"]["weight_decay"] == 0.1


def test_rates_are_there_when_asked_for() -> None:
    assert set(TAG_RATES) | set(UNDECAYED) <= set(TAGS)
    groups = by_tag(llama(), tag_rates=True)
    assert {tag: group.get("lr_scale") for tag, group in groups.items()} == {
        "embed": 0.5, "attn_q": 0.9, "attn_k": 0.8, "attn_v": 1.1, "attn_o": None,
        "ffn_gate": 0.9, "ffn_up": 1.1, "ffn_down": 0.9, "norm": 0.5, "head": None,
    }  # fmt: skip


def test_a_rate_scales_the_step() -> None:
    """Against the same step of a single group at the rate that results."""
    model, twin = llama(), llama()
    twin.load_state_dict(model.state_dict())
    optimizer = Cosmic(
        param_groups(model, tags=True, tag_rates=True, weight_decay=0.1), lr=0.25, tier=2
    )
    for m in (model, twin):
        give_gradients(m.parameters(), 0)
    optimizer.step()
    named = dict(twin.named_parameters())
    for group in optimizer.param_groups:
        rate = 0.25 * TAG_RATES.get(group["tag"], 1.0)
        params = [(n, named[n]) for n in group["param_names"]]
        decay = 0.0 if group["tag"] in UNDECAYED else 0.1
        Cosmic(params, lr=rate, weight_decay=decay, tier=2).step()
    for name, param in model.named_parameters():
        torch.testing.assert_close(param, named[name], rtol=1e-6, atol=1e-7)


# ---- fused projections -------------------------------------------------------------------------


def test_parts_of_fused_projections_have_the_rates_of_their_tags() -> None:
    fused = by_tag(gpt2(), tag_rates=True, fused="split")["attn_qkv"]
    assert fused["lr_scale"] == {"q": 0.9, "k": 0.8, "v": 1.1}
    assert len(fused["parts"][1]) == 3
    assert "lr_scale" not in by_tag(gpt2(), fused="split")["attn_qkv"]
    assert "lr_scale" not in by_tag(gpt2(), tag_rates=True)["attn_qkv"]
    config = transformers.Phi3Config(**SMALL, num_key_value_heads=2)
    groups = by_tag(transformers.Phi3ForCausalLM(config), tag_rates=True, fused="split")
    assert groups["attn_qkv"]["lr_scale"] == {"q": 0.9, "k": 0.8, "v": 1.1}
    assert groups["ffn_up"]["lr_scale"] == {"gate": 0.9, "up": 1.1}
    assert groups["ffn_down"]["lr_scale"] == 0.9


def test_overrides_of_parts_are_those_of_their_tags() -> None:
    given: dict[str, Any] = {"attn_v": {"lr_scale": 2.0}}
    fused = by_tag(gpt2(), tag_overrides=given, fused="split")["attn_qkv"]
    assert fused["lr_scale"] == {"v": 2.0}
    given["attn_qkv"] = {"lr_scale": 0.5}
    assert by_tag(gpt2(), tag_overrides=given, fused="split")["attn_qkv"]["lr_scale"] == 0.5
    crossing = param_groups(
        gpt2(add_cross_attention=True), tags=True, tag_rates=True, fused="split"
    )
    scales = [group["lr_scale"] for group in crossing if "parts" in group]
    assert scales == [{"q": 0.9, "k": 0.8, "v": 1.1}, {"k": 0.8, "v": 1.1}]


# ---- what the caller knows better --------------------------------------------------------------


def test_overrides_are_laid_over_all_else() -> None:
    given: dict[str, Any] = {
        "norm": {"weight_decay": 0.2, "lr_scale": 3.0},
        "ffn_up": {"lr_scale": 2, "tier": 1},
        "lora_b": {"lr_scale": 4.0},  # which the model lacks
        "embed": {"lr_scale": {"table": 3.0}},
    }
    groups = by_tag(llama(), weight_decay=0.1, tag_rates=True, tag_overrides=given)
    assert groups["norm"]["weight_decay"] == 0.2 and groups["norm"]["lr_scale"] == 3.0
    assert groups["ffn_up"]["lr_scale"] == 2 and groups["ffn_up"]["tier"] == 1
    assert groups["ffn_down"]["lr_scale"] == 0.9 and "tier" not in groups["ffn_down"]
    assert groups["embed"]["lr_scale"] == {"table": 3.0}
    assert groups["embed"]["lr_scale"] is not given["embed"]["lr_scale"]
    optimizer = Cosmic(groups.values(), lr=1e-3)
    assert [g["tier"] for g in optimizer.param_groups if g["tag"] == "ffn_up"] == [1]


def test_tags_that_the_caller_gives_hold_and_are_roles_too() -> None:
    model = Bare(table=(9, 8), a=(8, 8), b=(8, 8), c=(8,), d=(4, 8, 8), e=(8, 8))
    given: Any = {"a": "attn_q", "[bcd]": "ffn_up", "e": "position", "*": "head"}
    groups = param_groups(model, tags=given)
    assert {n: (g["tag"], g["role"]) for g in groups for n in g["param_names"]} == {
        "table": ("head", "head"), "a": ("attn_q", "matrix"), "b": ("ffn_up", "matrix"),
        "c": ("ffn_up", "vector"), "d": ("ffn_up", "other"), "e": ("position", "position"),
    }  # fmt: skip
    assert found(model, tags=given, roles={"a": "other"})["a"] == "other", "roles say more"
    by_type = param_groups(TinyGPT(), tags={nn.LayerNorm: "other"})
    assert {g["role"] for g in by_type if g["tag"] == "other"} == {"norm", "bias"}
    depthwise = nn.ModuleDict({"conv": nn.Conv1d(8, 8, 3, groups=8)})
    assert found(depthwise, tags={"conv.weight": "conv"})["conv.weight"] == "vector"


@pytest.mark.parametrize("role", ["matrix", "norm", "embedding"])
def test_roles_that_the_caller_gives_are_what_tags_go_by(role: str) -> None:
    groups = param_groups(TinyGPT(), tags=True, roles={"wpe.weight": role})
    (tag,) = [group["tag"] for group in groups if "wpe.weight" in group["param_names"]]
    assert tag == {"matrix": "mlp", "norm": "norm", "embedding": "embed"}[role]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"tags": {"nothing": "mlp"}}, ValueError, r"tags\['nothing'\] matches no parameter"),
        ({"tags": {"wte.*": "table"}}, ValueError, r"'table'; expected one of 'lora_a', .*'other'"),
        ({"tags": {3: "mlp"}}, TypeError, "tags has the key 3; expected a pattern"),
        ({"tags": "all"}, TypeError, "tags is 'all'; expected a dict"),
        ({"tags": None}, TypeError, "tags is None; expected a dict"),
        ({"tags": {"ln_f.bias": "lora_a"}}, ValueError, r"'lora_a', but 'ln_f\.bias', .* \(64,\)"),
        ({"tags": False, "strict": True}, ValueError, "strict is True, but tags is False"),
        ({"tags": False, "tag_rates": True}, ValueError, "tag_rates is True, but tags is False"),
        (
            {"tags": False, "tag_overrides": {"norm": {}}}, ValueError,
            r"tag_overrides is \{'norm': \{\}\}, but tags is False; expected tags=True",
        ),
        ({"tag_overrides": [3]}, TypeError, r"tag_overrides is \[3\]; expected a dict of tags"),
        ({"tag_overrides": {"lora": {}}}, ValueError, "has the tag 'lora'; expected one of 'lora_"),
        ({"tag_overrides": {"norm": 0.1}}, TypeError, r"tag_overrides\['norm'\] is 0\.1; expected"),
        (
            {"tag_overrides": {"lora_b": {"lr_scal": 2}}}, ValueError,
            r"tag_overrides\['lora_b'\] has 'lr_scal', which is no .*did you mean 'lr_scale'\?",
        ),
        (
            {"tag_overrides": {"norm": {"budget": "2%"}}}, ValueError,
            r"has 'budget', which is an option of the whole optimizer: Cosmic\(params, budget=",
        ),
        ({"tag_overrides": {"norm": {"params": []}}}, ValueError, "'params', which is no option"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        param_groups(TinyGPT(), **{"tags": True, **options})


def test_strict_names_what_no_rule_explains() -> None:
    config = transformers.MambaConfig(
        vocab_size=100, hidden_size=16, num_hidden_layers=2, state_size=4
    )
    model = transformers.MambaModel(config)
    with pytest.raises(ValueError, match=r"what 4 parameters do") as caught:
        param_groups(model, tags=True, strict=True)
    message = str(caught.value)
    assert "'layers.*.mixer.A_log' (2, (32, 4) of MambaMixer)" in message
    assert "'layers.*.mixer.D' (2, (32,) of MambaMixer)" in message
    assert "tags={'layers.*.mixer.A_log': ...}" in message
    given: Any = {"layers.*.mixer.A_log": "other", "layers.*.mixer.D": "scaling"}
    groups = param_groups(model, tags=given, strict=True)
    assert {n.rpartition(".")[2] for g in groups if g["tag"] == "other" for n in g["param_names"]} \
        == {"A_log"}  # fmt: skip
    param_groups(llama(), tags=True, strict=True)


# ---- optimizers and wrappers -------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Cosmic, torch.optim.AdamW])
def test_optimizers_carry_tags_and_checkpoints_do_too(kind: Any) -> None:
    model = gpt2()
    groups = param_groups(model, tags=True)
    optimizer = kind(groups, lr=1e-3)
    give_gradients(model.parameters(), 0)
    optimizer.step()
    expected = [group["tag"] for group in groups]
    assert [group["tag"] for group in optimizer.param_groups] == expected
    other = kind(param_groups(model, tags=True), lr=1e-3)
    other.load_state_dict(optimizer.state_dict())
    assert [group["tag"] for group in other.param_groups] == expected
    give_gradients(model.parameters(), 1)
    other.step()


def test_a_budget_sees_the_roles_and_not_the_tags() -> None:
    model = llama()

    def bought(groups: Any) -> dict[str, Any]:
        estimate = estimate_memory(model, "3%", groups=groups)
        return {tensor.name: (tensor.role, tensor.rung) for tensor in estimate.tensors}

    assert bought(param_groups(model, tags=True)) == bought(param_groups(model))


class Wrapped(nn.Module):
    """As DDP wraps: the same names below ``module``."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


@pytest.mark.parametrize("make", [gpt2, llama, TinyGPT])
def test_wrappers_change_no_tag(make: Any) -> None:
    def tags(model: nn.Module) -> list[tuple[str, int]]:
        return [(g["tag"], len(g["params"])) for g in param_groups(model, tags=True)]

    plain = tags(make())
    assert tags(torch.compile(make(), backend="eager")) == plain  # type: ignore[arg-type]
    assert tags(Wrapped(make())) == tags(nn.DataParallel(make())) == plain
    inner = make()
    for module in list(inner.modules()):
        for name, child in module.named_children():
            if is_linear(child) and id(child) not in heads(inner):
                setattr(module, name, Wrapped(child))
    assert tags(inner) == plain


def heads(model: nn.Module) -> set[int]:
    return {id(getattr(model, name, None)) for name in ("lm_head", "out")}


# ---- as text -----------------------------------------------------------------------------------


def test_it_prints_tags_and_what_they_bring_along(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="cosmic"):
        groups = param_groups(gpt2(), tags=True, tag_rates=True, fused="split")
    lines = str(groups).splitlines()
    assert lines[0].split() == ["tag", "role", "tensors", "elements", "options", "such", "as"]
    assert len(lines) == 1 + len(groups)
    (row,) = [line for line in lines if line.startswith("attn_qkv")]
    assert "matrix of 3 parts" in row and "lr_scale q:0.9 k:0.8 v:1.1" in row
    (row,) = [line for line in lines if line.startswith("norm")]
    assert "weight_decay 0, lr_scale 0.5" in row
    assert str(groups) in caplog.records[0].getMessage()


def test_the_summary_adds_up() -> None:
    groups = param_groups(llama(), tags=True, tag_rates=True, weight_decay=0.1)
    lines = groups.summary().splitlines()
    assert lines[0].split() == [
        "index", "tag", "tensors", "elements", "share", "lr", "weight_decay", "lr_scale", "lr", "*",
        "lr_scale",
    ]  # fmt: skip
    rows = {line.split()[1]: line.split() for line in lines[1:-1]}
    assert list(rows) == [tag for tag in TAGS if tag in {g["tag"] for g in groups}]
    total = sum(p.numel() for p in llama().parameters())
    assert lines[-1].split() == ["total", "21", f"{total:,}", "100.0%"]
    counts = {tag: int(row[3].replace(",", "")) for tag, row in rows.items()}
    assert sum(counts.values()) == total
    assert rows["attn_q"][4:] == [f"{counts['attn_q'] / total:.1%}", "-", "0.1", "0.9", "-"]
    assert rows["head"][4:] == [f"{counts['head'] / total:.1%}", "-", "0.1", "-", "-"]


def test_the_summary_of_an_optimizer_has_what_holds() -> None:
    optimizer = Cosmic(param_groups(llama(), tags=True, tag_rates=True), lr=0.0123456)
    summary = ParamGroups(optimizer.param_groups).summary(precision=3)
    rows = {line.split()[1]: line.split() for line in summary.splitlines()[1:-1]}
    assert rows["attn_k"][5:] == ["0.0123", "0", "0.8", "0.00988"]
    assert rows["head"][5:] == ["0.0123", "0", "-", "0.0123"]


def test_the_summary_sorts_and_adds_up_by_tag() -> None:
    model = Bare(c=(8,), a=(8, 8), table=(90, 8), b=(8, 9))
    groups = param_groups(model, tags={"[abc]": "ffn_up", "table": "embed"})
    assert [(g["tag"], g["role"]) for g in groups] == [
        ("ffn_up", "vector"), ("ffn_up", "matrix"), ("embed", "embedding")
    ]  # fmt: skip
    groups[0]["lr"], groups[1]["lr"] = 0.5, torch.tensor(0.25)

    def order(sort_by: str) -> list[str]:
        return [line.split()[0] for line in groups.summary(sort_by=sort_by).splitlines()[1:4]]

    assert order("index") == order("tag") == ["0", "1", "2"]
    assert order("n_params") == ["2", "1", "0"]
    first, second = groups.summary(sort_by="n_params").split("\n\n")
    assert first.splitlines()[-1].split() == ["total", "4", "864", "100.0%"]
    assert [line.split() for line in second.splitlines()[1:]] == [
        ["embed", "1", "1", "720", "83.3%", "-", "0", "-", "-"],
        ["ffn_up", "2", "3", "144", "16.7%", "0.25", "to", "0.5", "-", "-", "0.25", "to", "0.5"],
    ]


def test_the_summary_refuses_what_it_does_not_know() -> None:
    groups = param_groups(TinyGPT(), tags=True)
    with pytest.raises(ValueError, match="sort_by is 'size'; expected one of 'tag', 'index'"):
        groups.summary(sort_by="size")
    with pytest.raises(ValueError, match="precision is 0; expected an int >= 1"):
        groups.summary(precision=0)
    assert groups.summary(sort_by="index") != param_groups(TinyGPT()).summary(sort_by="index")
