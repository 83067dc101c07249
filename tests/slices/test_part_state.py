"""State by part: flat, saved and loaded, read and written as the parameter's, sized by a budget."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cosmic import Cosmic
from cosmic.capital.policies import Candidate
from cosmic.presets import Muon
from cosmic.step.options import WHOLE_OPTIONS
from helpers import digest, normal, refused, same_bits, through_a_file
from part_runs import fused, go

QKV: tuple[int, dict[str, int]] = (0, {"q": 32, "k": 40, "v": 24})
DIMENSIONS = pytest.mark.parametrize("dimension", [0, 1])


def named(dimension: int = 0, **options: Any) -> Cosmic:
    """One parameter in parts, and one that is whole."""
    shape = (96, 64) if dimension == 0 else (64, 96)
    params = [("qkv", fused(0, *shape)), ("b", nn.Parameter(normal(1, 200)))]
    parts = {"qkv": (dimension, QKV[1])}
    return Cosmic(params, **{"parts": parts, "min_compress_size": 0, **options})


def params_of(optimizer: Cosmic) -> list[nn.Parameter]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def copied(optimizer: Cosmic, **options: Any) -> Cosmic:
    """A fresh optimizer of the same parameters, without state."""
    names = optimizer.param_groups[0]["param_names"]
    values = [nn.Parameter(p.detach().clone()) for p in params_of(optimizer)]
    return Cosmic(list(zip(names, values, strict=True)), **options)


# ---- what is there -------------------------------------------------------------------------------


def test_entries_begin_with_their_parts_name() -> None:
    optimizer = named(rung="tier2:u4+factored", gate="snr")
    go(optimizer, 0, 2)
    param = params_of(optimizer)[0]
    state = optimizer.state[param]
    keys = [
        "rung:tier2:u4+factored", "step", "packed_shape", "exp_avg_u4_codes", "exp_avg_u4_scale",
        "exp_avg_sq_row", "exp_avg_sq_col", "gate_snr",
    ]  # fmt: skip
    assert list(state) == [f"{part}/{key}" for part in "qkv" for key in keys]
    assert [len(state[f"{part}/exp_avg_sq_row"]) for part in "qkv"] == [32, 40, 24]
    assert all(isinstance(value, Tensor | int) for value in state.values())
    tensors = (value for value in state.values() if isinstance(value, Tensor))
    bias = next(t for t in optimizer.tiers() if t.name == "b")
    assert optimizer.state_bytes() == sum(t.nbytes for t in tensors) + bias.nbytes


def test_parts_are_told_apart_by_name() -> None:
    seen: list[tuple[str, dict[str, Any]]] = []
    optimizer = named(gate="snr", state_dtype="u4+factored")
    optimizer.add_listener(lambda event, fields: seen.append((event, fields)))
    go(optimizer, 0, 1)
    names = ["qkv[q]", "qkv[k]", "qkv[v]", "b"]
    assert [(t.name, t.numel) for t in optimizer.tiers()] == [
        ("qkv[q]", 2048), ("qkv[k]", 2560), ("qkv[v]", 1536), ("b", 200),
    ]  # fmt: skip
    assert sum(t.nbytes for t in optimizer.tiers()) == optimizer.state_bytes()
    assert list(optimizer.gate_factors()) == names
    told = [fields["name"] for event, fields in seen if event == "transition"]
    (allocation,) = (fields for event, fields in seen if event == "allocation")
    assert told == names and [row["name"] for row in allocation["tensors"]] == names
    stats = optimizer.stats()[0]
    gradient = torch.cat([p.grad.flatten() for p in params_of(optimizer) if p.grad is not None])
    assert stats["gradient_abs"] == pytest.approx(float(gradient.abs().mean()), rel=1e-6)


# ---- saved and loaded ----------------------------------------------------------------------------


OPTIONS: tuple[dict[str, Any], ...] = (
    {"rung": "tier2:u4+factored"}, {"rung": "tier2:fp32+fp32"}, {"rung": "tier1"},
    {"rung": "tier0"}, {"rung": "tier1:rowmean"}, {"rung": "tier2:ustate+v4"},
    {"gate": "agar", "state_dtype": "u4+v4"}, {"matrix_rule": "muon", "role": "matrix"},
    {"budget": "20%"}, {"budget": "20%", "policy": "signal", "reallocate_every": 2},
)  # fmt: skip


@DIMENSIONS
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_run_goes_on_with_the_same_bits(options: dict[str, Any], dimension: int) -> None:
    through = named(dimension, **options)
    go(through, 0, 3)
    whole = {key: value for key, value in options.items() if key in WHOLE_OPTIONS}
    loaded = copied(through, parts={"q*": (dimension, QKV[1])}, min_compress_size=0, **whole)
    loaded.load_state_dict(through_a_file(through.state_dict()))
    deep, pickled = copy.deepcopy(through), pickle.loads(pickle.dumps(through))
    for optimizer in (through, loaded, deep, pickled):
        go(optimizer, 3, 6)
        assert digest(optimizer) == digest(through)
        assert optimizer.tiers() == through.tiers()


@pytest.mark.parametrize(
    ("saved", "now", "message"),
    [
        (
            (0, {"q": 32, "k": 40, "v": 24}),
            (0, 3),
            "q 32, k 40, v 24 along .* has 0 32, 1 32, 2 32",
        ),
        ((0, 3), (0, (32, 40, 24)), "0 32, 1 32, 2 32 along dimension 0, .* has 0 32, 1 40, 2 24"),
        ((0, 2), (1, 2), "parts 0 48, 1 48 along dimension 0, .* has 0 32, 1 32 along dimension 1"),
        ((0, 2), None, "saved in parts 0 48, 1 48 along dimension 0, .* group has none"),
        (None, (0, 2), "saved in parts none, .* group has 0 48, 1 48 along dimension 0"),
    ],
)
def test_a_checkpoint_of_other_parts_is_refused(saved: Any, now: Any, message: str) -> None:
    before, optimizer = Cosmic([fused()], parts=saved), Cosmic([fused()], parts=now)
    go(before, 0, 1)
    go(optimizer, 0, 1)
    held = digest(optimizer)
    with pytest.raises(ValueError, match=rf"parameter 0 .*{message}"):
        optimizer.load_state_dict(before.state_dict())
    assert digest(optimizer) == held


def test_parts_that_are_said_in_other_words_are_the_same() -> None:
    before = named(parts={"qkv": (0, (32, 40, 24))})
    go(before, 0, 2)
    after = copied(before, parts={"*k*": [0, [32, 40, 24]]}, min_compress_size=0)
    after.load_state_dict(through_a_file(before.state_dict()))
    go(before, 2, 4)
    go(after, 2, 4)
    assert digest(before) == digest(after)


def test_state_of_other_parts_than_the_groups_is_refused() -> None:
    """Options may be changed in mid-run: what is held would be lost."""
    optimizer = named()
    go(optimizer, 0, 2)
    param = params_of(optimizer)[0]
    param.grad = normal(9, 96, 64)
    optimizer.param_groups[0]["parts"] = {"qkv": (0, 2)}
    fragments = ("'qkv'", "parts are 0, 1, and its state is of parts q, k, v", "reset(param)")
    with refused(optimizer, ValueError, *fragments):
        optimizer.step()
    optimizer.param_groups[0]["parts"] = None
    with refused(optimizer, ValueError, "'qkv'", "parts are none, and its state is of parts q, k"):
        optimizer.step()
    optimizer.param_groups[0]["parts"] = {"qkv": (0, {"q": 40, "k": 32, "v": 24})}
    with refused(optimizer, ValueError, "'qkv[q]'", "(32, 64)", "(40, 64)", "reset(param)"):
        optimizer.step()
    optimizer.reset(param)
    optimizer.step()
    assert [t.numel for t in optimizer.tiers()] == [2560, 2048, 1536, 200]


def test_parts_that_are_changed_in_place_are_noticed() -> None:
    sizes = {"q": 32, "k": 40, "v": 24}
    optimizer = named(parts={"qkv": (0, sizes)})
    go(optimizer, 0, 1)
    sizes["w"], sizes["v"] = 4, 20
    with refused(optimizer, ValueError, "parts are q, k, v, w, and its state is of parts q, k, v"):
        optimizer.step()


def test_entries_of_others_stay() -> None:
    optimizer = named()
    go(optimizer, 0, 1)
    param = params_of(optimizer)[0]
    optimizer.state[param].update({"slow_params": torch.ones(3), "q/mine": torch.ones(2), "n": 3})
    nbytes = optimizer.state_bytes()
    go(optimizer, 1, 3)
    fresh = copied(optimizer, parts={"qkv": QKV}, min_compress_size=0)
    fresh.load_state_dict(through_a_file(optimizer.state_dict()))
    for one in (optimizer, fresh):
        state = one.state[params_of(one)[0]]
        assert torch.equal(state["slow_params"], torch.ones(3)) and state["n"] == 3
        assert torch.equal(state["q/mine"], torch.ones(2))
        assert one.state_bytes() == nbytes
    optimizer.reset(param)
    assert set(optimizer.state[param]) == {"slow_params", "q/mine", "n"}


# ---- moments as the parameter's ------------------------------------------------------------------


def moments_of(optimizer: Cosmic) -> tuple[Tensor, Tensor, int]:
    """The first parameter's, which are all there."""
    found = optimizer.moments(params_of(optimizer)[0])
    assert found.exp_avg is not None and found.exp_avg_sq is not None
    return found.exp_avg, found.exp_avg_sq, found.step


