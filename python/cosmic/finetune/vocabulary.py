"""Embedding, head and loss in blocks, as a comparison asks for it."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from cosmic.finetune.errors import UsageError
from cosmic.vocabulary.chunked import chunk_vocabulary

__all__ = ["in_blocks"]


def in_blocks(model: Any, rows: int | bool) -> AbstractContextManager[object]:
    """The context in which a model's vocabulary is taken in blocks.

    Args:
        model: to be trained within.
        rows: of a block; True leaves them to ``chunk_vocabulary``, False takes it as a whole.

    Raises:
        UsageError: the model's vocabulary cannot be taken in blocks.
    """
    if rows is False:
        return nullcontext()
    try:
        return chunk_vocabulary(model) if rows is True else chunk_vocabulary(model, rows)
    except (TypeError, ValueError) as error:
        raise UsageError(f"--chunk-vocabulary: {error}") from error
