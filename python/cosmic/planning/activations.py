"""Bytes of a batch: what autograd saves for backward, and what the loss takes beside that."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..activations import saved_bytes
from ..activations.codecs import CodecChoice
from ..vocabulary.tiles import TILE_BYTES

__all__ = ["CHECKPOINTING", "BatchBytes", "Way", "batch_bytes", "check_batch", "check_way"]

CHECKPOINTING = "checkpointing"
_FP32 = 4


class Way(NamedTuple):
    """How a batch's memory is kept small.

    Attributes:
        activations: a codec of `compress_activations`, ``"checkpointing"``, or None.
        rows: of a block of `chunk_vocabulary`; 0: the vocabulary is taken as a whole.
    """

    activations: str | None = None
    rows: int = 0


class BatchBytes(NamedTuple):
    """Attributes:
    saved: what autograd holds between forward and backward; with recomputation the layers'
        inputs and what the largest layer saves again.
    loss: what logits and their gradients take besides while backward begins.
    """

    saved: int
    loss: int


def check_batch(batch: Any) -> tuple[int, int]:
    """`(sequences, tokens)` if it is that.

    Raises:
        TypeError: it is no pair of ints.
        ValueError: fewer than a sequence or than two tokens, of which one predicts the other.
    """
    if (
        not isinstance(batch, tuple | list)
        or len(batch) != 2
        or not all(isinstance(size, int) and not isinstance(size, bool) for size in batch)
    ):
        raise TypeError(f"batch is {batch!r}; expected a pair of ints, (sequences, tokens)")
    if batch[0] < 1 or batch[1] < 2:
        raise ValueError(f"batch is {tuple(batch)}; expected 1 sequence and 2 tokens at least")
    return batch[0], batch[1]


def check_way(way: Way) -> None:
    """Raise ValueError, as `compress_activations` does, for a codec that is none."""
    if way.activations not in (None, CHECKPOINTING):
        CodecChoice.named(way.activations)


def batch_bytes(module: nn.Module, batch: tuple[int, int], way: Way) -> BatchBytes:
    """Bytes of a batch's forward and backward, counted on the meta device.

    Args:
        module: on the meta device, as `transformers` calls them: ``module(input_ids=, labels=)``
            gives an output with ``loss``.
        batch: sequences and tokens of each.
        way: how memory is kept small.

    Raises:
        ValueError: an unknown codec, more tokens than the model has positions, recomputation of a
            model whose layers transformers cannot recompute, or a model that does not run so.
    """
    config = getattr(module, "config", None)
    positions = getattr(config, "max_position_embeddings", None)
    if positions is not None and batch[1] > positions:
        raise ValueError(f"batch has {batch[1]} tokens; the model has {positions} positions")
    ids = torch.zeros(batch, dtype=torch.long, device="meta")
    logits: list[int] = []

    def forward() -> object:
        output = module(input_ids=ids, labels=ids)
        logits.append(output.logits.numel())
        return output.loss

    def without_head() -> object:
        backbone: Any = module.base_model
        return backbone(input_ids=ids)[0]

    head = _head_shape(module) if way.rows else (0, 0)
    recompute = way.activations == CHECKPOINTING
    codec = None if recompute else way.activations
    with ExitStack() as within:
        layers = within.enter_context(_recomputed(module)) if recompute else []
        try:
            saved = saved_bytes(without_head if way.rows else forward, codec)
        except Exception as error:  # whatever a model raises that is not called so
            raise ValueError(
                f"activations of {type(module).__name__} cannot be counted: model(input_ids=..., "
                f"labels=...).loss does not run on torch's meta device: {error}"
            ) from error
    saved += max((layer.own_bytes() for layer in layers), default=0)
    if way.rows:  # of each token the last layer's output in float32 is kept, and tiles come and go
        rows, width = head
        tile = min(TILE_BYTES, _FP32 * ids.numel() * rows)
        return BatchBytes(saved + _FP32 * ids.numel() * width, 3 * tile)
    # In float32 as transformers takes a loss: gradients of the log-softmax and of the logits. What
    # was packed is unpacked besides.
    return BatchBytes(saved, (2 if codec is None else 3) * _FP32 * logits[0])


def _head_shape(module: nn.Module) -> tuple[int, int]:
    head: Any = getattr(module, "get_output_embeddings", lambda: None)()
    if getattr(head, "weight", None) is None:
        raise ValueError(
            f"chunk_vocabulary takes a head by blocks, and {type(module).__name__} has none; leave "
            "it out"
        )
    rows, width = head.weight.shape
    return int(rows), int(width)


class _Input(torch.autograd.Function):
    """Stands for a layer that is recomputed: it saves its input."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, anchor: Tensor) -> Tensor:
        ctx.save_for_backward(inputs)
        return torch.empty_like(inputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        raise NotImplementedError


class _Layer:
    """A layer that is recomputed, and what it was last called with."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.plain = module.forward
        self.arguments: tuple[tuple[Any, ...], dict[str, Any]] = ((), {})
        self.anchor = torch.zeros((), device="meta", requires_grad=True)

    def __call__(self, inputs: Tensor, *rest: Any, **options: Any) -> Any:
        self.arguments = ((inputs.detach(), *rest), options)
        with torch.no_grad():
            output = self.plain(inputs, *rest, **options)
        out = _Input.apply(inputs, self.anchor)  # type: ignore[no-untyped-call]
        return out if isinstance(output, Tensor) else (out, *output[1:])

    def own_bytes(self) -> int:
        """What the layer saves when it is run again."""
        (inputs, *rest), options = self.arguments
        again = inputs.requires_grad_()
        return saved_bytes(lambda: self.plain(again, *rest, **options))


@contextmanager
def _recomputed(module: nn.Module) -> Iterator[list[_Layer]]:
    """Let each layer that transformers can recompute save its input alone.

    Raises:
        ValueError: there are none.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    layers = [_Layer(m) for m in module.modules() if isinstance(m, GradientCheckpointingLayer)]
    if not layers:
        raise ValueError(
            f"activations is 'checkpointing', but {type(module).__name__} has no layers that "
            "transformers can recompute; give a codec of compress_activations"
        )
    for layer in layers:
        layer.module.forward = layer
    try:
        yield layers
    finally:
        for layer in layers:
            del layer.module.forward
