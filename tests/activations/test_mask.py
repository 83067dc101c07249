"""`Mask`: one bit an element, and what it stands for comes back exactly."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cosmic.activations.mask import Mask

pytestmark = pytest.mark.usefixtures("one_thread")


@given(st.lists(st.sampled_from([0.0, -0.0, 1.5, -2.0, float("nan"), 1e-40]), max_size=40))
def test_what_is_above_zero_comes_back(numbers: list[float]) -> None:
    tensor = torch.tensor(numbers)
    mask = Mask.of(tensor, 1.5)
    assert mask.nbytes == -(-len(numbers) // 8)
    expected = torch.tensor([0.0 if x <= 0 else 1.5 for x in numbers])
    assert torch.equal(mask.values(torch.float32), expected)


def test_of_strided_tensors_in_their_shape() -> None:
    tensor = torch.arange(-30.0, 30.0).view(3, 4, 5).permute(2, 0, 1)[:, ::2]
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        found = Mask.of(tensor.to(dtype), 1.0).values(dtype)
        assert found.dtype == dtype
        assert torch.equal(found, (tensor > 0).to(dtype))
