"""The optimizers that the suite compares, by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

import cosmic
import cosmic.presets
from suite.roles import Group

YARDSTICK = "adamw"
BETAS, WEIGHT_DECAY = (0.9, 0.999), 0.01
BUDGETS = ("25%", "10%", "6.6%", "3%", "1%")
POLICIES = ("role", "uniform", "signal")
CALIBRATION = 3  # is raised whenever a change of Cosmic makes other numbers of the same run
RELATIVE = 10.0  # the usual learning rate over AdamW's where it is a share of a tensor's own size

Optimizers = Sequence[torch.optim.Optimizer]
Make = Callable[[list[Group], int], Optimizers]


@dataclass(frozen=True)
class Contestant:
    """One optimizer.

    Attributes:
        title: its name in tables.
        make: groups with roles, and the training's steps, to optimizers.
        axes: which of rate, matrices' factor and vectors' factor are tuned.
        scale: its usual learning rate over AdamW's; searches start there.
        release: what a result depends on beside the run: `torch`'s release, or ours.
        tags: whether groups are by tag, each with the rate that `cosmic.param_groups` has for it.
    """

    title: str
    make: Make
    axes: tuple[str, ...] = ("rate",)
    scale: float = 1.0
    release: str = f"torch {torch.__version__}"
    tags: bool = False


def unnamed(groups: list[Group]) -> list[Group]:
    """Groups as torch's optimizers take them: without names and roles."""
    return [{"params": [p for _, p in g["params"]], "lr": g["lr"]} for g in groups]


def _adamw(groups: list[Group], _steps: int) -> Optimizers:
    params = unnamed(groups)
    return [torch.optim.AdamW(params, betas=BETAS, weight_decay=WEIGHT_DECAY, fused=True)]


def _muon(groups: list[Group], _steps: int) -> Optimizers:
    """torch.optim.Muon for matrices of two dimensions, which are all that it takes."""
    matrices = [g for g in groups if g["role"] in ("matrix", "lora_a", "lora_b")]
    rest = [g for g in groups if all(g is not m for m in matrices)]
    out = list(_adamw(rest, _steps)) if rest else []
    if matrices:
        params, adjust = unnamed(matrices), "match_rms_adamw"
        out.append(torch.optim.Muon(params, weight_decay=WEIGHT_DECAY, adjust_lr_fn=adjust))
    return out


def _adafactor(groups: list[Group], _steps: int) -> Optimizers:
    return [torch.optim.Adafactor(unnamed(groups), weight_decay=WEIGHT_DECAY)]


def _sgd(groups: list[Group], _steps: int) -> Optimizers:
    params = unnamed(groups)
    return [torch.optim.SGD(params, momentum=0.9, nesterov=True, weight_decay=WEIGHT_DECAY)]


def _lion(groups: list[Group], _steps: int) -> Optimizers:
    from pytorch_optimizer import Lion

    return [Lion(unnamed(groups), weight_decay=WEIGHT_DECAY)]


def _signum(groups: list[Group], _steps: int) -> Optimizers:
    from pytorch_optimizer import SignSGD

    return [SignSGD(unnamed(groups), momentum=0.9, weight_decay=WEIGHT_DECAY)]


def _ademamix(groups: list[Group], steps: int) -> Optimizers:
    """In fp32, by Cosmic, with the paper's warm-up over the whole training."""
    options = {"state_dtype": "fp32", "beta_slow": 0.9999, "alpha": 5.0, "slow_warmup": steps}
    return _cosmic(groups, steps, None, **options)


def _cosmic(
    groups: list[Group], _steps: int, by_role: dict[str, Any] | None = None, **options: Any
) -> Optimizers:
    mine = []
    for group in groups:
        own = dict((by_role or {}).get(group["suite_role"], {}))
        own["lr"] = group["lr"] * own.pop("scale", 1.0)
        mine.append({key: group[key] for key in group if key != "suite_role"} | own)
    whole: dict[str, Any] = {"betas": BETAS, "weight_decay": WEIGHT_DECAY, **options}
    return [cosmic.Cosmic(mine, **whole)]


def _axiom(groups: list[Group], _steps: int, budget: str | None = None) -> Optimizers:
    mine = [{key: group[key] for key in group if key != "suite_role"} for group in groups]
    return [cosmic.presets.AXIOM(mine, betas=BETAS, weight_decay=WEIGHT_DECAY, budget=budget)]


def _axiom_under(budget: str | None) -> Contestant:
    title = "AXIOM preset" + (f" {budget}" if budget else "")
    release = f"cosmic {cosmic.__version__}, calibration {CALIBRATION}"
    return Contestant(title, partial(_axiom, budget=budget), release=release)


def _ours(title: str, tags: bool, **options: Any) -> Contestant:
    release = f"cosmic {cosmic.__version__}, calibration {CALIBRATION}"
    make, scale = partial(_cosmic, **options), _usual_scale(**options)
    return Contestant(title, make, scale=scale, release=release, tags=tags)


def _usual_scale(gate: str | None = None, agc_clip: float = 10.0, **_others: Any) -> float:
    if gate == "trust":
        return RELATIVE
    return max(1.0, RELATIVE / agc_clip) if gate == "agc" else 1.0


NAMED: dict[str, Contestant] = {
    YARDSTICK: Contestant("AdamW", _adamw, axes=("rate", "matrix", "vector")),
    "muon": Contestant("torch.optim.Muon", _muon, axes=("rate", "matrix")),
    "ademamix": Contestant(
        "AdEMAMix", _ademamix, release=f"cosmic {cosmic.__version__}, warmed up"
    ),
    "adafactor": Contestant("AdaFactor", _adafactor),
    "lion": Contestant("Lion", _lion, scale=0.1),
    "signum": Contestant("Signum", _signum, scale=0.3),
    "sgd": Contestant("SGD with momentum", _sgd, scale=100.0),
}
#: Trained only where somebody asks for them.
UNASKED = ("signum",)
_ROLES = {"m": "matrix", "t": "table", "v": "vector"}


def contestant(name: str) -> Contestant:
    """The optimizer of a name: one of `NAMED`, `axiom` with a budget or without one, or `cosmic`
    with words behind it.

    A word is a budget (`10%`), a policy (`uniform`), a rung for the tensors of a role
    (`m:tier1:muon`, `t:` tables, `v:` vectors; `m:tier1:muon*3` at three times the rate), an
    option of Cosmic's (`state_dtype=q8+v4`), or `tags`: groups by tag, with the rates of tags.
    """
    if name in NAMED:
        return NAMED[name]
    head, *words = name.split()
    if head == "axiom" and len(words) < 2:
        return _axiom_under(words[0] if words else None)
    if head != "cosmic":
        known = ", ".join(NAMED)
        raise ValueError(
            f"unknown optimizer {name!r}; expected {known}, 'axiom [BUDGET]' or 'cosmic [OPTIONS]'"
        )
    options: dict[str, Any] = {}
    by_role: dict[str, dict[str, Any]] = {}
    tags = False
    for word in words:
        key, equals, value = word.partition("=")
        if equals:
            options[key] = _number(value)
        elif word.endswith("%"):
            options["budget"] = word
        elif word in POLICIES:
            options["policy"] = word
        elif word == "tags":
            tags = True
        else:
            role, _, rung = word.partition(":")
            rung, _, scale = rung.partition("*")
            by_role[_ROLES[role]] = {"rung": rung, "scale": float(scale or 1.0)}
    return _ours(f"Cosmic{name.removeprefix('cosmic')}", tags, by_role=by_role, **options)


def _number(text: str) -> Any:
    if text in ("True", "False"):
        return text == "True"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
