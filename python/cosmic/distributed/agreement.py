"""Ranks that compress gradients differently find out before they exchange any."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import torch
import torch.distributed as dist
from torch import Tensor

from ..errors import DisagreementError

__all__ = ["DisagreementError", "check_agreement", "model_digest"]

WIDTH = 64  # bytes of a setting's text


def model_digest(parameters: Iterable[tuple[str, Tensor]]) -> str:
    """Of names, dtypes and shapes, in their order."""
    text = "".join(f"{name} {p.dtype} {tuple(p.shape)}\n" for name, p in parameters)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def check_agreement(settings: Mapping[str, object], group: dist.ProcessGroup | None) -> None:
    """Compare settings with those of all ranks, by one small collective.

    Args:
        settings: by what they are called; every rank has the same names.
        group: of the ranks; None: all.

    Raises:
        DisagreementError: on every rank, if one of them differs from the first.
    """
    mine = torch.zeros(len(settings), WIDTH, dtype=torch.uint8)
    for row, value in zip(mine, settings.values(), strict=True):
        text = str(value).encode()[:WIDTH]
        row[: len(text)] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
    everyone = [torch.empty_like(mine) for _ in range(dist.get_world_size(group))]
    dist.all_gather(everyone, mine, group=group)
    for k, name in enumerate(settings):
        texts = [_text(ranks[k]) for ranks in everyone]
        other = next((rank for rank, text in enumerate(texts) if text != texts[0]), None)
        if other is not None:
            raise DisagreementError(
                f"ranks differ in {name}: rank 0 has {texts[0]}, rank {other} has {texts[other]}. "
                "All ranks must compress the gradients of one model in one way; nothing was sent."
            )


def _text(row: Tensor) -> str:
    return bytes(row.tolist()).rstrip(b"\0").decode(errors="replace")
