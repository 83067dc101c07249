"""Options of the whole optimizer in its groups, where wrappers copy every keyword to."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

from cosmic import Cosmic, RolePolicy, SignalPolicy
from cosmic.presets import AXIOM, CASMO, Tiger, TurboAdam
from helpers import digest, give_gradients, parameters, refused, take_steps, through_a_file

OWN = RolePolicy()

#: Optimizers with options of the whole, all other than the defaults.
WHOLE: dict[str, tuple[type[Cosmic], dict[str, Any]]] = {
    "cosmic": (
        Cosmic,
        {
            "budget": "90%", "policy": "signal", "nonfinite": "skip", "seed": 7,
            "reallocate_every": 2,
        },
    ),
    "policy-object": (Cosmic, {"budget": 900, "policy": OWN}),
    "none": (Cosmic, {"budget": None, "policy": "role"}),
    "axiom": (
        AXIOM,
        {
            "max_grad_norm": 2.0, "detect_anomaly": False, "seed": 7, "nonfinite": "skip",
            "budget": "90%",
        },
    ),
    "casmo": (CASMO, {"log_level": "DEBUG", "nonfinite": "skip", "seed": 7}),
    "tiger": (Tiger, {"skip_if_nonfinite": False, "seed": 7, "plateau_patience": 3}),
    "turboadam": (TurboAdam, {"rounding_seed": 7, "v_bits": 3}),
}  # fmt: skip


def start(kind: type[Cosmic], options: dict[str, Any], **in_group: Any) -> Cosmic:
    return kind([{"params": parameters((3, 40), (9,)), **in_group}], **options)


@pytest.mark.parametrize("case", WHOLE)
def test_an_option_that_is_repeated_changes_nothing(case: str) -> None:
    kind, options = WHOLE[case]
    ours, twin = start(kind, options, **options), start(kind, options)
    assert set(ours.param_groups[0]) == set(twin.param_groups[0])
    for optimizer in (ours, twin):
        take_steps(optimizer, 0, 3)
    assert digest(ours) == digest(twin)
    extra = {"params": parameters((5,)), **options}
    ours.add_param_group(extra)
    assert set(extra) == set(twin.param_groups[0]), "the user's dict is the group"
    take_steps(ours, 3, 5)


@pytest.mark.parametrize("case", [c for c in WHOLE if c != "turboadam"])
def test_an_option_that_is_repeated_may_come_by_hand_or_from_a_checkpoint(case: str) -> None:
    kind, options = WHOLE[case]
    optimizer = start(kind, options)
    optimizer.param_groups[0].update(options)
    take_steps(optimizer, 0, 1)
    assert not set(options) & set(optimizer.param_groups[0])
    saved = optimizer.state_dict()
    for group in saved["param_groups"]:
        group.update(options)
    if case != "policy-object":
        saved = through_a_file(saved)
    other = start(kind, options)
    other.load_state_dict(saved)
    assert not set(options) & set(other.param_groups[0])
    for several in (optimizer, other):
        take_steps(several, 1, 3)
    state = [{k: v for k, v in o.state_dict().items() if k == "cosmic"} for o in (optimizer, other)]
    assert state[0] == state[1]


DIFFERS: dict[str, tuple[type[Cosmic], dict[str, Any], dict[str, Any]]] = {
    "budget": (Cosmic, {"budget": "90%"}, {"budget": "80%"}),
    "budget-only-here": (Cosmic, {}, {"budget": "80%"}),
    "budget-not-here": (Cosmic, {"budget": "80%"}, {"budget": None}),
    "budget-tensor": (Cosmic, {"budget": 90}, {"budget": torch.tensor([90, 90])}),
    "seed-array": (Cosmic, {"seed": 3}, {"seed": np.array([3, 3])}),
    "seed-is-true": (Cosmic, {"seed": 1}, {"seed": True}),
    "policy": (Cosmic, {"policy": "signal"}, {"policy": "role"}),
    "policy-object": (Cosmic, {"policy": OWN}, {"policy": SignalPolicy()}),
    "nonfinite": (Cosmic, {}, {"nonfinite": "skip"}),
    "reallocate_every": (Cosmic, {}, {"reallocate_every": 7}),
    "axiom-floor": (AXIOM, {}, {"snr_floor": 0.3}),
    "axiom-anomaly": (AXIOM, {}, {"detect_anomaly": False}),
    "casmo-seed": (CASMO, {"seed": 3}, {"seed": 4}),
    "tiger-patience": (Tiger, {"plateau_patience": 3}, {"plateau_patience": 4}),
    "casmo-level": (CASMO, {"log_level": "INFO"}, {"log_level": "DEBUG"}),
    "turboadam-seed": (TurboAdam, {"rounding_seed": 3}, {"seed": 4}),
}


@pytest.mark.parametrize("case", DIFFERS)
def test_an_option_that_differs_is_refused(case: str) -> None:
    kind, options, in_group = DIFFERS[case]
    (name,) = in_group
    message = rf"has '{name}', which is an option of the whole optimizer"
    with pytest.raises(ValueError, match=r"param_groups\[0\] " + message):
        start(kind, options, **in_group)
    optimizer = start(kind, options)
    with refused(optimizer, ValueError, f"param_groups[1] has '{name}'"):
        optimizer.add_param_group({"params": parameters((5,)), **in_group})
    assert len(optimizer.param_groups) == 1
    optimizer.param_groups[0].update(in_group)
    give_gradients(optimizer.param_groups[0]["params"], 0)
    with refused(optimizer, ValueError, f"param_groups[0] has '{name}'"):
        optimizer.step()
    del optimizer.param_groups[0][name]
    optimizer.step()
    saved = copy.deepcopy(optimizer.state_dict())
    saved["param_groups"][0].update(in_group)
    with refused(optimizer, ValueError, f"param_groups[0] has '{name}'"):
        optimizer.load_state_dict(saved)


def test_turboadams_seed_stays_an_option_of_its_groups() -> None:
    optimizer = start(TurboAdam, {"rounding_seed": 7}, rounding_seed=7)
    assert optimizer.param_groups[0]["rounding_seed"] == 7
    with pytest.raises(ValueError, match=r"rounding_seed is 8; expected 7"):
        start(TurboAdam, {"rounding_seed": 7}, rounding_seed=8)
