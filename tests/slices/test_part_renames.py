"""Checkpoints with parts by name, of parameters that are called otherwise where they are loaded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from cosmic import Cosmic
from helpers import digest, normal, parameter, through_a_file
from part_runs import fused, go

QKV = (0, {"q": 32, "k": 40, "v": 24})
#: What the parameters of the test are called: a fused weight, a bias that is whole, another weight.
PLAIN = ("w", "b", "h.w")
WRAPPED = ("module.w", "module.b", "module.h.w")
NAMES = {
    "plain": PLAIN,
    "wrapped": WRAPPED,
    "compiled": tuple(f"_orig_mod.{name}" for name in PLAIN),
    "other": ("first", "second", "third"),
    "none": None,
}


def made(names: tuple[str, ...] | None, parts: dict[str, Any] | None = None) -> Cosmic:
    """In two groups, the last of which has the last weight; parts go by exact names, unless they
    are given, and are the optimizer's for both groups."""
    called = names or ("0", "1", "2")
    params: list[Any] = [fused(0), parameter(1, 96), fused(2)]
    if names:
        params = list(zip(names, params, strict=True))
    groups: list[dict[str, Any]] = [{"params": params[:2]}, {"params": params[2:], "lr": 0.1}]
    if parts is None:
        parts = {called[0]: QKV, called[2]: (1, 2)}
    return Cosmic(groups, parts=parts, min_compress_size=0)


def with_weights_of(other: Cosmic, one: Cosmic) -> Cosmic:
    with torch.no_grad():
        for mine, theirs in zip(one.param_groups, other.param_groups, strict=True):
            for a, b in zip(mine["params"], theirs["params"], strict=True):
                a.copy_(b)
    return one


def rows(optimizer: Cosmic) -> list[str]:
    return [t.name for t in optimizer.tiers()]


@pytest.mark.parametrize("now", NAMES)
@pytest.mark.parametrize("before", NAMES)
def test_a_run_goes_on_under_other_names(before: str, now: str) -> None:
    through = made(NAMES[before])
    go(through, 0, 3)
    loaded = with_weights_of(through, made(NAMES[now]))
    loaded.load_state_dict(through_a_file(through.state_dict()))
    for optimizer in (through, loaded):
        go(optimizer, 3, 6)
    assert digest(loaded) == digest(through)
    w, b, last = (
        NAMES[before] or NAMES[now] or ("0", "1", "2")
    )  # torch keeps the names of the saved
    assert rows(loaded) == [f"{w}[q]", f"{w}[k]", f"{w}[v]", b, f"{last}[0]", f"{last}[1]"]
    again = with_weights_of(loaded, made(NAMES[before]))
    again.load_state_dict(through_a_file(loaded.state_dict()))
    assert digest(again) == digest(loaded)


@pytest.mark.parametrize("before", ["plain", "none"])
def test_a_checkpoint_that_fits_keeps_its_own_words(before: str) -> None:
    names = NAMES[before] or ("0", "1", "2")
    parts = {names[0]: (0, (32, 40, 24)), "*": None}
    saved = made(NAMES[before], parts)
    go(saved, 0, 1)
    loaded = made(NAMES[before], {names[0]: [0, [32, 40, 24]]})
    loaded.load_state_dict(saved.state_dict())
    assert [group["parts"] for group in loaded.param_groups] == [parts] * 2


def without_names(saved: dict[str, Any]) -> None:
    for group in saved["param_groups"]:
        del group["param_names"]


def with_strange_names(saved: dict[str, Any]) -> None:
    for group in saved["param_groups"]:
        group["param_names"] = [f"x.{name}" for name in group["param_names"]]


def without_parts(saved: dict[str, Any]) -> None:
    for group in saved["param_groups"]:
        del group["parts"]