@DIMENSIONS
def test_moments_are_joined(dimension: int) -> None:
    """Of fp32 they are those of the parameter when it is whole."""
    cut, whole = (
        named(dimension, state_dtype="fp32"),
        named(dimension, parts=None, state_dtype="fp32"),
    )
    for optimizer in (cut, whole):
        go(optimizer, 0, 3)
    (param, _), (other, _) = params_of(cut), params_of(whole)
    assert same_bits(param, other)
    found, expected = moments_of(cut), moments_of(whole)
    assert found[2] == expected[2] == 3 and cut.moments(param).exp_avg_slow is None
    assert same_bits(found[0], expected[0]) and same_bits(found[1], expected[1])


@DIMENSIONS
def test_moments_are_written_by_parts(dimension: int) -> None:
    optimizer = named(dimension, state_dtype="fp32")
    go(optimizer, 0, 2)
    param = params_of(optimizer)[0]
    m, v = normal(5, *param.shape), normal(6, *param.shape).square()
    optimizer.set_moments(param, exp_avg=m, exp_avg_sq=v, step=7)
    found = moments_of(optimizer)
    assert same_bits(found[0], m) and same_bits(found[1], v) and found[2] == 7
    rows = [1, 33, 60, 5]
    optimizer.set_moments(param, exp_avg=-m[rows], rows=rows)
    optimizer.reset(param, rows=slice(40, 44))
    m[rows], m[40:44], v[40:44] = -m[rows], 0, 0
    found = moments_of(optimizer)
    assert same_bits(found[0], m) and same_bits(found[1], v) and found[2] == 7


