"""A run may change from torch.optim.AdamW to Cosmic and back in the middle."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR

from cosmic import Cosmic
from cosmic.rungs import combinations
from cosmic.state.building import decoded_moments
from helpers import (
    UNUSUAL,
    digest,
    give_gradients,
    normal,
    parameters,
    refused,
    same_bits,
    through_a_file,
)

SHAPES = ((40, 129), (511,), (7, 3), (1,), ())
Options = dict[str, Any]
Saved = dict[str, Any]


def groups_of(params: list[nn.Parameter], *, named: bool) -> list[Options]:
    """Two groups that differ in every option that AdamW has too."""
    members: Any = [(f"layer.{k}", p) for k, p in enumerate(params)] if named else params
    return [
        {"params": members[:2]},
        {
            "params": members[2:],
            "lr": 5e-3, "betas": (0.7, 0.9), "eps": 1e-5, "weight_decay": 0.02, "maximize": True,
        },
    ]  # fmt: skip


def params_of(optimizer: Optimizer) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def same_params(params: Iterable[Tensor]) -> list[nn.Parameter]:
    return [nn.Parameter(p.detach().clone()) for p in params]


def steps(optimizer: Optimizer, first: int, last: int) -> None:
    for step in range(first, last):
        give_gradients(params_of(optimizer), seed=step)
        optimizer.step()


def adamw_of(params: list[nn.Parameter], *, named: bool = False, **options: Any) -> AdamW:
    return AdamW(groups_of(params, named=named), **{**UNUSUAL, **options})


def cosmic_of(params: list[nn.Parameter], *, named: bool = False, **options: Any) -> Cosmic:
    """Options that AdamW's checkpoint must bring are left at their defaults."""
    groups = [{"params": g["params"]} for g in groups_of(params, named=named)]
    return Cosmic(groups, **{"state_dtype": "fp32", "stochastic_rounding": False, **options})


def assert_close(ours: Optimizer, theirs: Optimizer, rtol: float, atol: float) -> None:
    for p, q in zip(params_of(ours), params_of(theirs), strict=True):
        torch.testing.assert_close(p, q, rtol=rtol, atol=atol)


# ---- there and back ----------------------------------------------------------------------------

#: Float rounding: of moments and arithmetic. AdamW's moments of bf16 parameters are in bf16, so
#: that the two differ by some units of its last place.
TOLERANCES = {
    torch.float32: (2e-6, 2e-7),
    torch.complex64: (2e-6, 2e-7),
    torch.float64: (1e-14, 1e-15),
    torch.bfloat16: (2.0**-7, 2.0**-7),
}
KINDS: dict[str, tuple[Options, bool]] = {
    "plain": ({"foreach": False}, False),
    "named": ({}, True),
    "fused": ({"fused": True}, False),
    "foreach": ({"foreach": True}, False),
}
CASES = [
    (dtype, kind)
    for dtype in TOLERANCES
    for kind in KINDS
    if not (kind == "fused" and dtype.is_complex)
]


