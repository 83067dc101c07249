"""`compress_activations`: what autograd saves, packed by the codecs of compressed state."""

from __future__ import annotations

import weakref
from types import TracebackType

from torch import Tensor

from .checks import check_min_numel, check_seed
from .codecs import MASK, CodecChoice, finer
from .extents import Extents, bytes_of
from .layout import Layout
from .meter import ActivationMeter
from .owned import storage_of
from .packed import Kept, Packed, Saved, random_seed
from .recorder import Call, Recorder
from .rules import Decision, decide

__all__ = ["compress_activations"]


class compress_activations(Recorder):
    """Packs what autograd saves for backward; gives an ``ActivationMeter``.

    Only the gradients change, never the forward pass. With ``q(x)`` what is unpacked, rounding is
    stochastic and ``E[q(x)] = x``: an operation whose backward is linear in what it saved, as a
    linear layer's ``dW = dy^T x``, has the exact gradient in the mean. Elsewhere there is a bias of
    the order of the rounding's variance. Three kinds are packed so that none is left: of ``relu``
    and ``leaky_relu`` the signs and of ``dropout`` the mask, one bit an element, exact; of
    ``log_softmax`` and ``cross_entropy`` the probabilities, in which backward is linear.

    Memory that several operations save, in whatever shape, is packed once, with the finest codec
    that one of them asks for. Kept as they are: parameters, buffers, their views and casts; inputs
    of ``torch.utils.checkpoint``'s segments; tensors of fewer than ``min_numel`` elements, or a
    16th of the operation's largest (means); what divisions, logarithms, roots, maxima and linear
    solvers save whose backward divides by it, compares it or takes its exponential; what is
    not finite, not dense, not on the CPU, or neither float32, bfloat16 nor float16.

    Build it once and enter it for each step: random bits go on from one tensor to the next. A new
    object with the same seed repeats them. They do not depend on the number of threads. The hooks
    work in the thread that entered; an inner context replaces an outer one, as torch's hooks do.
    Backward may come inside or after the block, twice, or with ``create_graph``.

    Args:
        codec: ``"q8"`` (8.125 bits an element), ``"u4"`` (4.125; queries and keys of attention have
            8.125), ``"u2"``, ``"u1"`` (2.125, 1.125; these clamp, and are biased), or two joined by
            a plus: the first where backward is linear in what was saved, the second elsewhere:
            ``"u4+q8"``.
        min_numel: tensors with fewer elements are kept as they are.
        seed: of the random bits, from 0 to 2**64 - 1.

    Raises:
        TypeError: if an argument is of another type.
        ValueError: if ``codec`` is not known, ``min_numel`` negative or ``seed`` out of range.
        RuntimeError: when entered twice at a time.
    """

    def __init__(self, codec: str = "q8", *, min_numel: int = 4096, seed: int = 0) -> None:
        super().__init__()
        self._choice = CodecChoice.named(codec)
        self._min_numel = check_min_numel(min_numel)
        self._seed = check_seed(seed)
        self._count = 0
        self._packed: weakref.WeakValueDictionary[tuple[object, ...], Packed] = (
            weakref.WeakValueDictionary()
        )
        self._would, self._kept = Extents(), Extents()
        self.meter = ActivationMeter()

    def __enter__(self) -> ActivationMeter:
        super().__enter__()
        return self.meter

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, trace)
        self._packed.clear()  # another block's random bits are its own
        self._would.clear()
        self._kept.clear()

    def __repr__(self) -> str:
        options = f"{self._choice.name!r}, min_numel={self._min_numel}, seed={self._seed}"
        return f"compress_activations({options})"

    def pack(self, tensor: Tensor, call: Call) -> Saved | Kept:
        """See ``Recorder``."""
        with self.meter.packing():
            self.meter.tensors += 1
            if tensor.is_meta:
                return self._keep(tensor, "layout or device", None)
            decision = decide(tensor, call, self.owned, self._choice, self._min_numel)
            if decision.kept or decision.layout is None:
                return self._keep(tensor, decision.kept, decision.layout)
            packed = self._pack_once(tensor, decision, decision.layout)
            if packed is None:
                return self._keep(tensor, "not finite", decision.layout)
            self.meter.saved_bytes += self._would.add(tensor, decision.layout)
            return Saved(packed, decision.layout, self.meter)

    @staticmethod
    def unpack(kept: Saved | Kept) -> Tensor:
        """See ``Recorder``."""
        return kept.unpack()

    def _keep(self, tensor: Tensor, reason: str, layout: Layout | None) -> Kept:
        meter = self.meter
        meter.kept[reason] += 1
        if reason != "parameter":
            if layout is None:
                meter.saved_bytes += bytes_of(tensor)
                meter.packed_bytes += bytes_of(tensor)
            else:
                meter.saved_bytes += self._would.add(tensor, layout)
                meter.packed_bytes += self._kept.add(tensor, layout)
        return Kept(tensor)

    def _pack_once(self, tensor: Tensor, decision: Decision, layout: Layout) -> Packed | None:
        """The elements packed at least as finely as asked for; None if they have no code."""
        place = (storage_of(tensor), tensor.data_ptr(), layout.place)
        key = (*place, tensor.dtype, tensor._version, decision.form)
        packed = self._packed.get(key)
        codec = decision.codec
        try:
            if packed is None:
                packed = Packed(tensor, layout, codec, decision.form, self._next_seed())
                self._packed[key] = packed
                self.meter.packed += 1
                self.meter.packed_bytes += packed.nbytes
                return packed
            self.meter.shared += 1
            if codec != MASK and finer(codec, packed.codec) != packed.codec:
                self.meter.packed_bytes -= packed.nbytes
                packed.encode(tensor, layout, codec, self._next_seed())
                self.meter.packed_bytes += packed.nbytes
        except ValueError:  # an element that is not finite
            return None
        return packed

    def _next_seed(self) -> int:
        self._count += 1
        return random_seed(self._seed, self._count)
