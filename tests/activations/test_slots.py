"""`ActivationSlots`: what goes in comes out, within the codec's error, and in exact bytes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from cosmic import UnsupportedTensorError
from cosmic.activations import ActivationSlots
from helpers import normal, same_bits

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(("codec", "block", "error"), [("q8", 130, 1 / 126), ("u4", 66, 1 / 6.9)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_store_and_restore(codec: str, block: int, error: float, dtype: torch.dtype) -> None:
    slots = ActivationSlots(codec=codec)
    assert slots.memory_stats()["compression_ratio"] == 1.0
    tensor = normal(0, 16, 3, 32, dtype=dtype)
    slots.store(tensor, slot=31)
    slots.store(tensor.mT, slot=0)
    found = slots.restore(slot=31)
    assert found.shape == tensor.shape and found.dtype == dtype
    assert float((found - tensor).abs().max()) <= error * float(tensor.abs().max())
    assert same_bits(found, slots.restore(31))
    packed, stored = 2 * 12 * block, 2 * tensor.nbytes
    assert slots.memory_stats() == {
        "slots_used": 2,
        "max_slots": 32,
        "stored_bytes": stored,
        "packed_bytes": packed,
        "compression_ratio": stored / packed,
    }
    slots.clear(0)
    assert slots.memory_stats()["packed_bytes"] == packed / 2
    slots.clear()
    assert slots.memory_stats()["slots_used"] == 0


def test_each_tensor_has_random_bits_of_its_own() -> None:
    tensor = normal(0, 1024)
    slots = ActivationSlots(codec="u4")
    for slot in range(200):
        slots.store(tensor, slot % 32)
        if slot == 0:
            total = torch.zeros_like(tensor)
        total += slots.restore(slot % 32)
    assert float((total / 200 - tensor).abs().max()) < 0.15  # of one alone: up to 0.5
    again = ActivationSlots(codec="u4")
    again.store(tensor, 0)
    first = ActivationSlots(codec="u4")
    first.store(tensor, 5)
    assert same_bits(again.restore(0), first.restore(5))


@pytest.mark.parametrize(
    ("tensor", "slot", "error", "words"),
    [
        (normal(0, 8), 4, IndexError, "slot is 4; expected 0 to 3"),
        (normal(0, 8), -1, IndexError, "slot is -1"),
        (normal(0, 8), "0", TypeError, "slot is '0'; expected an int"),
        (normal(0, 5, 5), 0, ValueError, r"slot 0 has 25 elements, of shape \(5, 5\); max_n is 16"),
        (torch.arange(8), 1, UnsupportedTensorError, "slot 1 is torch.int64"),
        (normal(0, 8, dtype=torch.complex64), 1, UnsupportedTensorError, "is torch.complex64"),
        (torch.tensor([1.0, torch.nan]), 1, ValueError, "has no code"),
        (torch.eye(4).to_sparse(), 1, UnsupportedTensorError, "sparse"),
        ([1.0], 1, TypeError, "list"),
    ],
)
def test_bad_input_changes_nothing(
    tensor: Any, slot: Any, error: type[Exception], words: str
) -> None:
    slots = ActivationSlots(4, 16)
    slots.store(torch.ones(3), 1)
    with pytest.raises(error, match=words):
        slots.store(tensor, slot)
    assert slots.memory_stats()["slots_used"] == 1
    assert slots.restore(1).tolist() == pytest.approx([1.0] * 3, rel=0.01)


def test_an_empty_slot_and_bad_sizes() -> None:
    slots = ActivationSlots(4)
    slots.store(torch.ones(3), 2)
    with pytest.raises(KeyError, match=r"slot 1 is empty; filled are \[2\]"):
        slots.restore(1)
    for arguments, error in (
        ({"max_slots": 0}, ValueError), ({"max_n": -3}, ValueError),
        ({"max_slots": 2.0}, TypeError), ({"codec": "u4+q8"}, ValueError),
        ({"seed": -1}, ValueError),
    ):  # fmt: skip
        with pytest.raises(error, match=next(iter(arguments))):
            ActivationSlots(**arguments)