@pytest.mark.parametrize(("dtype", "kind"), CASES, ids=str)
def test_there_and_back_is_adamw_all_along(dtype: torch.dtype, kind: str) -> None:
    """Cosmic takes steps 5 to 9 of 14."""
    options, named = KINDS[kind]
    whole = adamw_of(parameters(*SHAPES, dtype=dtype), named=named, **options)
    start = adamw_of(parameters(*SHAPES, dtype=dtype), named=named, **options)
    rtol, atol = TOLERANCES[dtype]
    steps(start, 0, 5)
    middle = cosmic_of(same_params(params_of(start)), named=named)
    middle.load_state_dict(through_a_file(start.state_dict()))
    steps(middle, 5, 10)
    steps(whole, 0, 10)
    assert_close(middle, whole, rtol, atol)
    end = adamw_of(same_params(params_of(middle)), named=named, lr=9.0, **options)
    end.load_state_dict(through_a_file(middle.to_adamw_state_dict()))
    steps(end, 10, 14)
    steps(whole, 10, 14)
    assert_close(end, whole, 2 * rtol, 2 * atol)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_exported_state_is_what_adamw_saves(dtype: torch.dtype) -> None:
    """Keys, shapes, options; loaded into AdamW, the dtypes too."""
    adamw = adamw_of(parameters(*SHAPES, dtype=dtype), foreach=False)
    steps(adamw, 0, 3)
    cosmic = cosmic_of(same_params(params_of(adamw)))
    cosmic.load_state_dict(adamw.state_dict())
    exported, saved = cosmic.to_adamw_state_dict(), adamw.state_dict()
    assert exported["state"].keys() == saved["state"].keys()
    for ours, theirs in zip(exported["state"].values(), saved["state"].values(), strict=True):
        assert ours.keys() == theirs.keys()
        for key, value in theirs.items():
            assert torch.equal(ours[key].to(value.dtype), value), key
    for ours, theirs in zip(exported["param_groups"], saved["param_groups"], strict=True):
        assert {**ours, "foreach": None} == {**theirs, "foreach": None}
    again = adamw_of(parameters(*SHAPES, dtype=dtype), foreach=False)
    again.load_state_dict(exported)
    for p, q in zip(params_of(again), params_of(adamw), strict=True):
        assert same_bits(again.state[p]["exp_avg"], adamw.state[q]["exp_avg"])


SCHEDULERS: dict[str, Callable[[Optimizer], Any]] = {
    "lambda": lambda o: LambdaLR(o, lambda t: 1 / (t + 1)),
    "cosine": lambda o: CosineAnnealingLR(o, 12),
}


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_schedules_go_on(scheduler: str) -> None:
    """``initial_lr`` is in AdamW's checkpoint and in ours; the scheduler has its own."""
    make = SCHEDULERS[scheduler]

    def run(optimizer: Optimizer, schedule: Any, first: int, last: int) -> None:
        for step in range(first, last):
            steps(optimizer, step, step + 1)
            schedule.step()

    whole, start = adamw_of(parameters(*SHAPES)), adamw_of(parameters(*SHAPES))
    of_whole, of_start = make(whole), make(start)
    run(whole, of_whole, 0, 12)
    run(start, of_start, 0, 4)
    middle = cosmic_of(same_params(params_of(start)))
    of_middle = make(middle)
    middle.load_state_dict(start.state_dict())
    of_middle.load_state_dict(of_start.state_dict())
    run(middle, of_middle, 4, 8)
    end = adamw_of(same_params(params_of(middle)))
    of_end = make(end)
    end.load_state_dict(middle.to_adamw_state_dict())
    of_end.load_state_dict(of_middle.state_dict())
    run(end, of_end, 8, 12)
    assert [g["initial_lr"] for g in end.param_groups] == [UNUSUAL["lr"], 5e-3]
    assert [g["lr"] for g in end.param_groups] == [g["lr"] for g in whole.param_groups]
    assert_close(end, whole, 4e-6, 4e-7)


def test_a_parameter_without_a_gradient_stays_without_state() -> None:
    params = parameters(*SHAPES)
    adamw = adamw_of(params)
    give_gradients(params, 0)
    params[1].grad = None
    adamw.step()
    cosmic = cosmic_of(same_params(params))
    cosmic.load_state_dict(adamw.state_dict())
    assert params_of(cosmic)[1] not in cosmic.state
    assert set(cosmic.to_adamw_state_dict()["state"]) == {0, 2, 3, 4}
    steps(cosmic, 1, 2)
    assert [int(cosmic.state[p]["step"]) for p in params_of(cosmic)] == [2, 1, 2, 2, 2]


def test_adamw_before_its_first_step() -> None:
    """Options alone."""
    cosmic = cosmic_of(parameters(*SHAPES))
    cosmic.load_state_dict(adamw_of(parameters(*SHAPES)).state_dict())
    assert cosmic.param_groups[0]["lr"] == UNUSUAL["lr"]
    assert cosmic.param_groups[1]["betas"] == (0.7, 0.9)
    assert not cosmic.state


# ---- compressed --------------------------------------------------------------------------------

PACKED = [f"{m}+{v}" for m, v in combinations() if {m, v} - {"fp32"}]


