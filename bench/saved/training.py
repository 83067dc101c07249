"""Loss after a few hundred steps on bytes of Python's standard library."""

from __future__ import annotations

import sysconfig
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from cosmic import Cosmic
from saved.models import Size, build, holding, loss_of

SIZE = Size(layers=2, width=96, tokens=64, batch=8, vocabulary=256)
HELD_OUT = 10  # one file in so many
EVALUATED = 32  # batches


@cache
def texts() -> tuple[Tensor, Tensor]:
    """Bytes to train on, and held-out bytes."""
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    parts: tuple[list[bytes], list[bytes]] = ([], [])
    for number, file in enumerate(files):
        parts[number % HELD_OUT == 0].append(file.read_bytes())
    train, held_out = (
        torch.frombuffer(bytearray(b"".join(part)), dtype=torch.uint8) for part in parts
    )
    return train, held_out


def batches(text: Tensor, count: int, seed: int) -> Sequence[Tensor]:
    """Windows at random places."""
    generator = torch.Generator().manual_seed(seed)
    starts = torch.randint(len(text) - SIZE.tokens, (count, SIZE.batch), generator=generator)
    return [torch.stack([text[s : s + SIZE.tokens] for s in row]).long() for row in starts.tolist()]


def share_of_rate(step: int, steps: int) -> float:
    """It warms up over a tenth of the steps and falls linearly to a tenth."""
    warmup = max(1, steps // 10)
    share = (step - warmup) / max(1, steps - warmup)
    return min((step + 1) / warmup, 1 - 0.9 * max(share, 0.0))


def train(model_name: str, way: str, lr: float, seed: int, steps: int) -> float:
    """Validation loss in nats a byte after training with AdamW's moments in fp32.

    The seed decides initial weights, batches and random bits.
    """
    torch.manual_seed(seed)
    model = build(model_name, SIZE)
    held = holding(way, model, seed)
    optimizer = Cosmic(model.parameters(), lr=lr, weight_decay=0.01, state_dtype="fp32")
    text, held_out = texts()
    for step, ids in enumerate(batches(text, steps, seed)):
        for group in optimizer.param_groups:
            group["lr"] = lr * share_of_rate(step, steps)
        with held():
            loss = loss_of(model, ids)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    with torch.no_grad():
        losses = [float(loss_of(model, ids)) for ids in batches(held_out, EVALUATED, 12345)]
    return sum(losses) / len(losses)
