"""AXIOM's compressor of gradients: what is sent, what is kept, what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from cosmic import UnsupportedTensorError
from cosmic.presets import AXIOM_DDP
from helpers import normal

N = 1000  # 8 blocks, the last one partial


def test_what_is_sent_and_what_is_kept_is_the_sum_of_gradients() -> None:
    compressor, silent = AXIOM_DDP(N, decay=1), torch.zeros(N)
    sent, given = torch.zeros(N), torch.zeros(N)
    for step in range(20):
        gradient = normal(step, N)
        given += gradient
        sent += compressor.decompress(*compressor.compress(gradient))
    silent[0] = 1e-20  # asks for what is kept, of every block
    for _ in range(400):
        sent += compressor.decompress(*compressor.compress(silent))
    assert float((sent - given).abs().max()) < 0.05 * float(given.abs().max())


def test_bytes() -> None:
    values, indices, count = AXIOM_DDP(128 * 10).compress(normal(0, 10, 128))
    assert (values.nbytes, indices.nbytes, count) == (60, 70, 80)
    assert 4 * 1280 / (values.nbytes + indices.nbytes) > 39.3
    assert AXIOM_DDP(1280).state_bytes() == 2560


def test_the_mean_of_ranks_is_that_of_what_each_has_sent() -> None:
    ranks = [AXIOM_DDP(N), AXIOM_DDP(N)]
    gathered = [rank.compress(normal(k, N)) for k, rank in enumerate(ranks)]
    mean = torch.stack([ranks[0].decompress(*sent) for sent in gathered]).mean(0)
    for k, rank in enumerate(ranks):
        alone = AXIOM_DDP(N)
        assert torch.equal(rank.decompress(*gathered[k]), alone.decompress(*gathered[k]))
    assert 8 * 8 <= int((mean != 0).sum()) <= 2 * 8 * 8


def test_reset_forgets() -> None:
    first, second = AXIOM_DDP(N), AXIOM_DDP(N)
    first.compress(normal(0, N))
    first.reset()
    for a, b in zip(first.compress(normal(1, N)), second.compress(normal(1, N)), strict=True):
        assert torch.equal(torch.as_tensor(a), torch.as_tensor(b))


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"n": 0}, ValueError, "n is 0; expected 1 or more"),
        ({"n": 4.0}, TypeError, "n is 4.0; expected an int"),
        ({"n": 4, "seed": -1}, ValueError, "seed is -1"),
        ({"n": 4, "decay": "1"}, TypeError, "decay is '1'; expected a number from 0 to 1"),
        ({"n": 4, "decay": 2}, ValueError, "decay is 2; expected a number from 0 to 1"),
        ({"n": 4, "top_k_percent": 1.0}, ValueError, "keeps 8 of each 128 elements, which is 6.25"),
    ],
)
def test_what_it_cannot_be_is_refused(
    arguments: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        AXIOM_DDP(**arguments)


def test_what_belongs_to_another_size_is_refused() -> None:
    compressor = AXIOM_DDP(N)
    with pytest.raises(ValueError, match="the gradient has 7 elements; n is 1000"):
        compressor.compress(torch.zeros(7))
    values, indices, count = AXIOM_DDP(128).compress(torch.ones(128))
    with pytest.raises(ValueError, match="expected uint8 of 48 and 56 for 64"):
        compressor.decompress(values, indices, count)
    summed = indices.to(torch.int64) * 2  # as an all_reduce would leave them
    with pytest.raises(ValueError, match="int64"):
        AXIOM_DDP(128).decompress(values, summed, count)


def test_what_is_no_real_tensor_is_refused() -> None:
    compressor = AXIOM_DDP(N)
    with pytest.raises(TypeError, match="gradient is a list; expected a torch tensor"):
        compressor.compress([0.0] * N)  # type: ignore[arg-type]
    with pytest.raises(UnsupportedTensorError, match=r"complex64; expected real .*view_as_real"):
        compressor.compress(torch.zeros(N, dtype=torch.complex64))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
def test_what_comes_back_is_float32_whatever_the_default_is(dtype: torch.dtype) -> None:
    compressor = AXIOM_DDP(N)
    sent = compressor.compress(normal(0, N))
    found = compressor.decompress(*sent)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        assert torch.equal(compressor.decompress(*sent), found)
        assert compressor.decompress(*sent).dtype == torch.float32
    finally:
        torch.set_default_dtype(before)


def test_bytes_may_lie_in_any_layout() -> None:
    """As columns of what was gathered."""
    compressor = AXIOM_DDP(N)
    values, indices, count = compressor.compress(normal(0, N))
    wanted = compressor.decompress(values, indices, count)
    values, indices = (torch.stack([part, part], dim=1)[:, 0] for part in (values, indices))
    assert torch.equal(compressor.decompress(values, indices, count), wanted)
