"""Bytes of the pieces in which a model's gradients come."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from ..vocabulary.blocks import block_rows

__all__ = ["gradient_sizes"]


def gradient_sizes(
    module: nn.Module,
    sizes: Mapping[Tensor, int],
    stand_ins: Mapping[int, tuple[str, Tensor]],
    rows: int,
) -> list[int]:
    """Bytes of each gradient that is whole at once.

    Args:
        module: the model.
        sizes: bytes of each trained parameter's gradient, by its stand-in.
        stand_ins: name and stand-in of each parameter, by its identity.
        rows: of a block of the vocabulary, in which gradients of embedding and head come; 0: they
            are whole.
    """
    tables = set()
    for getter in ("get_input_embeddings", "get_output_embeddings"):
        table = getattr(module, getter, lambda: None)() if rows else None
        weight = getattr(table, "weight", None)
        if weight is not None:
            tables.add(id(stand_ins[id(weight)][1]))
    out = []
    for param, nbytes in sizes.items():
        if id(param) not in tables:
            out.append(nbytes)
            continue
        length = param.shape[0]
        block = block_rows(length, rows)
        row = nbytes // length
        out += [row * min(block, length - start) for start in range(0, length, block)]
    return out
