"""Bytes that autograd saves in a forward pass, counted without packing anything."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from .checks import check_min_numel
from .codecs import MASK, CodecChoice, finer, packed_bytes
from .extents import Extents, bytes_of
from .layout import Layout
from .meta_attention import AttentionOfCpu
from .owned import pin, storage_of
from .recorder import Call, Recorder
from .rules import Decision, decide

__all__ = ["saved_bytes"]


def saved_bytes(
    forward: Callable[[], object], codec: str | None = None, *, min_numel: int = 4096
) -> int:
    """Bytes that autograd holds for backward after a forward pass.

    Each piece of memory counts once, however many operations save it; parameters, buffers, their
    views and their casts do not count. Of a view, memory counts from its first to its last element.
    Works on the meta device, where it computes nothing; ``scaled_dot_product_attention`` counts
    there as the CPU runs it.

    Args:
        forward: runs the forward pass; what it returns is held while bytes are counted.
        codec: count what ``compress_activations`` with this codec would hold instead. Tensors that
            are not finite, which it keeps, cannot be told on the meta device: they count as packed.
        min_numel: of ``compress_activations``.

    Returns:
        Bytes, padding and scales included.

    Raises:
        TypeError: if ``codec`` is no string, or ``min_numel`` no int.
        ValueError: if ``codec`` is not known, or ``min_numel`` is negative.
    """
    choice = None if codec is None else CodecChoice.named(codec)
    counter = _Counter(choice, check_min_numel(min_numel))
    with AttentionOfCpu(), counter:
        held = forward()  # the graph, until all is counted
    total = counter.total
    del held
    return total


class _Counter(Recorder):
    def __init__(self, choice: CodecChoice | None, min_numel: int) -> None:
        super().__init__()
        self._choice = choice
        self._rules = choice or CodecChoice.named("q8")
        self._min_numel = min_numel
        self._kept = Extents()
        self._pins: dict[int, StorageWeakRef] = {}
        self._codecs: dict[tuple[object, ...], tuple[str, int]] = {}
        self._others = 0

    @property
    def total(self) -> int:
        packed = sum(packed_bytes(numel, codec) for codec, numel in self._codecs.values())
        return packed + self._others

    def pack(self, tensor: Tensor, call: Call) -> object:
        decision = decide(tensor, call, self.owned, self._rules, self._min_numel)
        if decision.kept == "parameter":
            return tensor.detach()
        if decision.layout is None:
            self._others += bytes_of(tensor)
        elif self._choice is None or decision.kept:
            self._others += self._kept.add(tensor, decision.layout)
        else:
            self._count(tensor, decision, decision.layout)
        return tensor.detach()  # of an output, the tensor itself would be a circle

    def _count(self, tensor: Tensor, decision: Decision, layout: Layout) -> None:
        key = (storage_of(tensor), layout.place, tensor.dtype, tensor._version, decision.form)
        codec = decision.codec
        if key in self._codecs and codec != MASK:
            codec = finer(codec, self._codecs[key][0])
        self._codecs[key] = (codec, layout.numel)
        self._pins.setdefault(storage_of(tensor), pin(tensor))

    @staticmethod
    def unpack(kept: Any) -> Tensor:
        assert isinstance(kept, Tensor)
        return kept
