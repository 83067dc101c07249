"""Rates of query, key and value: tagged groups and parts alike."""

from __future__ import annotations

import math
import statistics
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosmic import Cosmic
from cosmic.controllers import Observation, QKVRates
from helpers import parameter
from synthetic import groups_tagged, looks, tensor

TAGS = ("attn_q", "attn_k", "attn_v")
STEPS = st.tuples(*[st.tuples(st.floats(1e-4, 1e4), st.floats(1e-2, 1e2))] * 3)


@given(
    seen=STEPS,
    strength=st.floats(0.0, 1.0),
    decay=st.floats(0.0, 0.9),
    bounds=st.tuples(st.floats(0.1, 1.0), st.floats(1.0, 10.0)),
)
def test_slices_settle_between_their_own_step_and_the_median_s(
    seen: Any, strength: float, decay: float, bounds: tuple[float, float]
) -> None:
    groups = groups_tagged(*TAGS)

    def inside() -> None:
        assert all(bounds[0] * 0.999999 <= g["lr_scale"] <= bounds[1] * 1.000001 for g in groups)

    controller = QKVRates(strength=strength, decay=decay, bounds=bounds)
    looks(controller, groups, dict(zip(TAGS, seen, strict=True)), 40, inside)
    steps = [math.log(update / size) for update, size in seen]
    median = statistics.median(steps)
    for group, step in zip(groups, steps, strict=True):
        wanted = math.exp(strength * (median - step))
        wanted = min(max(wanted, bounds[0]), bounds[1])
        assert abs(math.log(group["lr_scale"] / wanted)) < 0.0101


def test_a_slice_that_moves_further_gets_a_lower_rate() -> None:
    groups = groups_tagged(*TAGS)
    seen = {"attn_q": (2.0, 1.0), "attn_k": (1.0, 1.0), "attn_v": (0.5, 1.0)}
    looks(QKVRates(), groups, seen, 20)
    assert [group["lr_scale"] for group in groups] == pytest.approx([0.7071, 1.0, 1.3], abs=1e-3)


def test_parts_have_entries_of_their_own() -> None:
    """And what else the group's rates say stays."""
    groups = groups_tagged("attn_qkv", lr_scale={"matrix": 0.5, "q": 0.9})
    seen = [
        tensor(0, 4.0, 1.0, part="q", scale=0.45), tensor(0, 0.9, 1.0, part="k", scale=0.5),
        tensor(0, 0.9, 1.0, part="v", scale=0.5),
    ]  # fmt: skip
    controller = QKVRates(strength=1.0, bounds=(0.1, 10.0))
    controller.observe(Observation(25, groups, seen))
    assert groups[0]["lr_scale"] == pytest.approx(
        {"table": 1.0, "matrix": 0.5, "vector": 1.0, "q": 0.9 / 4}
    )
    seen = [
        tensor(0, 1.0, 1.0, part="q", scale=0.45 / 4), tensor(0, 0.9, 1.0, part="k", scale=0.5),
        tensor(0, 9.0, 1.0, part="v", scale=0.5),
    ]  # fmt: skip
    controller.observe(Observation(50, groups, seen))
    assert groups[0]["lr_scale"]["q"] == pytest.approx(0.9 * 4**-0.8)
    assert groups[0]["lr_scale"]["v"] == pytest.approx(10**-0.2)


def test_a_number_for_the_group_becomes_one_for_each_role() -> None:
    groups = groups_tagged("attn_qkv", lr_scale=0.5)
    seen = [tensor(0, u, 1.0, part=part, scale=0.5) for part, u in (("q", 4.0), ("k", 1.0))]
    QKVRates(strength=1.0, bounds=(0.1, 10.0)).observe(Observation(25, groups, seen))
    roles = {"table": 0.5, "matrix": 0.5, "vector": 0.5}
    assert groups[0]["lr_scale"] == pytest.approx({**roles, "q": 0.5, "k": 2.0})


def test_all_tensors_of_a_slice_count_together() -> None:
    groups = groups_tagged("attn_q", "attn_q", "attn_k")
    seen = [tensor(0, 1.0, 1.0), tensor(1, 7.0**0.5, 1.0), tensor(2, 1.0, 1.0)]
    QKVRates(strength=1.0, bounds=(0.1, 10.0)).observe(Observation(25, groups, seen))
    assert [g["lr_scale"] for g in groups] == pytest.approx([2**-0.5, 2**-0.5, 2**0.5])


def test_one_slice_alone_has_no_median_to_be_held_to() -> None:
    groups = groups_tagged(*TAGS)
    looks(QKVRates(), groups, {"attn_q": (9.0, 1.0), "attn_k": (0.0, 1.0)}, 3)
    assert [group["lr_scale"] for group in groups] == [1.0] * 3


def test_strength_is_a_share() -> None:
    with pytest.raises(ValueError, match=r"strength is 1\.5; expected a finite number from 0 to 1"):
        QKVRates(strength=1.5)
    with pytest.raises(ValueError, match="decay is 1; expected less"):
        QKVRates(decay=1)


def test_groups_without_two_slices_are_refused_when_attached() -> None:
    optimizer = Cosmic([{"params": [parameter(0, 4, 4)], "tag": "attn_q"}])
    with pytest.raises(ValueError, match=r"the parameter groups have \['q'\]"):
        optimizer.add_controller(QKVRates())
