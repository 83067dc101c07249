"""Addition modulo 97: every pair, and a transformer of one layer that learns it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

PRIME = 97
WIDTH, HEADS = 64, 4


def addition() -> tuple[Tensor, Tensor]:
    """All pairs (a, b), int64 [9409, 2], and their sums modulo 97, int64 [9409]."""
    numbers = torch.arange(PRIME)
    pairs = torch.cartesian_prod(numbers, numbers)
    return pairs, pairs.sum(1) % PRIME


class Adder(nn.Module):
    """Tokens a, b, "=": pre-norm attention and MLP, the sum read at the last."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(PRIME + 1, WIDTH)
        nn.init.normal_(self.tokens.weight, std=0.02)
        self.places = nn.Parameter(0.02 * torch.randn(3, WIDTH))
        self.to_qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.mix = nn.Linear(WIDTH, WIDTH, bias=False)
        self.mlp = nn.Sequential(
            nn.LayerNorm(WIDTH),
            nn.Linear(WIDTH, 4 * WIDTH),
            nn.ReLU(),
            nn.Linear(4 * WIDTH, WIDTH),
        )
        self.before, self.after = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, PRIME, bias=False)

    def forward(self, pairs: Tensor) -> Tensor:
        """Pairs, int64 [n, 2], to logits [n, 97]."""
        count = len(pairs)
        equals = torch.full((count, 1), PRIME)
        x: Tensor = self.tokens(torch.cat([pairs, equals], 1)) + self.places
        qkv = self.to_qkv(self.before(x)).view(count, 3, 3, HEADS, WIDTH // HEADS)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        heads = functional.scaled_dot_product_attention(q[:, :, -1:], k, v)
        last = x[:, -1] + self.mix(heads.transpose(1, 2).reshape(count, WIDTH))
        logits: Tensor = self.head(self.after(last + self.mlp(last)))
        return logits