def encoded_now(optimizer: Cosmic) -> None:
    """A step without gradients: state takes its groups' codecs, nothing moves."""
    for p in params_of(optimizer):
        p.grad = None
    optimizer.step()


def moments(optimizer: Cosmic, index: int) -> tuple[Tensor, Tensor]:
    """Decoded, the first divided by the root of the second as it is decoded: in update units."""
    param = params_of(optimizer)[index]
    group = next(g for g in optimizer.param_groups if any(p is param for p in g["params"]))
    decoded = decoded_moments(param, optimizer.state[param], group)
    return decoded["exp_avg"].flatten(), decoded["exp_avg_sq"].flatten()


def blocks(x: Tensor) -> list[Tensor]:
    return list(torch.split(x, 128))


def assert_within_a_level(codec: str, x: Tensor, of: Tensor) -> None:
    """``x`` lies no further from ``of`` than the codec's levels lie apart."""
    for ours, theirs in zip(blocks(x), blocks(of), strict=True):
        top = theirs.abs().max().item()
        rms = theirs.square().mean().sqrt().item()
        if codec in ("u2", "u1"):
            step, outer = {"u2": (0.996, 1.5), "u1": (1.596, 0.5)}[codec]
            theirs, gap = theirs.clamp(-outer * step * rms, outer * step * rms), step * rms
        else:
            gap = top / {"fp32": 1e6, "bf16": 128, "q8": 127, "u4": 7}[codec]
        assert (ours - theirs).abs().max().item() <= 1.02 * gap


def assert_within_a_step(x: Tensor, of: Tensor) -> None:
    """ustate: levels are one step of the tensor apart, two below a mean of 64 elements and two
    above it; the mean of a block's codes is taken out again, which is within a third of a step."""
    halves = [
        (a, b, b - b.mean()) for a, b in zip(torch.split(x, 64), torch.split(of, 64), strict=True)
    ]
    step = 1.1 * torch.cat([rest for _, _, rest in halves]).square().mean().sqrt().item()
    for ours, theirs, rest in halves:
        want = theirs.mean() + rest.clamp(-1.5 * step, 1.5 * step)
        assert (ours - want).abs().max().item() <= 1.34 * step


def assert_signs_under_a_scale(x: Tensor, of: Tensor) -> None:
    """costate, where there is no gradient: |m| / sqrt(128) of the block, signed."""
    for ours, theirs in zip(blocks(x), blocks(of), strict=True):
        torch.testing.assert_close(ours, theirs.sign() * theirs.norm() / 128**0.5)


