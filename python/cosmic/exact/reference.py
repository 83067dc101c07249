"""A small training whose digest says whether this installation computes the bits that it should.

A GPT of 31,000 parameters is trained on tokens from a counter, by the modules of this package and
``VerityAdam``. Everything that it does is in the bits of its weights at the end. The compiled core
can do the same by itself, without torch; both must agree.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from .modules import GELU, Attention, CrossEntropyLoss, Embedding, LayerNorm, Linear
from .optimizer import VerityAdam
from .randomness import normal_, uniform_

__all__ = ["EXPECTED", "STEPS", "ReferenceModel", "digest_of", "reference_batches", "train"]

SEQUENCES, LENGTH, VOCABULARY, WIDTH, HEADS, BLOCKS = 16, 32, 64, 32, 2, 2
STEPS = 50

_ROUNDED_ONCE = "35c2d6238e121f7ce9ae32772927a11d086a9a4117ed22e46eea82667cf6d53a"
#: This release's digests after all steps, by ``accumulate``. In double no sum of this training is
#: off by as much as would round it otherwise than the exact one.
EXPECTED = {
    "fp32": "3d8d7a58659b302fd1a11f1cafb9f40d9f05605b80934ee8e92673cf01500661",
    "fp64": _ROUNDED_ONCE,
    "exact": _ROUNDED_ONCE,
}


class _Block(nn.Module):
    """Causal attention and a feed-forward network, each added to what comes in."""

    def __init__(self, accumulate: str) -> None:
        super().__init__()
        self.norm1 = LayerNorm(WIDTH)
        self.qkv = Linear(WIDTH, 3 * WIDTH, accumulate=accumulate)
        self.proj = Linear(WIDTH, WIDTH, accumulate=accumulate)
        self.norm2 = LayerNorm(WIDTH)
        self.up = Linear(WIDTH, 4 * WIDTH, accumulate=accumulate)
        self.down = Linear(4 * WIDTH, WIDTH, accumulate=accumulate)
        self.attention = Attention(causal=True, accumulate=accumulate)
        self.act = GELU(approximate="tanh")

    def forward(self, x: Tensor) -> Tensor:
        parts = self.qkv(self.norm1(x)).split(WIDTH, -1)
        q, k, v = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in parts)
        x = x + self.proj(self.attention(q, k, v).transpose(1, 2).flatten(2))
        hidden: Tensor = self.down(self.act(self.up(self.norm2(x))))
        return x + hidden


class ReferenceModel(nn.Module):
    """Embeddings of tokens and positions, blocks, a norm and a head: 29 tensors of weights.

    Matrices are normal with standard deviation 1/8, with their number as the key; weights of norms
    are 1 and biases 0.

    Args:
        accumulate: as in ``exact.linear``.
    """

    def __init__(self, accumulate: str = "fp64") -> None:
        super().__init__()
        self.tokens = Embedding(VOCABULARY, WIDTH)
        self.positions = Embedding(LENGTH, WIDTH)
        self.blocks = nn.ModuleList(_Block(accumulate) for _ in range(BLOCKS))
        self.norm = LayerNorm(WIDTH)
        self.head = Linear(WIDTH, VOCABULARY, bias=False, accumulate=accumulate)
        self.loss = CrossEntropyLoss()
        for index, (name, parameter) in enumerate(self.named_parameters()):
            if parameter.ndim == 2:
                normal_(parameter, 0.0, 0.125, key=index)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, ids: Tensor, targets: Tensor) -> Tensor:
        """The mean loss over all tokens, a scalar."""
        places = torch.arange(ids.shape[1]).expand_as(ids)
        x = self.tokens(ids) + self.positions(places)
        for block in self.blocks:
            x = block(x)
        logits = self.head(self.norm(x))
        loss: Tensor = self.loss(logits.flatten(0, 1), targets.flatten())
        return loss


def reference_batches(steps: int) -> Iterator[Tensor]:
    """Tokens of each step, int64 ``(sequences, length + 1)``: each follows from the one before, but
    for a lot of four."""
    for step in range(steps):
        lots = torch.empty(SEQUENCES, LENGTH + 1, dtype=torch.float64)
        uniform_(lots, 0.0, 1.0, key=1000 + step)
        columns = [(VOCABULARY * lots[:, 0]).long()]
        for i in range(1, LENGTH + 1):
            columns.append((5 * columns[-1] + (4 * lots[:, i]).long()) % VOCABULARY)
        yield torch.stack(columns, 1)


def train(accumulate: str = "fp64", steps: int = STEPS) -> ReferenceModel:
    """The model after a number of steps.

    Args:
        accumulate: as in ``exact.linear``.
        steps: of the training.
    """
    state = torch.get_rng_state()  # the first initial weights, which are overwritten, draw keys
    model = ReferenceModel(accumulate)
    torch.set_rng_state(state)
    optimizer = VerityAdam(model.parameters(), lr=0.003, weight_decay=0.0)
    for ids in reference_batches(steps):
        optimizer.zero_grad()
        model(ids[:, :-1], ids[:, 1:]).backward()
        optimizer.step()
    return model


def digest_of(model: nn.Module) -> str:
    """SHA-256 of all weights: little-endian, each tensor in the order of its indices.

    Args:
        model: any.

    Returns:
        64 hexadecimal digits.
    """
    found = hashlib.sha256()
    for parameter in model.parameters():
        numbers = parameter.detach().contiguous().flatten().view(torch.uint8)
        found.update(bytes(numbers.tolist()))
    return found.hexdigest()