def test_moments_that_do_not_fit_change_nothing() -> None:
    optimizer = named(state_dtype="fp32")
    go(optimizer, 0, 2)
    param = params_of(optimizer)[0]
    with refused(optimizer, ValueError, "'qkv'", "(95, 64)", "(96, 64) or one number"):
        optimizer.set_moments(param, exp_avg=torch.zeros(95, 64))
    late = torch.zeros(96, 64)
    late[90] = float("nan")
    with refused(optimizer, ValueError, "'qkv[v]'", "not finite"):
        optimizer.set_moments(param, exp_avg=late)
    with refused(optimizer, ValueError, "'qkv[q]'", "keeps none"):
        optimizer.set_moments(param, exp_avg_slow=0.0)


def test_a_part_that_has_counted_less_is_read_at_the_largest_count() -> None:
    """As AdamW corrects its bias: the update that follows from the moments is the same."""
    optimizer = named(state_dtype="fp32")
    go(optimizer, 0, 6)
    param = params_of(optimizer)[0]
    state = optimizer.state[param]
    state["k/step"].fill_(2)
    m, v = state["k/exp_avg"].clone(), state["k/exp_avg_sq"].clone()
    first, second, step = moments_of(optimizer)
    corrected = first[32:72] / (1 - 0.9**6), second[32:72] / (1 - 0.999**6)
    torch.testing.assert_close(corrected, (m / (1 - 0.9**2), v / (1 - 0.999**2)))
    optimizer.set_moments(param, exp_avg=0.0, rows=[33])
    first[33] = 0
    assert step == 6 and int(state["k/step"]) == 6
    torch.testing.assert_close(moments_of(optimizer), (first, second, 6))


