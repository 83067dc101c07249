"""Gradients that are no plain runs of real numbers, on ranks that train together."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cosmic.distributed import compress_gradients
from cosmic.distributed.wire import real
from helpers import normal
from wire_models import MIN_NUMEL, ddp_of, digest_of, gap, given_to


class Scaled(nn.Module):
    """A parameter, whatever its layout."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x: Tensor) -> Tensor:
        return (self.weight * x).abs().sum()


def layouts(rank: int, ranks: int) -> dict[str, tuple[float, str]]:
    """By layout, how far sent and kept are from what was given, and a digest of what was got."""
    weights = {
        "complex": torch.view_as_complex(normal(0, 32, 33, 2)),
        "channels_last": normal(0, 8, 8, 4, 4).to(memory_format=torch.channels_last),
        "transposed": normal(0, 32, 33).T,
        "gaps": normal(0, 32, 66)[:, ::2],
    }
    found = {}
    for name, weight in weights.items():
        ddp = ddp_of(Scaled(weight))
        state = compress_gradients(ddp, residual="fp32", min_numel=MIN_NUMEL)
        given = torch.zeros_like(weight)
        real(given).copy_(normal(rank, *real(given).shape))
        given_to(ddp.module, given)
        ddp(torch.ones(1)).backward()
        got, kept = real(ddp.module.weight.grad), state.kept("weight")
        far = gap(real(given).double(), ranks * got.double(), kept)
        found[name] = far, digest_of([got.contiguous()])
    return found
