"""Preset Tiger's arguments and keys: what becomes of them, and what is refused."""

from __future__ import annotations

import copy
import logging
from typing import Any

import pytest
import torch
from torch import nn

from cosmic import param_groups
from cosmic.presets import Tiger
from helpers import digest, normal, parameter, refused, take_steps


def tiger(**options: Any) -> Tiger:
    optimizer = Tiger([parameter(0, 64, 65)], **options)
    take_steps(optimizer, 0, 2)
    return optimizer


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {"rule": "softsign", "gate": "trust", "blend": 0.2, "state_dtype": "fp32+factored"}),
        ({"sign_blend": 0.7, "sign_tau": 0.3}, {"blend": 0.7, "kappa": 0.3}),
        ({"sign_mode": "sign"}, {"kappa": 1e-30}),
        ({"factored": False}, {"state_dtype": "fp32+fp32"}),
        ({"mom_dtype": "bf16"}, {"state_dtype": "bf16+factored"}),
        ({"mom_dtype": "u4", "factored": False}, {"state_dtype": "u4+v4"}),
        ({"state_dtype": "q8", "factored": True}, {"state_dtype": "q8"}),
        ({"use_trust_ratio": False}, {"gate": None}),
        ({"use_trust_ratio": False, "agc_clip": 0.1}, {"gate": "agc", "agc_clip": 0.1}),
        ({"agc_clip": 0.02}, {"gate": "trust", "trust_coefficient": 0.2}),
        ({"trust_ema_beta": 0.9}, {"norm_decay": 0.9}),
        ({"rms_clip_threshold": 0.5}, {"clip_update": 0.5, "norm_granularity": "tensor"}),
        ({"rms_clip_granularity": "group"}, {"clip_update": None, "norm_granularity": "tensor"}),
        (
            {"rms_clip_granularity": "group", "rms_clip_threshold": 0.5, "use_trust_ratio": False},
            {"clip_update": 0.5, "norm_granularity": "group"},
        ),
    ],
    ids=str,
)
def test_arguments_become_cosmics_options(
    options: dict[str, Any], expected: dict[str, Any]
) -> None:
    """Of the optimizer, of a group, and of a group between two steps: the same ones."""
    from_start, in_group, later = tiger(**options), Tiger([parameter(9, 3)]), tiger()
    in_group.add_param_group({"params": [parameter(0, 64, 65)], **options})
    if "state_dtype" not in options:
        later.param_groups[0].update(options)
        take_steps(later, 2, 3)
        assert expected.items() <= later.param_groups[0].items()
    assert expected.items() <= from_start.param_groups[0].items()
    assert expected.items() <= in_group.param_groups[1].items()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"gate": "snr"}, ("gate is 'snr'", "it 'trust' of use_trust_ratio and agc_clip")),
        ({"gate": None}, ("gate is None", "use_trust_ratio")),
        ({"clip_update": 1.0}, ("clip_update is 1.0", "it None of rms_clip_threshold")),
        ({"blend": 0.6, "sign_blend": 0.3}, ("blend is 0.6", "makes it 0.3 of sign_blend")),
        ({"kappa": torch.ones(2)}, ("kappa is tensor", "sign_tau")),
        ({"rule": None}, ("rule is None", "it 'softsign': leave it out", "cosmic.Cosmic")),
    ],
    ids=str,
)
def test_options_of_cosmics_that_tigers_make_otherwise_are_refused(
    options: dict[str, Any], words: tuple[str, ...]
) -> None:
    optimizer = tiger()
    with refused(optimizer, ValueError, "param_groups[1]", *words):
        optimizer.add_param_group({"params": [parameter(1, 9)], **options})
    copied = {k: x for k, x in optimizer.param_groups[0].items() if k not in ("params", "parts")}
    optimizer.add_param_group({**copied, "params": [parameter(2, 9)]})  # as wrappers do
    assert optimizer.param_groups[1]["gate"] == "trust"


