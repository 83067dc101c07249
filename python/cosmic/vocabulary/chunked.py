"""``chunk_vocabulary``: the swap of a model's embedding and head, undone at its end."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from types import TracebackType
from typing import Any, NoReturn, cast

from torch import Tensor, nn

from .blocks import DEFAULT_ROWS, Blocks
from .loss import NextTokenLoss
from .models import Vocabulary, vocabulary_of
from .modules import Blocked, BlockedEmbedding, BlockedLinear
from .stand_in import HiddenLogits

__all__ = ["ChunkedVocabulary", "chunk_vocabulary"]


class ChunkedVocabulary:
    """What ``chunk_vocabulary`` gives: a context manager, left at its end or by ``remove``."""

    def __init__(self, model: nn.Module, found: Vocabulary, rows: int) -> None:
        self._model = model
        self._active = True
        self._making = False  # a loss without logits
        self._swapped: dict[Blocked, nn.Module] = {}
        self._set: dict[str, Any] = {}  # attributes of the owner, over those of its class
        self._found = found
        blocks: dict[Tensor, Blocks] = {}
        for module in found.modules:
            if module.weight not in blocks:
                blocks[module.weight] = Blocks(module.weight, rows)
        self._blocks = list(blocks.values())
        if found.embedding is not None:
            embedding = BlockedEmbedding(
                found.embedding,
                blocks[found.embedding.weight],
                self._is_making,
                tied=found.tied,
                factor=found.factor,
            )
            self._swap(embedding, found.embedding)
        if found.head is not None and found.owner is not None:
            head = BlockedLinear(found.head, blocks[found.head.weight], self._is_making)
            self._swap(head, found.head)
            self._serve(found.owner, head)

    def __enter__(self) -> ChunkedVocabulary:
        if not self._active:
            raise RuntimeError(
                "this chunk_vocabulary() has been left already; call it anew, and make the "
                "optimizer anew within"
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.remove()

    def __repr__(self) -> str:
        shapes = [f"{len(b.params)} blocks of {tuple(b.params[0].shape)}" for b in self._blocks]
        return f"ChunkedVocabulary({', '.join(shapes)})"

    @property
    def block_bytes(self) -> int:
        """Bytes of the largest block, and of its gradient."""
        return max(param.nbytes for blocks in self._blocks for param in blocks.params)

    def remove(self) -> None:
        """Give the model its own modules back, with the weights as they have been trained and any
        gradients; a second time does nothing."""
        if not self._active:
            return
        self._active = False
        for blocked, module in self._swapped.items():
            module.train(blocked.training)
            _exchange(self._model, blocked, module)
        for blocks in self._blocks:
            blocks.give_back()
        owner = self._found.owner
        for name, value in self._set.items():
            if vars(owner).get(name) is value[0]:
                if value[1] is None:
                    delattr(owner, name)
                else:
                    setattr(owner, name, value[1])

    # ---- the swap ------------------------------------------------------------------------------

    def _is_making(self) -> bool:
        return self._making

    def _swap(self, blocked: Blocked, module: nn.Module) -> None:
        self._swapped[blocked] = module
        _exchange(self._model, module, blocked)

    def _serve(self, owner: nn.Module, head: BlockedLinear) -> None:
        """Let the owner's forward make losses without logits."""
        self._loss = NextTokenLoss(head, cast(Callable[..., Tensor], owner.loss_function))
        self._over(owner, "forward", self._forward(owner.forward))
        self._over(owner, "_loss_function", self._loss)
        self._over(owner, "tie_weights", _nothing)  # what is tied stays so
        self._over(owner, "resize_token_embeddings", _refuse_to_resize)

    def _over(self, owner: nn.Module, name: str, value: Any) -> None:
        self._set[name] = (value, vars(owner).get(name))
        setattr(owner, name, value)

    def _forward(self, inner: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(inner)

        @functools.wraps(inner)
        def forward(*args: Any, **kwargs: Any) -> Any:
            given = signature.bind_partial(*args, **kwargs).arguments.get("labels")
            if given is None or not self._active:
                return inner(*args, **kwargs)
            before = self._loss.calls
            self._making = True
            try:
                output = inner(*args, **kwargs)
            finally:
                self._making = False
                for blocks in self._blocks:
                    blocks.link = None
            if self._loss.calls == before:
                raise RuntimeError(
                    f"{type(self._found.owner).__name__} was given labels but did not call its "
                    "loss_function, which chunk_vocabulary() relies on"
                )
            return _without_logits(output)

        return forward


def chunk_vocabulary(model: nn.Module, rows: int = DEFAULT_ROWS) -> ChunkedVocabulary:
    """Take a model's embedding, head and cross-entropy in blocks of rows, until left.

    A language model's largest gradient is its embedding's or its head's, and the largest tensor of
    its forward are the logits. Within this context both weights are parameters of ``rows`` rows
    each, ``weight_0``, ``weight_1`` and so on, views of the model's own memory: each block's
    gradient is complete, and with ``Cosmic.step_in_backward`` stepped and freed, before the next
    one's is made. A loss from ``labels`` is computed without logits, exact to the order of sums;
    the output's ``logits`` are then None. Without ``labels``, as in generation, they are there.

    Backward makes logits anew: of the head's three products there are four, five where embedding
    and head are tied.

    Args:
        model: of transformers, or a wrapper of one: a causal language model whose head is an
            ``nn.Linear`` and whose loss is ``ForCausalLMLoss``; of other models without head only
            the embedding is taken. The optimizer is to be made within the context.
        rows: of a block at most; blocks are even.

    Returns:
        A context manager; ``remove()`` leaves, too. The model then has its own modules again, with
        the trained weights. ``block_bytes`` are those of the largest block.

    Raises:
        TypeError: for what is no module or no whole number of rows.
        ValueError: for ``rows`` below 1, a model without embedding and head, and what cannot be
            chunked: adapters on them, other losses, weights that a third module shares, and the
            options ``max_norm`` and ``sparse``.
        RuntimeError: if the model's vocabulary is chunked already.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a {type(model).__name__}; expected an nn.Module")
    if not isinstance(rows, int) or isinstance(rows, bool):
        raise TypeError(f"rows is {rows!r}; expected a whole number of rows")
    if rows < 1:
        raise ValueError(f"rows is {rows}; expected 1 or more")
    return ChunkedVocabulary(model, vocabulary_of(model), rows)


def _exchange(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Wherever a model has a module."""
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child is old:
                parent._modules[name] = new


def _without_logits(output: Any) -> Any:
    """A model's output, a tuple or a dict of one, without what stands in for logits."""
    if isinstance(output, tuple):
        return tuple(None if isinstance(one, HiddenLogits) else one for one in output)
    if not isinstance(output, dict):
        return output
    return type(output)(**{k: v for k, v in output.items() if not isinstance(v, HiddenLogits)})


def _nothing(*args: object, **kwargs: object) -> None:
    """Of tie_weights()."""


def _refuse_to_resize(*args: object, **kwargs: object) -> NoReturn:
    raise RuntimeError(
        "resize_token_embeddings() within chunk_vocabulary(): the blocks are of the weights as "
        "they are; resize before, or leave it first"
    )
