"""Parameters in parts beside parameters of their own, for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cosmic import Cosmic
from cosmic.state.entries import entries_of, own
from cosmic.state.slices import Slice
from helpers import bits, normal, same_bits, set_gradient

#: How a tensor lies in memory: the same numbers in another order, or with gaps.
LAYOUTS = ("contiguous", "transposed", "gaps")


def laid_out(values: Tensor, layout: str) -> Tensor:
    if layout == "transposed":
        return values.transpose(0, 1).contiguous().transpose(0, 1)
    if layout == "channels_last":
        return values.contiguous(memory_format=torch.channels_last)
    if layout == "gaps":
        wide = torch.zeros(*values.shape[:-1], values.shape[-1] + 3, dtype=values.dtype)
        wide[..., :-3] = values
        return wide[..., :-3]
    return values.clone()


def alone(part: Tensor) -> Tensor:
    """A tensor of its own, walked in the order in which the part is."""
    span = sum((n - 1) * stride for n, stride in zip(part.shape, part.stride(), strict=True)) + 1
    dense = span == part.numel()
    kept = torch.preserve_format if dense else torch.contiguous_format
    return part.detach().clone(memory_format=kept)


def split(tensor: Tensor, dimension: int, sizes: Sequence[int]) -> list[Tensor]:
    starts = accumulate(sizes[:-1], initial=0)
    return [tensor.narrow(dimension, s, n) for s, n in zip(starts, sizes, strict=True)]


@contextmanager
def numbered_as_parameters() -> Iterator[None]:
    """Within it the parts of the first parameter have the random numbers that parameters of their
    own have."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Slice, "row_index", lambda self, of_param: of_param + self.number)
        yield


def check_parity(
    start: Tensor, dimension: int, sizes: Sequence[int], steps: int = 4, **options: Any
) -> Cosmic:
    """Steps a parameter in parts, and its parts as parameters of their own: the same bits, of the
    parameters and of all state. Returns the optimizer that has parts."""
    whole = nn.Parameter(start)
    pieces = [nn.Parameter(alone(p)) for p in split(whole.detach(), dimension, sizes)]
    together = Cosmic([whole], parts=(dimension, tuple(sizes)), **options)
    apart = Cosmic(pieces, **options)
    with numbered_as_parameters():
        for step in range(steps):
            gradient = normal(100 + step, *start.shape, dtype=start.dtype)
            set_gradient(whole, gradient)
            for piece, share in zip(pieces, split(gradient, dimension, sizes), strict=True):
                set_gradient(piece, alone(share))
            together.step()
            apart.step()
    for k, piece in enumerate(pieces):
        mine = split(whole.detach(), dimension, sizes)[k]
        assert same_bits(mine.contiguous(), piece.detach().contiguous()), f"part {k}"
        check_same_state(entries_of(together.state[whole], f"{k}/"), apart.state[piece])
    assert together.state_bytes() == apart.state_bytes()
    return together


def check_same_state(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert list(own(found)) == list(expected)
    for key, value in expected.items():
        if isinstance(value, Tensor):
            assert torch.equal(bits(found[key]), bits(value)), key
        else:
            assert found[key] == value, key


def fused(seed: int = 0, rows: int = 96, columns: int = 64) -> nn.Parameter:
    return nn.Parameter(normal(seed, rows, columns))


def go(optimizer: Cosmic, first: int, last: int) -> None:
    """Steps first..last - 1, with gradients that depend on the step and the parameter alone."""
    for step in range(first, last):
        for k, p in enumerate(p for g in optimizer.param_groups for p in g["params"]):
            set_gradient(p, normal(1000 * step + k, *p.shape, dtype=p.dtype))
        optimizer.step()