REFUSED: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "precond": ({"trust_space": "precond"}, ("'trust_space'] is 'precond'", "expected 'update'")),
    "alpha": ({"precond_alpha": 0.5}, ("'precond_alpha'] is 0.5", "expected 1")),
    "fp16": (
        {"mom_dtype": "fp16"},
        ("'mom_dtype'] is 'fp16'", "'fp32', 'bf16', 'q8' or 'u4'. 'bf16' is as small"),
    ),
    "tau": ({"sign_tau": 0.0}, ("'sign_tau'] is 0.0", "units of Adam's update")),
    "blend": ({"sign_blend": 1.5}, ("'sign_blend'] is 1.5", "[0, 1]")),
    "mode": ({"sign_mode": "soft"}, ("'sign_mode'] is 'soft'", "'softsign'")),
    "ema": ({"trust_ema_beta": 1.0}, ("'trust_ema_beta'] is 1.0", "[0, 1)")),
    "clip": ({"agc_clip": -1.0}, ("'agc_clip'] is -1.0", "0 does not clip")),
    "threshold": ({"rms_clip_threshold": "1"}, ("'rms_clip_threshold'] is '1'",)),
    "granularity": ({"rms_clip_granularity": "column"}, ("'param', 'row' or 'group'",)),
    "rows": (
        {
            "rms_clip_granularity": "row",
            "trust_ema_beta": 0.9,
            "rms_clip_threshold": 1.0,
            "use_trust_ratio": False,
        },
        ("'row' and trust_ema_beta 0.9",),
    ),
    "factored": ({"factored": 1}, ("'factored'] is 1", "True or False")),
    "tensor": ({"sign_blend": torch.ones(2)}, ("'sign_blend'] is tensor",)),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_sane_meaning_is_refused_with_what_to_do(case: str) -> None:
    """At the start, in a new group, and in one that was changed between two steps."""
    options, words = REFUSED[case]
    with pytest.raises(ValueError) as caught:
        Tiger([parameter(0, 9)], **options)
    assert all(word in str(caught.value) for word in words)
    optimizer = tiger()
    with refused(optimizer, ValueError, "param_groups[1]", *words):
        optimizer.add_param_group({"params": [parameter(1, 9)], **options})
    assert len(optimizer.param_groups) == 1
    optimizer.param_groups[0].update(options)
    optimizer.param_groups[0]["params"][0].grad = normal(3, 64, 65)
    with refused(optimizer, ValueError, "param_groups[0]", *words):
        optimizer.step()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"use_triton_fused_apply": True}, "use_triton_fused_apply is True; expected False"),
        ({"use_triton_bucket_stats": True}, "expected False: there is no GPU here"),
        ({"bucket_scalarless": False}, "bucket_scalarless is False; expected True"),
        ({"bucket_standardize": True}, "rms_clip_granularity='group' bounds them"),
        ({"state_prune_threshold": 1e-3}, "state_dtype='u4\\+factored' does"),
        ({"update_buffer_dtype": "fp8"}, "expected 'param', 'fp32', 'bf16' or 'fp16'"),
        ({"plateau_patience": 0}, "plateau_patience is 0; expected an int >= 1"),
        ({"auto_blend_bounds": (0.1, 2)}, "expected two numbers within"),
        ({"lr_decay": 0.0}, "lr_decay is 0.0; expected a number above 0"),
        ({"auto_lr": "yes"}, "auto_lr is 'yes'; expected True or False"),
        ({"skip_if_nonfinite": None}, "skip_if_nonfinite is None; expected True or False"),
        (
            {"auto_ffn_asym": True},
            r"auto_ffn_asym is True, and no group is tagged 'ffn_up'; .*\(model, tags=True\)",
        ),
    ],
    ids=str,
)
def test_an_argument_that_cannot_be_met_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Tiger([parameter(0, 9)], **options)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("preset", ""), ("use_sign", ""), ("trust_spaces", ""), ("agc", ""),
        ("lora_foo", "leave it out"), ("qkv_foo", "leave it out"),
        ("qkv_rules", "it is a key of a group"), ("qkv_lr_scales", "it is a key of a group"),
        ("gate", "Tiger makes it of use_trust_ratio and agc_clip"),
    ],
)  # fmt: skip
def test_an_unknown_argument_is_pythons_type_error(name: str, hint: str) -> None:
    options: dict[str, Any] = {name: 1}
    with pytest.raises(TypeError, match=f"got an unexpected keyword argument '{name}'.*{hint}"):
        Tiger([parameter(0, 9)], **options)


