"""The optimizers of bench/matrix_rule.py by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch

import cosmic

YARDSTICK = "adamw"
BETAS, WEIGHT_DECAY = (0.9, 0.999), 0.01  # as in every training of the benchmarks
MOMENTUM = 0.95  # torch.optim.Muon's

Optimizers = Sequence[torch.optim.Optimizer]
Group = dict[str, Any]  # with named parameters and a learning rate


@dataclass(frozen=True)
class Contestant:
    """One optimizer.

    Attributes:
        title: its name in tables.
        family: results are kept by it and by its package's release: `torch`, or a part of Cosmic
            that changes its bits apart from others.
        make: the groups of everything else and of the hidden matrices to optimizers.
        start: learning rate and hidden factor at which the search starts.
        after: the name of another optimizer, whose best point is the start where it is known.
        searched: False: it is trained at that point alone, by the same rate as the other.
    """

    title: str
    family: str
    make: Callable[[Group, Group], Optimizers]
    start: tuple[float, float]
    after: str = ""
    searched: bool = True

    @property
    def version(self) -> str:
        """Family and release that a result depends on."""
        release = torch.__version__ if self.family == "torch" else cosmic.__version__
        return f"{self.family} {release}"


def _unnamed(group: Group) -> Group:
    return group | {"params": [param for _, param in group["params"]]}


def _adamw(*groups: Group) -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        [_unnamed(group) for group in groups], betas=BETAS, weight_decay=WEIGHT_DECAY, fused=True
    )


def _one_adamw(rest: Group, hidden: Group) -> Optimizers:
    return [_adamw(rest, hidden)]


def _torch_muon(rest: Group, hidden: Group) -> Optimizers:
    muon = torch.optim.Muon(
        [_unnamed(hidden)],
        weight_decay=WEIGHT_DECAY,
        momentum=MOMENTUM,
        nesterov=True,
        adjust_lr_fn="match_rms_adamw",
    )
    return [_adamw(rest), muon]


def _cosmic(rest: Group, hidden: Group, **of_hidden: Any) -> Optimizers:
    groups = [rest, hidden | of_hidden]
    return [cosmic.Cosmic(groups, betas=BETAS, weight_decay=WEIGHT_DECAY)]


def _muon(title: str, after: str, searched: bool = False, **of_hidden: Any) -> Contestant:
    make = partial(_cosmic, matrix_rule="muon", role="matrix", **of_hidden)
    return Contestant(f"Cosmic, muon, {title}", "cosmic muon", make, (6e-3, 1.0), after, searched)


CONTESTANTS: dict[str, Contestant] = {
    YARDSTICK: Contestant("AdamW", "torch", _one_adamw, (1e-2, 0.1)),
    "torch-muon": Contestant("torch.optim.Muon", "torch", _torch_muon, (6e-3, 1.0)),
    "cosmic": Contestant("Cosmic, default", "cosmic", _cosmic, (1e-2, 0.1)),
    "muon-1": _muon("1 bit (its default)", "torch-muon", searched=True),
    "muon-32": _muon("32 bits", "muon-1", searched=True, matrix_state_dtype="fp32"),
    "muon-2": _muon("2 bits", "muon-32", matrix_state_dtype="m2"),
    "muon-4": _muon("4 bits", "muon-32", matrix_state_dtype="m4"),
    "muon-8": _muon("8 bits", "muon-32", matrix_state_dtype="m8"),
    "muon-5-iterations": _muon("1 bit, 5 iterations", "muon-1", ns_steps=5),
    "muon-every-2": _muon("1 bit, every 2nd step", "muon-1", matrix_every=2),
    "muon-every-4": _muon("1 bit, every 4th step", "muon-1", matrix_every=4),
    "muon-blocks-2": _muon("1 bit, 2 blocks", "muon-1", matrix_blocks=2),
    "muon-blocks-4": _muon("1 bit, 4 blocks", "muon-1", matrix_blocks=4),
}


@cache
def trouble(name: str) -> str:
    """Why an optimizer does not step here, found on small tensors; "" where it does."""
    rest, hidden = (torch.nn.Parameter(torch.ones(*shape)) for shape in ((64,), (128, 128)))
    for param in (rest, hidden):
        param.grad = torch.randn_like(param)
    groups = [{"params": [(str(i), p)], "lr": 1e-3} for i, p in enumerate((rest, hidden))]
    try:
        for optimizer in CONTESTANTS[name].make(*groups):
            optimizer.step()
    except (TypeError, ValueError, RuntimeError, NotImplementedError) as error:
        return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    return ""