def test_a_moment_that_one_part_lacks_is_none() -> None:
    optimizer = named(state_dtype="fp32", budget=20_000, policy=Favours("v"))
    go(optimizer, 0, 1)
    found = optimizer.moments(params_of(optimizer)[0])
    assert found.exp_avg is None


# ---- other optimizers' checkpoints ---------------------------------------------------------------


@DIMENSIONS
def test_adamw_goes_on_where_parts_were(dimension: int) -> None:
    ours = named(dimension, state_dtype="fp32", lr=1e-2)
    go(ours, 0, 3)
    copies = [nn.Parameter(p.detach().clone()) for p in params_of(ours)]
    theirs = torch.optim.AdamW(copies, lr=1e-2)
    theirs.load_state_dict(ours.to_adamw_state_dict())
    assert [set(s) for s in theirs.state.values()] == [{"step", "exp_avg", "exp_avg_sq"}] * 2
    go(ours, 3, 6)
    for step in range(3, 6):
        for k, p in enumerate(copies):
            p.grad = normal(1000 * step + k, *p.shape)
        theirs.step()
    for p, q in zip(params_of(ours), copies, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)


@DIMENSIONS
@pytest.mark.parametrize("state_dtype", ["fp32", "u4+v4"])
def test_adamws_moments_are_cut(dimension: int, state_dtype: str) -> None:
    shape = (96, 64) if dimension == 0 else (64, 96)
    values = [nn.Parameter(normal(0, *shape)), nn.Parameter(normal(1, 200))]
    theirs = torch.optim.AdamW(values, lr=1e-2)
    for step in range(3):
        for k, p in enumerate(values):
            p.grad = normal(1000 * step + k, *p.shape)
        theirs.step()
    ours = named(dimension, state_dtype=state_dtype, lr=1e-2)
    ours.load_state_dict(through_a_file(theirs.state_dict()))
    found, expected = moments_of(ours), theirs.state[values[0]]
    assert same_bits(found[0], expected["exp_avg"])
    assert same_bits(found[1], expected["exp_avg_sq"]) and found[2] == 3
    go(ours, 3, 4)
    assert [t.rung for t in ours.tiers()[:3]] == [f"tier2:{ours.tiers()[0].rung[6:]}"] * 3


def test_adamws_moment_of_another_shape_is_named() -> None:
    saved = torch.optim.AdamW([fused()])
    for param in saved.param_groups[0]["params"]:
        param.grad = torch.ones_like(param)
    saved.step()
    wrong = saved.state_dict()
    wrong["state"][0]["exp_avg_sq"] = torch.zeros(96, 63)
    optimizer = Cosmic([fused()], parts=(0, 3))
    with pytest.raises(ValueError, match=r"exp_avg_sq of shape \(96, 63\); expected \(96, 64\)"):
        optimizer.load_state_dict(wrong)