@pytest.mark.parametrize("lose", [without_names, with_strange_names, without_parts])
@pytest.mark.parametrize("now", ["plain", "wrapped"])
def test_what_is_lost_on_the_way_is_seen_by_the_state(
    lose: Callable[[dict[str, Any]], None], now: str
) -> None:
    through = made(PLAIN)
    go(through, 0, 2)
    saved = through_a_file(through.state_dict())
    lose(saved)
    loaded = with_weights_of(through, made(NAMES[now]))
    loaded.load_state_dict(saved)
    for optimizer in (through, loaded):
        go(optimizer, 2, 4)
    assert digest(loaded) == digest(through)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"x.w": (0, 3), "x.h.w": (1, 2)}, "'x.w': it was saved in parts q 32, k 40, v 24 along "
         "dimension 0, and this optimizer's group has 0 32, 1 32, 2 32 along dimension 0; make"),
        ({"x.w": None, "x.h.w": (1, 2)}, "'x.w': it was saved in parts q 32, k 40, v 24 along "
         "dimension 0, and this optimizer's group has none"),
        ({"x.w": QKV, "x.h.w": (0, 2)}, "'x.h.w': it was saved in parts 0 32, 1 32 along "
         "dimension 1, and this optimizer's group has 0 48, 1 48 along dimension 0"),
        ({"x.w": QKV, "x.b": (0, 2), "x.h.w": (1, 2)}, "'x.b': it was saved in parts none, and "
         "this optimizer's group has 0 48, 1 48 along dimension 0"),
    ],
)  # fmt: skip
def test_a_real_difference_names_both(parts: dict[str, Any], message: str) -> None:
    before, optimizer = made(PLAIN), made(("x.w", "x.b", "x.h.w"), parts)
    for one in (before, optimizer):
        go(one, 0, 1)
    held = digest(optimizer)
    with pytest.raises(ValueError) as caught:
        optimizer.load_state_dict(before.state_dict())
    assert message in str(caught.value) and digest(optimizer) == held


def test_a_difference_is_named_where_the_saved_names_are_lost() -> None:
    before, optimizer = made(PLAIN), made(("x", "y", "z"), {"z": (1, 2)})
    go(before, 0, 1)
    saved = before.state_dict()
    with_strange_names(saved)
    with pytest.raises(ValueError, match=r"'x': it was saved in parts q, k, v, and .* has none"):
        optimizer.load_state_dict(saved)


def test_a_name_with_and_one_without_what_wrappers_add_stay_apart() -> None:
    """Both of one model, where the first stands for the second, too."""
    start = fused(0), fused(1)

    def pair(*names: str, **parts: Any) -> Cosmic:
        params = [nn.Parameter(p.detach().clone()) for p in start]
        if names:
            return Cosmic(list(zip(names, params, strict=True)), parts=parts["parts"])
        return Cosmic(params, parts=parts["parts"])

    for cuts in ({"0": (0, 2), "1": (0, 3)}, {"0": (0, 2)}):
        before = pair(parts=cuts)
        go(before, 0, 1)
        own = {"module.w": cuts.get("1"), "w": (0, 2)}
        after = pair("w", "module.w", parts=own)
        after.load_state_dict(before.state_dict())
        go(after, 1, 2)
        last = ["module.w[0]", "module.w[1]", "module.w[2]"] if "1" in cuts else ["module.w"]
        assert rows(after) == ["w[0]", "w[1]", *last]


@pytest.mark.parametrize("names", ["wrapped", "none"])
def test_adamws_checkpoint_under_other_names(names: str) -> None:
    """Its moments are cut as the optimizer's parts are."""
    params = [
        nn.Parameter(normal(k, *shape)) for k, shape in enumerate([(96, 64), (96,), (96, 64)])
    ]
    named = list(zip(PLAIN, params, strict=True))
    adamw = torch.optim.AdamW([{"params": named[:2]}, {"params": named[2:]}])
    for k, param in enumerate(params):
        param.grad = normal(10 + k, *param.shape)
    adamw.step()
    optimizer = made(NAMES[names])
    optimizer.load_state_dict(adamw.state_dict())
    held = optimizer.state[optimizer.param_groups[0]["params"][0]]
    moment = adamw.state[params[0]]["exp_avg"]
    assert [torch.equal(held[f"{p}/exp_avg"], m) for p, m in
            zip("qkv", moment.split([32, 40, 24]), strict=True)] == [True] * 3  # fmt: skip
    go(optimizer, 0, 1)
    assert rows(optimizer)[:4] == ["w[q]", "w[k]", "w[v]", "b"]