#: As tiger-optim's own tagger fills its groups.
COPIED: dict[str, Any] = {
    "use_foreach": True, "use_foreach_update": True, "foreach_min_bucket": 4,
    "bucket_standardize": False, "bucket_standardize_source": "global", "bucket_scalarless": True,
    "use_triton_bucket_stats": False, "use_triton_fused_apply": False, "agc_clip": 0.0,
    "rms_clip_threshold": 0.0, "rms_clip_granularity": "param", "block_trust_chunks": 0,
}  # fmt: skip


def test_arguments_without_effect_change_no_bit_and_are_kept_nowhere() -> None:
    more = {
        "update_buffer_dtype": "bf16", "agc_eps": 1e-6, "state_prune_interval": 7,
        "compile_guard": False, "profiler_ema_decay": 0.5,
    }  # fmt: skip
    whole = {k: v for k, v in COPIED.items() if k != "block_trust_chunks"}
    plain, whole_run = tiger(), tiger(**whole, **more)
    in_group = Tiger([{"params": [parameter(0, 64, 65)], "block_tag": "mlp", **COPIED, **more}])
    take_steps(in_group, 0, 2)
    assert digest(plain) == digest(whole_run) == digest(in_group)
    assert in_group.param_groups[0]["tag"] == "mlp"
    assert set(in_group.param_groups[0]) - {"tag"} == set(plain.param_groups[0])


def test_arguments_of_loops_that_are_not_here_are_told() -> None:
    with pytest.warns(UserWarning, match=r"lora_kp tunes a loop .* has no .* use .*LoRABalance"):
        Tiger([parameter(0, 64, 65)], lora_kp=0.6)
    with pytest.warns(UserWarning, match=r"lora_kp and qkv_lr_gain tune .*LoRABal.*QKVRates"):
        optimizer = Tiger([parameter(0, 64, 65)], lora_kp=0.6, qkv_lr_gain=0.02)
    take_steps(optimizer, 0, 2)
    assert digest(optimizer) == digest(tiger())


def test_what_a_controller_has_moved_stays_until_tigers_option_changes() -> None:
    optimizer = tiger(plateau_patience=1, auto_blend_gain=0.3)
    optimizer.report_metrics(1.0)
    optimizer.report_metrics(1.0)
    take_steps(optimizer, 2, 4)
    moved = optimizer.param_groups[0]["blend"]
    assert 0.2 < moved <= 0.8
    assert optimizer.param_groups[0]["sign_blend"] == 0.2
    optimizer.param_groups[0]["sign_tau"] = 0.5
    take_steps(optimizer, 4, 5)
    assert optimizer.param_groups[0]["blend"] == moved
    optimizer.param_groups[0]["sign_blend"] = 0.4
    take_steps(optimizer, 5, 6)
    assert optimizer.param_groups[0]["blend"] == 0.4


def test_plateaus_raise_the_blend_to_its_bound_and_descent_brings_it_back() -> None:
    optimizer = tiger(plateau_patience=1, auto_blend_bounds=(0.1, 0.8), auto_blend_gain=0.6)
    for _ in range(2):
        optimizer.report_metrics(1.0)
    take_steps(optimizer, 2, 3)
    high = optimizer.param_groups[0]["blend"]
    assert high == pytest.approx(0.8)
    for k in range(60):
        optimizer.report_metrics(0.9 - 0.01 * k)
    take_steps(optimizer, 3, 4)
    assert optimizer.param_groups[0]["blend"] == pytest.approx(0.2, abs=0.01)


def test_a_balance_of_feed_forward_layers_is_attached_where_groups_ask_for_it() -> None:
    def group(k: int, tag: str) -> dict[str, Any]:
        return {"params": [parameter(k, 20, 20)], "block_tag": tag, "auto_ffn_asym": True}

    optimizer = Tiger(
        [group(0, "ffn_up"), group(1, "ffn_down")], use_trust_ratio=False, ffn_asym_interval=1,
        sign_blend=1.0, ffn_asym_beta=0.0,
    )  # fmt: skip
    for step in range(40):
        up, down = (g["params"][0] for g in optimizer.param_groups)
        up.grad, down.grad = torch.ones(20, 20), normal(step, 20, 20)  # down moves less
        optimizer.step()
    scales = [g["lr_scale"] for g in optimizer.param_groups]
    assert 0.5 <= scales[0] < 1 < scales[1] <= 1.5


