"""Trajectories by name, for tests that hold their bits against each other: one for each combination
of rule and codecs that is compiled, and of what else a step can do."""

from __future__ import annotations

import io
import warnings
from functools import cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from cosmic import Cosmic, _core
from cosmic.presets import AXIOM, CASMO, Tiger
from helpers import UNUSUAL, normal, parameters
from trajectories import SPECIAL_VALUES

#: Odd sizes, and enough elements that seven threads have work: of a vector, and of matrices whose
#: work items begin within rows and which are tall and wide.
SHAPES = (
    (70001,),
    (257, 65),
    (4097,),
    (1,),
    (127,),
    (0, 3),
    (),
    (3, 41, 407),
    (16, 17, 129),
    (40, 1601),
)


def combination_options(name: str) -> dict[str, Any]:
    """From a row of the table of combinations, such as "float adam bf16 none fp32", to options. A
    sixth word names the sums that a codec or a gate asks for."""
    arithmetic, rule, m, m_slow, v, *probe = name.split()
    dtype = torch.float64 if arithmetic == "double" else torch.float32
    if rule == "sign":
        return {"dtype": dtype, "tier": 0}
    if rule == "rmsprop":
        return {"rung": f"tier1:{v}", "special": True, "min_compress_size": 0}
    if rule in ("muon", "muon_gradient"):
        return {"special": True, **matrices(m)}
    if rule == "tiger":
        kind = {"optimizer": Tiger, "compat": "2.2", "agc_clip": 0.5, "blend_steps": 3}
        return {"dtype": dtype, "state_dtype": f"{m}+{v}".replace("fp64", "fp32"), **kind}
    slow = {} if m_slow == "none" else {"beta_slow": 0.99, "slow_warmup": 3}
    moments = {} if arithmetic == "double" else {"state_dtype": f"{m}+{v}", "min_compress_size": 0}
    gate: dict[str, Any] = {"gate": "agar"} if rule == "belief" else {}
    if rule == "softsign":
        gate = {"rule": rule, "blend_to": 0.7, "blend_steps": 3, "blend_schedule": "cosine"}
    kind = lagged_casmo() if probe == ["agar"] else {"tier": 2}
    return {"dtype": dtype, "special": True, **kind, **slow, **moments, **gate}


def lagged_casmo() -> dict[str, Any]:
    """Options of a scenario whose steps look at the moments; each tensor on its own, so that the
    split into groups makes no difference."""
    return {"optimizer": CASMO, "exact": False, "granularity": "parameter"}


def matrices(codec: str) -> dict[str, Any]:
    """Options under which everything that is a matrix is stepped as a whole."""
    options = {"matrix_rule": "muon", "role": "matrix", "min_compress_size": 0}
    return {**options, "matrix_state_dtype": codec}


