"""Matrix products of bfloat16 tensors in float32, for CPUs that have no fast ones of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["check_when", "fp32_products", "native_products"]

#: float32 elements of a factor or a product that are in memory at a time: 16 MB.
PIECE = 4 * 1024 * 1024


def native_products() -> bool:
    """Whether torch has fast products of bfloat16 on this CPU, as with AVX-512. Elsewhere a plain
    loop makes them, which takes 20 to 200 times as long as in float32."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


class fp32_products(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within, products of bfloat16 matrices are made in float32, forward and backward.

    Factors are cast to float32, multiplied and summed there, and the result is rounded to bfloat16
    once: as exact as torch's own bfloat16 products with float32 sums, or more. Casts are made a
    piece at a time, 16 MB. Weights, activations and gradients stay bfloat16 everywhere else. Of
    float16 the same holds.

    Where torch's own products run in a plain loop, on x86 without AVX-512, a training step of a
    language model takes ten to a hundred times as long as with this.

    Args:
        when: ``"needed"``: only where torch has no fast products itself (``native_products()``);
            ``"always"``; ``"never"``.

    Raises:
        ValueError: for any other word.
    """

    def __init__(self, when: str = "needed") -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        check_when("when", when)
        self._on = when == "always" or (when == "needed" and not native_products())

    def __enter__(self) -> Any:
        return super().__enter__() if self._on else self  # type: ignore[no-untyped-call]

    def __exit__(self, *error: Any) -> None:
        if self._on:
            super().__exit__(*error)  # type: ignore[no-untyped-call]

    def __torch_dispatch__(
        self, op: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        instead = _INSTEAD.get(op)
        if instead is not None and _are_plain_halves(op, args):
            return instead(*args, **kwargs)
        return op(*args, **kwargs)  # and so with what it refuses, in torch's words


def check_when(name: str, when: object) -> None:
    """See that an argument says when products are made in float32.

    Raises:
        ValueError: it does not.
    """
    if when not in ("needed", "always", "never"):
        raise ValueError(f"{name} is {when!r}; expected 'needed', 'always' or 'never'")


def _is_half(tensor: Tensor) -> bool:
    return tensor.dtype in (torch.bfloat16, torch.float16) and tensor.device.type == "cpu"


def _are_plain_halves(op: Any, args: tuple[Any, ...]) -> bool:
    """Whether an operator's tensors are dense, of one 16-bit dtype and of shapes that match."""
    tensors = [arg for arg in args if isinstance(arg, Tensor)]
    first = tensors[0]
    if not all(
        _is_half(t) and t.dtype == first.dtype and t.layout == torch.strided for t in tensors[:3]
    ):
        return False
    rank = _RANKS.get(op)
    if rank is None:
        return True
    a, b = tensors[-2:]
    return a.ndim == b.ndim == rank and a.shape[-1] == b.shape[-2] and a.shape[:-2] == b.shape[:-2]


def _mm(a: Tensor, b: Tensor) -> Tensor:
    return _product(a, b, None)


def _addmm(bias: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    if alpha != 1 or beta != 1:
        whole = torch.addmm(bias.float(), a.float(), b.float(), beta=beta, alpha=alpha)
        return whole.to(a.dtype)
    return _product(a, b, bias.expand(a.shape[0], b.shape[1]))


def _product(a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
    """``a b + bias``, a piece along the longest of the three dimensions at a time."""
    (m, k), n = a.shape, b.shape[1]
    if k > max(m, n):
        return _by_inner(a, b, bias)
    out = a.new_empty(m, n)
    if m > n:
        right = b.float()
        for at in _pieces(m, max(k, n)):
            _round_into(out[at], a[at].float() @ right, None if bias is None else bias[at])
    else:
        left = a.float()
        for at in _pieces(n, max(k, m)):
            part = None if bias is None else bias[:, at]
            _round_into(out[:, at], left @ b[:, at].float(), part)
    return out


def _by_inner(a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
    """The same where the sums are what is long."""
    (m, k), n = a.shape, b.shape[1]
    sums = a.new_zeros(m, n, dtype=torch.float32) if bias is None else bias.float()
    for at in _pieces(k, max(m, n)):
        sums = torch.addmm(sums, a[:, at].float(), b[at].float())
    return sums.to(a.dtype)


def _round_into(out: Tensor, product: Tensor, bias: Tensor | None) -> None:
    out.copy_(product if bias is None else product.add_(bias))


def _pieces(length: int, width: int) -> list[slice]:
    """Slices of a dimension along which there are ``width`` elements a place."""
    most = max(1, PIECE // max(1, width))
    return [slice(start, start + most) for start in range(0, length, most)]


def _bmm(a: Tensor, b: Tensor) -> Tensor:
    width = max(a[0].numel(), b[0].numel(), a.shape[1] * b.shape[2]) if a.shape[0] else 1
    out = a.new_empty(a.shape[0], a.shape[1], b.shape[2])
    for at in _pieces(a.shape[0], width):
        out[at] = a[at].float() @ b[at].float()
    return out


def _in_float(op: Any, rounded: int) -> Callable[..., Any]:
    """``op`` on float32 copies of its tensors; of its results the first few are rounded."""

    def widened(value: Any) -> Any:
        return value.float() if isinstance(value, Tensor) and _is_half(value) else value

    def run(first: Tensor, *args: Any, **kwargs: Any) -> Any:
        named = {name: widened(value) for name, value in kwargs.items()}
        results = op(widened(first), *map(widened, args), **named)
        if isinstance(results, Tensor):
            return results.to(first.dtype)
        return tuple(
            result.to(first.dtype) if i < rounded and isinstance(result, Tensor) else result
            for i, result in enumerate(results)
        )

    return run


_aten = torch.ops.aten
_attention = _aten._scaled_dot_product_flash_attention_for_cpu
_attention_backward = _aten._scaled_dot_product_flash_attention_for_cpu_backward
#: Dimensions of the two factors, which are an operator's last tensors.
_RANKS = {
    _aten.mm.default: 2,
    _aten.addmm.default: 2,
    _aten.bmm.default: 3,
    _aten.baddbmm.default: 3,
}
_INSTEAD: dict[Any, Callable[..., Any]] = {
    _aten.mm.default: _mm,
    _aten.addmm.default: _addmm,
    _aten.bmm.default: _bmm,
    _aten.baddbmm.default: _in_float(_aten.baddbmm.default, 1),
    _aten.convolution.default: _in_float(_aten.convolution.default, 1),
    _aten.convolution_backward.default: _in_float(_aten.convolution_backward.default, 3),
    _attention.default: _in_float(_attention.default, 1),  # and the sums' logarithms as they are
    _attention_backward.default: _in_float(_attention_backward.default, 3),
}
