"""The optimizers that are trained and compared, by name, and the parameter groups they get."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

import cosmic
import cosmic.presets
import peers
from shared.policy_variants import policy_options

YARDSTICK = "adamw"
HIDDEN = ", hidden "

#: Values of Cosmic's `state_dtype`, first + second moment. "A, hidden B" gives hidden matrices B
#: and everything else A.
STATES = (
    "fp32",
    "bf16",
    "bf16+factored",
    "q8+q8",
    "q8+v4",
    "q8+factored",
    "u4+v4",
    "u4+factored",
    "u4+rowmean",
    "u2+v4",
    "u2+factored",
    "u1+v4",
    "u1+factored",
    "u4+factored" + HIDDEN + "u1+factored",
)

#: Optimizers of other packages that Cosmic has made its own.
PRESETS: dict[str, Callable[..., Any]] = {"TurboAdam preset": cosmic.presets.TurboAdam}

#: "cosmic BUDGET" leaves the codecs to a budget, "cosmic BUDGET POLICY" to a policy too.
BUDGETED = "cosmic "

Group = dict[str, Any]


@dataclass(frozen=True)
class Variant:
    """One optimizer.

    Attributes:
        name: unique; a key in `runs.jsonl`.
        make: named parameter groups and weight decay to the optimizer.
        version: package and release that a result depends on.
        lr_scale: the grid's learning rates are multiplied by this.
    """

    name: str
    make: Callable[[list[Group], float], Any]
    version: str
    lr_scale: float = 1.0


def variant(name: str) -> Variant:
    """The variant of this name: "adamw", a peer, or a state, a budget or a preset of Cosmic's."""
    if name == YARDSTICK:
        return Variant(name, _adamw, f"torch {torch.__version__}")
    if name in peers.PEERS:
        peer = peers.PEERS[name]
        return Variant(name, lambda *args: _peer(peer, *args), peer.version, peer.lr_scale)
    if name in PRESETS:
        preset = PRESETS[name]
        return Variant(
            name,
            lambda groups, decay: preset(groups, weight_decay=decay),
            f"cosmic {cosmic.__version__}",
        )
    make = _budgeted if name.startswith(BUDGETED) else _cosmic
    return Variant(name, lambda *args: make(name, *args), f"cosmic {cosmic.__version__}")


def budgeted(budget: str, policy: str = "") -> str:
    """The name of Cosmic's variant under a budget, with its default policy or another."""
    return f"{BUDGETED}{budget} {policy}".rstrip()


def parameter_groups(model: torch.nn.Module, lr: float, factor: float) -> list[Group]:
    """Everything else with `lr`; the hidden matrices with `lr * factor`."""
    named = list(model.named_parameters())
    hidden = [(name, param) for name, param in named if is_hidden(name, param)]
    rest = [(name, param) for name, param in named if not is_hidden(name, param)]
    return [{"params": rest, "lr": lr}, {"params": hidden, "lr": lr * factor}]


def is_hidden(name: str, param: torch.Tensor) -> bool:
    """Whether a parameter is a matrix inside one of the model's numbered blocks."""
    return param.ndim == 2 and re.search(r"\.\d+\.", name) is not None


def _adamw(groups: list[Group], weight_decay: float) -> Any:
    return torch.optim.AdamW(groups, weight_decay=weight_decay, fused=True)


def _cosmic(name: str, groups: list[Group], weight_decay: float) -> Any:
    general, _, hidden = name.partition(HIDDEN)
    states = (general, hidden or general)
    groups = [group | {"state_dtype": state} for group, state in zip(groups, states, strict=True)]
    return cosmic.Cosmic(groups, weight_decay=weight_decay)


def _budgeted(name: str, groups: list[Group], weight_decay: float) -> Any:
    budget, _, policy = name.removeprefix(BUDGETED).partition(" ")
    return cosmic.Cosmic(groups, weight_decay=weight_decay, budget=budget, **policy_options(policy))


def _peer(peer: peers.Peer, groups: list[Group], weight_decay: float) -> Any:
    unnamed = [group | {"params": [param for _, param in group["params"]]} for group in groups]
    return peer.make(unnamed, lr=groups[0]["lr"], weight_decay=weight_decay)