#: Options by scenario; "dtype", "steps" and "special" are of the trajectory.
SCENARIOS: dict[str, dict[str, Any]] = {
    **{name: combination_options(name) for name in _core.combinations()},
    "axiom": {"optimizer": AXIOM, "reallocate_every": 3, "steps": 7},
    "axiom-bfloat16": {"optimizer": AXIOM, "dtype": torch.bfloat16, "gate": "snr", "steps": 23},
    "axiom-double": {"optimizer": AXIOM, "dtype": torch.float64},
    "casmo": {"optimizer": CASMO, "granularity": "parameter"},
    "ordinary": {"state_dtype": "u4+factored"},
    "tier1": {"tier": 1},
    "bfloat16": {"dtype": torch.bfloat16, "state_dtype": "bf16"},
    "bfloat16-tier0": {"dtype": torch.bfloat16, "tier": 0},
    "bfloat16-to-nearest": {
        "dtype": torch.bfloat16, "state_dtype": "u2+factored", "stochastic_rounding": False
    },
    "bfloat16-of-the-tensor": {"dtype": torch.bfloat16, "state_dtype": "ustate+vlog4"},
    "float16": {"dtype": torch.float16, "tier": 1},
    "complex64": {"dtype": torch.complex64, "state_dtype": "fp32"},
    "complex64-of-the-gradient": {"dtype": torch.complex64, "state_dtype": "costate+vlog3"},
    "complex64-compressed": {"dtype": torch.complex64, "state_dtype": "q8+factored"},
    "special-float16": {"special": True, "dtype": torch.float16, "state_dtype": "fp32"},
    "special-bfloat16": {"special": True, "dtype": torch.bfloat16, "state_dtype": "u4+v4"},
    "without-momentum": {"rung": "tier1:factored", "min_compress_size": 200},
    "without-momentum-bfloat16": {"rung": "tier1:rowmean", "dtype": torch.bfloat16},
    "without-momentum-complex64": {"rung": "tier1:v4", "dtype": torch.complex64},
    "without-momentum-gate": {"rung": "tier1:factored", "gate": "snr", "steps": 26},
    "gate": {"gate": "snr", "c_min": 0.2, "steps": 26, "state_dtype": "fp32"},
    "gate-compressed": {"gate": "snr", "c_min": 0.2, "steps": 26, "state_dtype": "u4+factored"},
    "gate-of-the-tensor": {"gate": "snr", "steps": 26, "state_dtype": "ustate+vlog6"},
    "gate-tier1-double": {"gate": "snr", "tier": 1, "dtype": torch.float64, "steps": 26},
    "norms": {"gate": "trust+agc+snr", "agc_clip": 2.0, "clip_update": 0.5, "steps": 23},
    "norms-exact": {
        "gate": "trust+agar", "exact": True, "c_min": 0.2, "norm_decay": 0.5,
        "state_dtype": "u4+factored", "min_compress_size": 0,
    },
    "norms-tier0-bfloat16": {"gate": "agc", "tier": 0, "dtype": torch.bfloat16, "exact": True},
    "norms-tier1": {"gate": "trust", "tier": 1, "dtype": torch.float16},
    "norms-of-the-tensor": {"gate": "trust", "exact": True, "state_dtype": "costate+vlog3"},
    "norms-double": {"gate": "trust+agc", "dtype": torch.float64, "trust_clip": 1.5},
    "norms-without-momentum": {
        "rung": "tier1:factored", "gate": "trust", "min_compress_size": 200, "special": True
    },
    "norms-budget": {
        "budget": "15%", "reallocate_every": 3, "steps": 10, "gate": "trust", "state_dtype": "fp32"
    },
    "norms-of-rows": {
        "gate": "trust+snr", "norm_granularity": "row", "state_dtype": "u4+factored", "steps": 5
    },
    "matrices-norms-of-rows": {**matrices("m1"), "gate": "agc", "norm_granularity": "row"},
    "matrices-norms": {**matrices("m2"), "gate": "trust+agc", "agc_clip": 0.5, "steps": 6},
    "matrices-norms-exact": {
        **matrices("none"), "gate": "trust", "exact": True, "matrix_every": 2, "steps": 6
    },
    "matrices-in-turn": {**matrices("m1"), "matrix_every": 2, "matrix_blocks": 3, "steps": 6},
    "matrices-bfloat16": {**matrices("m2"), "dtype": torch.bfloat16, "ns_steps": 5},
    "matrices-gate": {**matrices("m4"), "gate": "snr", "exact": True, "steps": 23},
    "matrices-without-momentum-in-turn": {
        **matrices("none"), "matrix_every": 3, "dtype": torch.bfloat16, "steps": 6
    },
    "matrices-budget": {
        "matrix_rule": "muon", "role": "matrix", "budget": "3%", "policy": "role",
        "reallocate_every": 3, "steps": 10,
    },
    "budget": {
        "budget": "15%", "reallocate_every": 3, "steps": 10, "gate": "snr", "state_dtype": "fp32"
    },
    "budget-of-any-codec": {
        "budget": "7%", "policy": "role", "reallocate_every": 3, "steps": 10, "gate": "snr"
    },
    "budget-of-the-default-policy": {"budget": "7%", "reallocate_every": 3, "steps": 10},
    "budget-by-signal": {"budget": "5%", "policy": "signal", "reallocate_every": 3, "steps": 10},
    "budget-compressed": {
        "budget": "4%", "reallocate_every": 3, "steps": 10, "state_dtype": "u2+factored"
    },
}  # fmt: skip


def make(scenario: str, split: int = 1) -> Cosmic:
    """The scenario's optimizer, its parameters dealt to ``split`` groups."""
    options = dict(SCENARIOS[scenario])
    dtype = options.pop("dtype", torch.float32)
    kind: type[Cosmic] = options.pop("optimizer", Cosmic)
    for key in ("steps", "special"):
        options.pop(key, None)
    params = parameters(*SHAPES, dtype=dtype)
    bounds = [len(params) * k // split for k in range(split + 1)]
    groups = [{"params": params[a:b]} for a, b in pairwise(bounds)]
    return kind(groups, **{**UNUSUAL, **options}, seed=99)


@cache
def gradient(index: int, step: int, dtype: torch.dtype, special: bool) -> Tensor | None:
    """The tensors have gradients of sizes of their own, which grow and shrink."""
    if (index + step) % 5 == 4:
        return None
    scale = 10.0 ** ((3 * index + step) % 4 - 3)
    g = normal(1000 * step + index, *SHAPES[index], dtype=dtype, scale=scale)
    if special and g.numel() > 100 and (index + step) % 2:
        values = torch.tensor(SPECIAL_VALUES, dtype=torch.float64).to(g.dtype)
        g.view(-1)[3 : 3 + len(values)] = values
    return g


def gradients(scenario: str, step: int) -> list[Tensor | None]:
    options = SCENARIOS[scenario]
    dtype, special = options.get("dtype", torch.float32), options.get("special", False)
    return [gradient(k, step, dtype, special) for k in range(len(SHAPES))]


def run(optimizer: Cosmic, scenario: str, first: int, last: int) -> Cosmic:
    params = [p for group in optimizer.param_groups for p in group["params"]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        for step in range(first, last):
            for p, g in zip(params, gradients(scenario, step), strict=True):
                p.grad = g
            optimizer.step()
    return optimizer


def steps_of(scenario: str) -> int:
    return int(SCENARIOS[scenario].get("steps", 4))


def by_state_dict(optimizer: Cosmic, scenario: str) -> Cosmic:
    """Through torch.save and torch.load(weights_only=True), into a new process's optimizer."""
    params = [p for group in optimizer.param_groups for p in group["params"]]
    file = io.BytesIO()
    torch.save({"params": params, "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    new = make(scenario, len(optimizer.param_groups))
    with torch.no_grad():
        for p, value in zip(
            (p for group in new.param_groups for p in group["params"]), saved["params"], strict=True
        ):
            p.copy_(value)
    new.load_state_dict(saved["optimizer"])
    return new
