"""What becomes of a saved tensor: kept as it is, or packed, in which form and how finely."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .attention import attention_codec, enters_an_exponent
from .codecs import MASK, CodecChoice, finer
from .exact import has_small_statistics, needs_exact
from .layout import Layout
from .owned import Owned
from .recorder import Call

__all__ = ["Decision", "decide"]

#: Operations whose backward is linear in each tensor that they save: products, and what only moves
#: elements. A function that is not named here may do anything with what it saves.
LINEAR = frozenset({
    "__imul__", "__matmul__", "__mul__", "__rmatmul__", "__rmul__", "addbmm", "addcmul", "addmm",
    "addmv", "baddbmm", "bilinear", "bmm", "conv1d", "conv2d", "conv3d", "conv_transpose1d",
    "conv_transpose2d", "conv_transpose3d", "dot", "einsum", "inner", "lerp", "linear", "matmul",
    "mm", "mul", "mul_", "multiply", "mv", "outer", "tensordot", "vdot",
})  # fmt: skip

#: Their backward asks only whether an element of what they save is above zero.
SIGNS = frozenset(("relu", "relu_", "leaky_relu", "leaky_relu_"))

#: They save zeros, and one other number.
DROPOUT = frozenset(("dropout", "dropout_"))

#: Their backward takes the exponential of the logarithms that they save.
LOG_SOFTMAX = frozenset(("log_softmax", "cross_entropy"))

ATTENTION = "scaled_dot_product_attention"
WHOLE_ATTENTION = "multi_head_attention_forward"

PACKED_DTYPES = frozenset((torch.float32, torch.bfloat16, torch.float16))

#: A tensor with fewer elements than this share of its operation's largest is a statistic of it.
STATISTIC = 1 / 16


@dataclass(frozen=True)
class Decision:
    """What becomes of a saved tensor.

    Attributes:
        kept: why it is kept as it is; empty if it is packed.
        codec: that it is packed with.
        form: what of it is packed: ``"numbers"``, ``"signs"`` (comes back as 1 where it is above
            zero, and 0), ``"mask"`` (as its maximum, and 0) or ``"exponentials"``.
        layout: of its elements; None if it is not strided.
    """

    kept: str
    codec: str = ""
    form: str = "numbers"
    layout: Layout | None = None


def decide(
    tensor: Tensor, call: Call, owned: Owned, choice: CodecChoice, min_numel: int
) -> Decision:
    """The decision on one tensor that ``call`` saves."""
    if type(tensor) is not Tensor and not isinstance(tensor, torch.nn.Parameter):
        return Decision("subclass")
    if not _is_strided(tensor) or tensor.device.type not in ("cpu", "meta"):
        return Decision("layout or device")
    if owned.holds(tensor) or _casts(tensor, call, owned):
        return Decision("parameter")
    layout = Layout.of(tensor)
    if tensor.dtype not in PACKED_DTYPES or tensor.is_neg():
        return Decision("dtype", layout=layout)
    if layout.numel < min_numel:
        return Decision("small", layout=layout)
    if layout.overlaps:
        return Decision("overlapping", layout=layout)
    if call.name == "checkpoint":
        return Decision("checkpoint", layout=layout)
    if layout.numel < _share(call) * max((t.numel() for t in _activations(call, owned)), default=0):
        return Decision("statistic", layout=layout)
    if needs_exact(tensor, call) or (call.name == ATTENTION and enters_an_exponent(tensor, call)):
        return Decision("exact", layout=layout)
    codec, form = _codec(tensor, call, choice)
    return Decision("", codec, form, layout)


def _codec(tensor: Tensor, call: Call, choice: CodecChoice) -> tuple[str, str]:
    name = call.name
    if name in SIGNS:
        return MASK, "signs"
    if name in DROPOUT:
        return MASK, "mask"
    if name in LOG_SOFTMAX and _is_log_softmax(tensor):
        if not _learns_targets(call):
            return choice.linear, "exponentials"
        return finer(choice.other, "q8"), "numbers"
    if name == ATTENTION:
        return attention_codec(tensor, call, choice)
    if name == WHOLE_ATTENTION:  # which of them is a query or a key is not known
        return finer(choice.other, "q8"), "numbers"
    return (choice.linear if name in LINEAR else choice.other), "numbers"


def _activations(call: Call, owned: Owned) -> list[Tensor]:
    return [
        t for t in call.tensors() if type(t) is Tensor and _is_strided(t) and not owned.holds(t)
    ]  # fmt: skip


def _is_strided(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and not tensor.is_nested


def _share(call: Call) -> float:
    """Of an operation's largest tensor, under which another one is a statistic of it."""
    return 1.0 if has_small_statistics(call) else STATISTIC


def _is_log_softmax(tensor: Tensor) -> bool:
    return tensor.grad_fn is not None and tensor.grad_fn.name() == "LogSoftmaxBackward0"


def _learns_targets(call: Call) -> bool:
    """Whether a cross-entropy's targets take a gradient: it then saves logarithms for that, too."""
    target = call.argument(1, "target")
    return call.name == "cross_entropy" and isinstance(target, Tensor) and target.requires_grad


def _casts(tensor: Tensor, call: Call, owned: Owned) -> bool:
    """Whether autocast made it of a parameter that takes no gradient, of which no node tells."""
    if tensor.requires_grad:
        return False
    layout = Layout.of(tensor)
    for each in call.tensors():
        if each.dtype == tensor.dtype or each.numel() != tensor.numel() or not _is_strided(each):
            continue
        if not owned.holds(each):
            continue
        source = Layout.of(each)
        if tensor.is_meta or (
            source.numel == layout.numel
            and torch.equal(
                source.distinct(each).to(tensor.dtype).reshape(-1),
                layout.distinct(tensor).reshape(-1),
            )
        ):
            return True
    return False