def test_a_balance_that_groups_and_the_argument_ask_for_is_one() -> None:
    groups = [
        {"params": [parameter(k, 9)], "tag": tag, "auto_ffn_asym": True}
        for k, tag in enumerate(("ffn_up", "ffn_down"))
    ]
    names = [c.name for c in Tiger(groups, auto_ffn_asym=True).controllers]
    assert names.count("FFNBalance") == 1


def test_an_argument_of_the_whole_optimizer_in_a_group_names_tiger() -> None:
    with pytest.raises(ValueError, match=r"Tiger\(params, skip_if_nonfinite=\.\.\.\)"):
        Tiger([{"params": [parameter(0, 9)], "skip_if_nonfinite": False}])


def test_staged_changes_are_made_in_their_order_and_when_their_turn_comes() -> None:
    optimizer = tiger(reflect_interval=3)
    optimizer.stage_group_update(0, {"sign_blend": ("mul", 2.0)})
    optimizer.stage_group_update(
        0, {"sign_blend": [("add", 0.1), ("clip", (0.0, 0.45))], "weight_decay": 0.1}
    )
    assert optimizer.param_groups[0]["sign_blend"] == 0.2
    take_steps(optimizer, 2, 3)
    assert optimizer.param_groups[0]["sign_blend"] == 0.45
    assert optimizer.param_groups[0]["weight_decay"] == 0.1
    optimizer.stage_group_update(0, {"sign_blend": ("logit-clip", (0.0, 0.0, 1.0))})
    optimizer.stage_group_update(0, {"trust_clip": [("pow", 2), ("exp", 0.0)]})
    assert optimizer.reflect_pending() == 2
    assert optimizer.param_groups[0]["sign_blend"] == pytest.approx(0.45)
    assert optimizer.param_groups[0]["trust_clip"] == 100
    assert optimizer.reflect_pending() == 0


def test_staged_changes_that_lead_out_of_range_change_nothing() -> None:
    optimizer = tiger()
    optimizer.stage_group_update(0, {"weight_decay": 0.5, "sign_blend": ("add", 2.0)})
    before = copy.deepcopy(optimizer.param_groups[0])
    with refused(optimizer, ValueError, "'sign_blend'] is 2.2"):
        optimizer.reflect_pending()
    assert optimizer.param_groups[0]["weight_decay"] == before["weight_decay"]
    with pytest.raises(ValueError, match="has no option 'sign'"):
        optimizer.stage_group_update(0, {"sign": 1})
    with pytest.raises(ValueError, match="'clip' of 'lr' has 3; expected the least"):
        optimizer.stage_group_update(0, {"lr": ("clip", 3)})
    with pytest.raises(IndexError, match=r"group_index is 9; expected .*, from 0 to 0"):
        optimizer.stage_group_update(9, {"lr": 1})
    with pytest.raises(TypeError, match="group_index is 'mlp'"):
        optimizer.stage_group_update("mlp", {"lr": 1})  # type: ignore[arg-type]


def test_metrics_are_what_was_reported_and_what_the_step_saw() -> None:
    optimizer = tiger(lr=3e-3)
    optimizer.report_metrics(torch.tensor(0.5, requires_grad=True) * 1, accuracy=0.25)
    found = optimizer.get_last_metrics()
    assert (found["loss"], found["accuracy"], found["step"]) == (0.5, 0.25, 2)
    assert found["groups"][0]["lr"] == 3e-3
    assert found["groups"][0]["gate"] == optimizer.gate_factors()["0"]
    with pytest.raises(TypeError, match="expected a real number"):
        optimizer.report_metrics("0.5")  # type: ignore[arg-type]


def test_the_profile_is_an_event_log(tmp_path: Any) -> None:
    path = tmp_path / "bench" / "profiles" / "tiger.jsonl"
    tiger(profiler_enabled=True, profiler_path=str(path), profiler_interval=2)
    steps = [line for line in path.read_text().splitlines() if '"event": "step"' in line]
    assert len(steps) == 1


def test_groups_of_a_model_take_tigers_options(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    model = nn.Sequential(nn.Embedding(50, 64), nn.Linear(64, 128), nn.LayerNorm(128))
    optimizer = Tiger(param_groups(model, tags=True), lr=1e-2, weight_decay=0.1)
    before = [p.detach().clone() for p in model.parameters()]
    model(torch.arange(50)).square().sum().backward()
    optimizer.step()
    assert all(not torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))
    assert all(group["gate"] == "trust" for group in optimizer.param_groups)
    assert caplog.records == []
