"""What the message on a rung that is none offers."""

from __future__ import annotations

import re

import pytest

from cosmic import Cosmic, Rung
from cosmic.parts import HISTORY_RULES
from cosmic.step.options import OWN_GATES
from helpers import parameters


def is_taken(rung: str) -> bool:
    """Whether an optimizer that is no preset takes a rung, with some gate."""
    for gate in OWN_GATES:
        try:
            Cosmic(parameters((3, 3)), rung=rung, gate=gate)
        except ValueError:
            continue
        return True
    return False


def test_rules_are_offered_that_no_preset_alone_has() -> None:
    with pytest.raises(ValueError, match="unknown rung 'tier3'") as caught:
        Rung.parse("tier3")
    offered = set(re.findall(r"'\+(\w+)'", str(caught.value))) - {"slow"}
    every = {variant for variant in HISTORY_RULES if variant}
    assert offered == {v for v in every if is_taken(f"tier2:fp32+fp32+{v}")} != every


def test_a_gate_is_offered_that_the_group_can_ask_for() -> None:
    for variant, rule in HISTORY_RULES.items():
        if rule.gate != "none":
            with pytest.raises(ValueError, match="goes with gate") as caught:
                Cosmic(parameters((3, 3)), rung=f"tier2:fp32+fp32+{variant}")
            assert (f"give gate {rule.gate!r}" in str(caught.value)) == (rule.gate in OWN_GATES)