def test_muons_momentum_is_joined_and_cut() -> None:
    ours = Muon([fused()], parts=(0, (32, 40, 24)))
    go(ours, 0, 3)
    theirs = torch.optim.Muon([fused()])
    theirs.load_state_dict(ours.to_muon_state_dict())
    (state,) = theirs.state.values()
    (param,) = params_of(ours)
    parts = [ours.state[param][f"{k}/exp_avg"] for k in range(3)]
    assert same_bits(state["momentum_buffer"], torch.cat(parts))
    back = Muon([fused()], parts=(0, (32, 40, 24)))
    back.load_state_dict(theirs.state_dict())
    held = back.state[params_of(back)[0]]
    assert all(same_bits(held[f"{k}/exp_avg"], part) for k, part in enumerate(parts))


# ---- a budget ------------------------------------------------------------------------------------


class Favours:
    """A policy to which all but one part is worth least without momentum."""

    uses_signal = False

    def __init__(self, part: str) -> None:
        self.name = f"favours {part}"
        self._numel = QKV[1][part] * 64

    def worths(self, candidates: Sequence[Candidate]) -> list[list[float]]:
        return [
            [float(k if c.numel == self._numel else -k) for k in range(len(c.ladder))]
            for c in candidates
        ]


@pytest.mark.parametrize("favoured", ["q", "v"])
def test_a_budget_gives_parts_different_rungs(favoured: str) -> None:
    param = fused()
    optimizer = Cosmic(
        [("qkv", param)], parts=QKV, budget=22_000, policy=Favours(favoured), matrix_rule="off"
    )
    for step in range(3):
        param.grad = normal(step, 96, 64)
        optimizer.step()
        assert optimizer.state_bytes() <= 22_000
    tiers = {t.name: t.tier for t in optimizer.tiers()}
    assert tiers[f"qkv[{favoured}]"] == 2
    assert sum(tier == 2 for tier in tiers.values()) == 1


def test_a_budget_counts_a_parameter_once() -> None:
    optimizer = named(budget="10%")
    assert optimizer.budget_bytes() == int(0.8 * (96 * 64 + 200))
    go(optimizer, 0, 2)
    assert optimizer.budget_bytes() == int(0.8 * (96 * 64 + 200)) >= optimizer.state_bytes()


def test_a_part_has_its_parameters_role() -> None:
    """Also one that would be none by its own shape, and where the parameter is held to it."""
    names = [("emb.weight", fused(0, 300, 64)), ("w.weight", fused(1, 64, 64))]
    optimizer = Cosmic(names, parts={"emb.weight": (0, (2, 298))}, budget="50%")
    go(optimizer, 0, 3)
    assert [t.role for t in optimizer.tiers()] == ["table", "table", "matrix"]
    again = copied(optimizer, parts={"emb.weight": (0, (2, 298))}, budget="50%")
    again.load_state_dict(through_a_file(optimizer.state_dict()))
    go(optimizer, 3, 5)
    go(again, 3, 5)
    assert digest(again) == digest(optimizer)


def test_a_mask_is_a_parts_own() -> None:
    param = fused()
    optimizer = Cosmic([param], parts=QKV, state_dtype="u4+factored", min_compress_size=0)
    mask = torch.ones(96, 64)
    mask[32:72] = (normal(3, 40, 64) > 1).float()
    for step in range(2):
        param.grad = normal(step, 96, 64) * mask
        optimizer.step()
    assert [t.codecs["exp_avg_sq"] for t in optimizer.tiers()] == ["factored", "v4", "factored"]
    assert [key for key in optimizer.state[param] if "masked" in key] == ["k/masked"]
