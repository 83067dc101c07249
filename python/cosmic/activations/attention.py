"""How finely what attention saves is packed, fused or taken apart."""

from __future__ import annotations

from torch import Tensor

from .codecs import MASK, CodecChoice, finer
from .owned import storage_of
from .recorder import Call

__all__ = ["attention_codec", "enters_an_exponent"]

_VIEWS = ("ExpandBackward0", "ReshapeAliasBackward0", "UnsafeViewBackward0", "ViewBackward0")


def attention_codec(tensor: Tensor, call: Call, choice: CodecChoice) -> tuple[str, str]:
    """Codec and form of a tensor that ``scaled_dot_product_attention`` saves.

    Backward is linear in the value, in the fused output and, where torch takes attention apart, in
    the weights that multiply the value. Query and key enter an exponential: 8 bits at least.
    """
    query, key, value = (call.argument(k, n) for k, n in enumerate(("query", "key", "value")))
    if _same(tensor, value) and not _same(tensor, query) and not _same(tensor, key):
        return choice.linear, "numbers"
    maker = _maker(tensor)
    if maker.startswith("ScaledDotProduct"):
        return choice.linear, "numbers"
    if isinstance(query, Tensor) and isinstance(key, Tensor) and _are_weights(tensor, query, key):
        if maker.startswith("Mul"):  # by the noise of dropout
            return choice.linear, "numbers"
        if not maker and _is_noise(tensor, query, key):
            return MASK, "mask"
        return choice.other, "numbers"
    return finer(choice.other, "q8"), "numbers"


def enters_an_exponent(tensor: Tensor, call: Call) -> bool:
    """Whether it is the mask that attention was given, or its log-sum-exps, one a query."""
    query, mask = call.argument(0, "query"), call.argument(3, "attn_mask")
    if isinstance(mask, Tensor) and storage_of(mask) == storage_of(tensor):
        return True
    return isinstance(query, Tensor) and tensor.shape == query.shape[:-1]


def _same(tensor: Tensor, other: object) -> bool:
    """Whether it is the other, perhaps in another shape."""
    return (
        isinstance(other, Tensor)
        and storage_of(tensor) == storage_of(other)
        and tensor.storage_offset() == other.storage_offset()
        and tensor.numel() == other.numel()
    )


def _maker(tensor: Tensor) -> str:
    """The node that made a tensor, or what it is a view of; empty if it has no history."""
    node = tensor.grad_fn
    while node is not None and node.name() in _VIEWS:
        node = node.next_functions[0][0]
    return "" if node is None else node.name()


def _are_weights(tensor: Tensor, query: Tensor, key: Tensor) -> bool:
    """Whether it has a number for each pair of a query and a key, as neither of these has."""
    rows, columns, width = query.shape[-2], key.shape[-2], query.shape[-1]
    pairs = query.shape[:-1].numel() * columns
    return tensor.numel() == pairs and width not in (rows, columns)


def _is_noise(tensor: Tensor, query: Tensor, key: Tensor) -> bool:
    """Whether it is what dropout multiplies weights by: zeros, and one other number."""
    if not (query.requires_grad or key.requires_grad):
        return False  # the weights have no history then, either
    return tensor.is_meta or bool(((tensor == 0) | (tensor == tensor.max())).all())
