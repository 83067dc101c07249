"""The table: every optimizer that is held to behave like one of torch.optim's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from torch import Tensor, nn

from cosmic import Cosmic
from cosmic.presets import AXIOM, CASMO, Tiger, TurboAdam
from helpers import UNUSUAL, digest, give_gradients, normal, parameter

__all__ = [
    "FEW", "ROWS", "SHAPES", "Row", "each", "few", "moved", "params_of", "started", "stepped",
]  # fmt: skip


class Row(NamedTuple):
    """An optimizer of the table.

    Attributes:
        make: the optimizer of parameters, named parameters or groups; options go to its constructor
            and are those of ``UNUSUAL`` otherwise.
        sizes: names of the options below which elements a tensor is too small to be compressed.
        adamw: whether it is torch.optim.AdamW, to float rounding.
        exact: whether it looks at gradients before it steps, and refuses infinite ones.
        shared: whether a tensor's step depends on the others, by a budget or a group's sums.
    """

    name: str
    make: Callable[..., Cosmic]
    sizes: tuple[str, ...]
    adamw: bool = False
    exact: bool = False
    shared: bool = False


#: A matrix that codecs compress (4,096 elements or more), one that is too small for it, a vector
#: and a scalar.
SHAPES = ((64, 65), (5, 7), (33,), ())


def _row(name: str, kind: type[Cosmic] = Cosmic, /, **options: Any) -> Row:
    def make(params: Any, **more: Any) -> Cosmic:
        return kind(params, **{**UNUSUAL, **options, **more})

    sizes: tuple[str, ...] = ("min_compress_size",)
    if kind is TurboAdam:
        sizes = ("min_m_compress_elements", "min_v_compress_elements")
    if kind is AXIOM:  # compresses whatever the size
        sizes = ()
    plain = kind is Cosmic and options == {"state_dtype": "fp32"}
    exact = kind is CASMO and options.get("exact", True)
    shared = kind is CASMO or "budget" in options or "compat" in options
    return Row(name, make, sizes, adamw=plain, exact=exact, shared=shared)


ROWS = (
    _row("fp32", state_dtype="fp32"),
    _row("tier0", tier=0),
    _row("tier1", tier=1),
    _row("tier1-factored", rung="tier1:factored"),
    _row("tier1-rowmean", rung="tier1:rowmean"),
    _row("tier1-v4", rung="tier1:v4"),
    _row("default"),
    _row("u4+v4", state_dtype="u4+v4"),
    _row("q8", state_dtype="q8"),
    _row("bf16", state_dtype="bf16"),
    _row("u2+factored", state_dtype="u2+factored"),
    _row("u1+rowmean", state_dtype="u1+rowmean"),
    _row("slow-average", beta_slow=0.99, alpha=2.0),
    _row("gate-snr", gate="snr"),
    _row("gate-agar", gate="agar"),
    _row("budget", budget="20%", reallocate_every=2),
    _row("budget-by-role", budget="20%", policy="role", reallocate_every=2),
    _row("budget-by-signal", budget="20%", policy="signal", reallocate_every=2),
    _row("turboadam-ustate", TurboAdam),
    _row("turboadam-costate", TurboAdam, m_codec="costate"),
    _row("casmo", CASMO),
    _row("casmo-lagged", CASMO, exact=False),
    _row("tiger", Tiger, nonfinite="propagate"),
    _row("tiger-lagged", Tiger, nonfinite="propagate", exact=False),
    _row("tiger-literal", Tiger, nonfinite="propagate", compat="2.2"),
    _row("axiom", AXIOM, nonfinite="propagate"),
    _row("axiom-budget", AXIOM, nonfinite="propagate", budget="20%", reallocate_every=2),
    _row("matrix-rule", matrix_rule="muon"),
    _row("matrix-rule-m4", matrix_rule="muon", matrix_state_dtype="m4", matrix_blocks=2),
    _row("matrix-rule-none", matrix_rule="muon", matrix_state_dtype="none"),
    _row("matrix-rule-budget", matrix_rule="muon", budget="20%", policy="role", reallocate_every=2),
)

_BY_NAME = {row.name: row for row in ROWS}

#: One of each class, and of each kind of step: for what takes long, and where a test has many other
#: factors that do not depend on what state there is.
FEW = tuple(
    _BY_NAME[name]
    for name in ("fp32", "budget", "turboadam-ustate", "casmo", "tiger", "axiom", "matrix-rule")
)

#: Runs a test once for every optimizer of the table, or for those few.
each = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
few = pytest.mark.parametrize("row", FEW, ids=lambda row: row.name)


def params_of(optimizer: Cosmic) -> list[nn.Parameter]:
    """All parameters, in order."""
    return [p for group in optimizer.param_groups for p in group["params"]]


def started(row: Row, **options: Any) -> Cosmic:
    """The row's optimizer of fresh parameters, the same ones at every call."""
    return row.make([parameter(k, *shape) for k, shape in enumerate(SHAPES)], **options)


def stepped(optimizer: Cosmic, first: int, last: int) -> Cosmic:
    """After steps first..last - 1, each with gradients of its own."""
    for step in range(first, last):
        give_gradients(params_of(optimizer), seed=step)
        optimizer.step()
    return optimizer


def gradients(step: int) -> list[Tensor]:
    """What ``stepped`` gives fresh parameters at a step."""
    return [normal(1000 * step + k, *shape) for k, shape in enumerate(SHAPES)]


def moved(row: Row, steps: int = 3, **options: Any) -> str:
    """Fingerprint of parameters and state after plain steps."""
    return digest(stepped(started(row, **options), 0, steps))