def assert_second_within_a_level(codec: str, x: Tensor, of: Tensor) -> None:
    """v4 and q8: levels are 2^s apart in the bits of the numbers, or of their roots, s from the
    range of the block. vlog: in logarithms, of which the outer ones are halves, 2^-6 apart."""
    if codec.startswith("vlog"):
        for ours, theirs in zip(blocks(x.log()), blocks(of.log()), strict=True):
            spread = float(theirs.max() - theirs.min()) + 2.0**-5
            levels = 2 ** int(codec[-1])
            assert float((ours - theirs).abs().max()) < spread / (levels - 1) * 1.001
        return
    least, steps_of = {"v4": (17, 14), "q8": (5, 253), "bf16": (16, 0)}[codec]
    if codec == "q8":
        x, of = x.sqrt(), of.sqrt()
    for ours, theirs in zip(blocks(x), blocks(of), strict=True):
        have, want = (t.contiguous().view(torch.int32).long() for t in (ours, theirs))
        spread = int((want.max() - want.min()) // steps_of) if steps_of else 0
        shift = max(least, spread.bit_length())
        assert shift <= 23
        assert int((have - want).abs().max()) < 2**shift


def unit(v: Tensor, step: int, group: Options) -> Tensor:
    scale = float((1 - group["betas"][1] ** step) ** -0.5)
    return v.sqrt() * scale + float(group["eps"])


def assert_second_within_a_log_level(bits: int, x: Tensor, of: Tensor) -> None:
    """The outer levels' logarithms are the block's, rounded outward to 2^-5 where they are."""
    for ours, theirs in zip(blocks(x.log()), blocks(of.log()), strict=True):
        gap = float(theirs.max() - theirs.min() + 2.0**-4) / (2**bits - 1)
        assert (ours - theirs).abs().max().item() <= 1.001 * gap


@pytest.mark.parametrize("state_dtype", PACKED)
def test_compressed_moments_are_within_a_level_of_adamws(state_dtype: str) -> None:
    m_codec, v_codec = state_dtype.split("+")
    adamw = adamw_of(parameters((40, 129)))
    steps(adamw, 0, 30)
    cosmic = Cosmic(
        groups_of(same_params(params_of(adamw)), named=False),
        state_dtype=state_dtype, min_compress_size=0,
    )  # fmt: skip
    cosmic.load_state_dict(adamw.state_dict())
    encoded_now(cosmic)
    state, group = adamw.state[params_of(adamw)[0]], cosmic.param_groups[0]
    want_m, want_v = state["exp_avg"].flatten(), state["exp_avg_sq"].flatten()
    m, v = moments(cosmic, 0)
    if v_codec in ("v4", "q8", "bf16") or v_codec.startswith("vlog"):
        assert_second_within_a_level(v_codec, v, want_v)
    elif v_codec.startswith("vlog"):
        assert_second_within_a_log_level(int(v_codec[4:]), v, want_v)
    elif v_codec != "fp32":
        matrix = want_v.view(40, 129)
        for dim, kept in [(1, ("factored", "rowmean")), (0, ("factored", "colmean"))]:
            if v_codec in kept and not (v_codec == "rowmean" and v.view(40, 129).std(1).any()):
                torch.testing.assert_close(v.view(40, 129).mean(dim), matrix.mean(dim))
    if m_codec in ("q8", "u4", "u2", "u1"):
        m, want_m = m / unit(v, 30, group), want_m / unit(want_v, 30, group)
    if m_codec == "ustate":  # in units of the second moment as it is kept
        assert_within_a_step(m / unit(v, 30, group), want_m / unit(v, 30, group))
    elif m_codec == "costate":
        assert_signs_under_a_scale(m, want_m)
    else:
        assert_within_a_level(m_codec, m, want_m)
    assert int(cosmic.state[params_of(cosmic)[0]]["step"]) == 30


@pytest.mark.parametrize("state_dtype", [n for n in PACKED if not n.startswith("costate")])
def test_compressed_state_exports_what_it_decodes_to(state_dtype: str) -> None:
    """And comes back: the next step of AdamW on it is that of the moments."""
    cosmic = Cosmic(
        groups_of(parameters(*SHAPES), named=True),
        state_dtype=state_dtype, min_compress_size=0, **UNUSUAL,
    )  # fmt: skip
    steps(cosmic, 0, 4)
    exported = through_a_file(cosmic.to_adamw_state_dict())
    adamw = adamw_of(same_params(params_of(cosmic)), named=True)
    adamw.load_state_dict(exported)
    back = cosmic_of(same_params(params_of(cosmic)), named=True)
    back.load_state_dict(adamw.state_dict())
    for index in range(len(SHAPES)):
        for one, other in zip(moments(cosmic, index), moments(back, index), strict=True):
            assert same_bits(one, other)
    steps(adamw, 4, 5)
    steps(back, 4, 5)
    assert_close(adamw, back, 2e-6, 2e-7)
    assert [int(s["step"]) for s in adamw.state_dict()["state"].values()] == [5] * 5


@pytest.mark.parametrize("state_dtype", [n for n in PACKED if n.startswith("costate")])
def test_a_multiple_of_the_next_gradient_is_not_exported(state_dtype: str) -> None:
    params = parameters((129,), (7,))
    named: Any = [("a", params[0])], [("b", params[1])]
    groups = [{"params": named[0]}, {"params": named[1], "state_dtype": state_dtype}]
    cosmic = Cosmic(groups, state_dtype="u4+v4", min_compress_size=0, **UNUSUAL)
    steps(cosmic, 0, 2)
    with refused(cosmic, ValueError, "'b'", "costate", "next gradient"):
        cosmic.to_adamw_state_dict()


@pytest.mark.parametrize("state_dtype", ["ustate+vlog4", "ustate+fp32", "ustate+v4", "u4+v4"])
def test_an_average_that_started_late_is_exported_as_it_is(state_dtype: str) -> None:
    """As long as the one that fp32 keeps of the same gradients; a correction of its bias by the
    count of all steps would make it 2.3 times as long."""
    exported = []
    for name in (state_dtype, "fp32+fp32"):
        cosmic = Cosmic(parameters((40, 129)), rung="tier1:fp32", min_compress_size=0, **UNUSUAL)
        steps(cosmic, 0, 6)
        cosmic.param_groups[0]["rung"] = f"tier2:{name}"
        steps(cosmic, 6, 8)
        exported.append(cosmic.to_adamw_state_dict()["state"][0]["exp_avg"])
    ours, exact = exported
    assert float((ours * exact).sum() / exact.square().sum()) == pytest.approx(1, abs=0.15)


def test_exporting_shares_no_memory_and_changes_nothing() -> None:
    cosmic = cosmic_of(parameters(*SHAPES))
    steps(cosmic, 0, 2)
    before = digest(cosmic)
    exported = cosmic.to_adamw_state_dict()
    for state in exported["state"].values():
        for value in state.values():
            value.fill_(7)
    assert digest(cosmic) == before


# ---- what has no place in the other ------------------------------------------------------------


def test_light_tiers_are_left_out() -> None:
    params = parameters((129,), (128,), (127,))
    cosmic = Cosmic([{"params": p, "tier": tier} for tier, p in enumerate(params)], **UNUSUAL)
    steps(cosmic, 0, 3)
    exported = cosmic.to_adamw_state_dict()
    assert set(exported["state"]) == {2}
    adamw = AdamW([{"params": p} for p in same_params(params)])
    adamw.load_state_dict(exported)
    steps(adamw, 3, 4)
    assert [int(adamw.state[p]["step"]) for p in params_of(adamw)] == [1, 1, 4]


def test_a_light_tier_lets_adamws_moments_go() -> None:
    adamw = adamw_of(parameters(*SHAPES))
    steps(adamw, 0, 3)
    cosmic = cosmic_of(same_params(params_of(adamw)), tier=0)
    cosmic.load_state_dict(adamw.state_dict())
    steps(cosmic, 3, 4)
    assert cosmic.state_bytes() == 0


def saved_by(optimizer: Optimizer) -> Saved:
    steps(optimizer, 0, 2)
    return optimizer.state_dict()


def pair(params: list[nn.Parameter], **second: Any) -> list[Options]:
    """Two groups; options of the second."""
    return [{"params": params[:1]}, {"params": params[1:], **second}]


REFUSED: dict[str, tuple[Callable[[list[nn.Parameter]], Optimizer], tuple[str, ...]]] = {
    "amsgrad": (
        lambda p: AdamW(pair(p, amsgrad=True)),
        ("param_groups[1]", "amsgrad"),
    ),
    "adam-with-decay": (
        lambda p: Adam(pair(p, weight_decay=0.1)),
        ("param_groups[1]", "weight decay", "Adam"),
    ),
    "sgd": (lambda p: SGD(pair(p), momentum=0.9), ("parameter 0", "rung")),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cosmic_does_not_keep_is_refused_by_name(case: str) -> None:
    make, fragments = REFUSED[case]
    cosmic = Cosmic([{"params": p} for p in parameters((40, 9), (129,))], **UNUSUAL)
    steps(cosmic, 0, 1)
    with refused(cosmic, ValueError, *fragments):
        cosmic.load_state_dict(saved_by(make(parameters((40, 9), (129,)))))


def test_adam_without_decay_is_adamw_without_decay() -> None:
    adam = Adam(parameters(*SHAPES), lr=3e-3, betas=(0.8, 0.95), eps=1e-6)
    steps(adam, 0, 3)
    cosmic = Cosmic(same_params(params_of(adam)), state_dtype="fp32")
    cosmic.load_state_dict(adam.state_dict())
    steps(adam, 3, 6)
    steps(cosmic, 3, 6)
    assert_close(cosmic, adam, 2e-6, 2e-7)


def test_a_slow_average_is_not_exported() -> None:
    params = parameters((129,), (7,))
    named: Any = [("a", params[0])], [("b", params[1])]
    cosmic = Cosmic([{"params": named[0]}, {"params": named[1], "beta_slow": 0.99}], **UNUSUAL)
    steps(cosmic, 0, 2)
    with refused(cosmic, ValueError, "'b'", "beta_slow"):
        cosmic.to_adamw_state_dict()


def test_options_that_only_adamw_has_do_not_leak() -> None:
    """Nor are those lost that only Cosmic has."""
    own: Options = {
        "tier": 2,
        "gate": "snr",
        "c_min": 0.3,
        "state_dtype": "q8",
        "min_compress_size": 7,
    }
    adamw = adamw_of(parameters(*SHAPES), foreach=True)
    LambdaLR(adamw, lambda _: 0.5)
    steps(adamw, 0, 2)
    cosmic = cosmic_of(parameters(*SHAPES), **own)
    before = [set(group) for group in cosmic.param_groups]
    cosmic.load_state_dict(adamw.state_dict())
    for group, keys in zip(cosmic.param_groups, before, strict=True):
        assert set(group) == keys | {"initial_lr"}
        assert {key: group[key] for key in own} == own
    assert set(cosmic.to_adamw_state_dict()["param_groups"][0]) == set(adamw.param_groups[0])


def test_an_option_that_another_adamw_lacks_stays_as_it_is() -> None:
    """Such as ``maximize``, which torchao's AdamWs do not have."""
    adamw = adamw_of(parameters(*SHAPES), maximize=True)
    saved = saved_by(adamw)
    lacking = {
        **saved,
        "param_groups": [
            {key: value for key, value in group.items() if key != "maximize"}
            for group in saved["param_groups"]
        ],
    }
    whole, other = (cosmic_of(same_params(params_of(adamw)), maximize=True) for _ in range(2))
    for cosmic, state_dict in ((whole, saved), (other, lacking)):
        cosmic.load_state_dict(state_dict)
        steps(cosmic, 2, 3)
    assert all(map(torch.equal, params_of(whole), params_of(other)))


def test_loading_copies_and_leaves_the_dict_alone() -> None:
    adamw = adamw_of(parameters(*SHAPES))
    saved = saved_by(adamw)
    kept = copy.deepcopy(saved)
    cosmic = cosmic_of(same_params(params_of(adamw)))
    cosmic.load_state_dict(saved)
    steps(cosmic, 2, 4)
    assert saved["param_groups"] == kept["param_groups"]
    for index, state in kept["state"].items():
        assert all(torch.equal(saved["state"][index][key], value) for key, value in state.items())


def test_a_shape_that_does_not_fit_is_named() -> None:
    saved = saved_by(adamw_of(parameters(*SHAPES)))
    saved["state"][1]["exp_avg_sq"] = normal(0, 510)
    cosmic = cosmic_of(parameters(*SHAPES), named=True)
    with refused(cosmic, ValueError, "'layer.1'", "(510,)", "(511,)"):
        cosmic.load_state_dict(saved)


@pytest.mark.parametrize("state_dtype", ["u4+factored", "fp32", "q8"])
def test_its_own_state_dict_still_loads(state_dtype: str) -> None:
    """Nothing but parameters of full history, so that every state looks like AdamW's."""
    ours = cosmic_of(parameters(*SHAPES), state_dtype=state_dtype, min_compress_size=0)
    twin = cosmic_of(parameters(*SHAPES), state_dtype=state_dtype, min_compress_size=0)
    steps(ours, 0, 6)
    steps(twin, 0, 3)
    third = cosmic_of(same_params(params_of(twin)), state_dtype=state_dtype, min_compress_size=0)
    third.load_state_dict(through_a_file(twin.state_dict()))
    steps(third, 3, 6)
    assert digest(third) == digest(ours)
