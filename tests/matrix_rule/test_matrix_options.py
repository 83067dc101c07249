"""What `matrix_rule` leaves alone or refuses, and in which words."""

from __future__ import annotations

import pytest
import torch

from cosmic import Cosmic
from helpers import parameters


def test_a_stack_of_matrices_is_not_taken_for_one() -> None:
    """Of experts, say: flattened they would be orthogonalized as something that they are not."""
    experts, kernel = parameters((4, 32, 64), (8, 4, 3, 3))
    groups = [{"params": [experts], "role": "matrix"}, {"params": [kernel], "role": "convolution"}]
    optimizer = Cosmic(groups, matrix_rule="muon", min_compress_size=0)
    for p in (experts, kernel):
        p.grad = torch.ones_like(p)
    optimizer.step()
    assert [info.rung for info in optimizer.tiers()] == ["tier2:u4+factored", "tier2:muon:m1"]


def test_another_number_of_groups_is_said_to_be_one() -> None:
    first, second = parameters((16, 16), (16,))
    one = Cosmic([first, second])
    two = Cosmic([{"params": [first]}, {"params": [second]}], matrix_rule="muon")
    for optimizer, other in ((one, two), (two, one)):
        with pytest.raises(ValueError, match=r"loaded state dict has \d parameter groups, t"):
            optimizer.load_state_dict(other.state_dict())


def test_parts_that_do_not_add_up_are_told() -> None:
    (param,) = parameters((64, 48))
    group = {"params": [param], "role": "matrix", "parts": (0, (32, 16))}
    with pytest.raises(ValueError, match="add up to 48 along dimension 0, expected 64"):
        Cosmic([group], matrix_rule="muon")
    with pytest.raises(ValueError, match=r"\['parts'\] is \(True, \(64,\)\); expected None or"):
        Cosmic([{"params": [param], "parts": (True, (64,))}])


def test_codecs_of_matrices_are_asked_for_by_their_own_option() -> None:
    with pytest.raises(ValueError, match="of hidden matrices alone, matrix_state_dtype has"):
        Cosmic(parameters((8, 8)), state_dtype="m4")


@pytest.mark.parametrize("dtype", [torch.bfloat16, "bfloat16", "bf16"])
def test_a_budget_knows_every_name_of_a_codec(dtype: torch.dtype | str) -> None:
    (param,) = parameters((64, 48))
    optimizer = Cosmic(
        [{"params": [param], "role": "matrix"}],
        budget="100%", matrix_rule="muon", matrix_state_dtype=dtype,
    )  # fmt: skip
    param.grad = torch.ones_like(param)
    optimizer.step()
    assert optimizer.tiers()[0].rung == "tier2:muon:bf16"
