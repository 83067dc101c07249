"""COSMIC's operators: ``torch.ops.cosmic.*``, for code that keeps its own lists of tensors.

Importing this module loads them. The functions here are the operators with documentation; both
names give the same bits. They work under ``torch.compile`` and ``torch.export``, on meta and fake
tensors (shapes only), and bump the version counter of every tensor that they write. None is
differentiable: a step raises if autograd would have to record it, quantization when a gradient
reaches it.

Tensors are dense and on the CPU, of any layout. Arithmetic is float32 for float32, bfloat16 and
float16, and float64 for float64; complex tensors are stepped as their real view. Results are
bit-identical for every ISA and thread count, and equal to those of ``cosmic.Cosmic`` with
``stochastic_rounding=False``: parameters are stored to nearest.

As PyTorch's own operators they raise RuntimeError whatever is wrong: an option out of range, lists
of different lengths, a dtype, layout, device or shape that does not fit, written tensors that share
memory. Nothing has changed then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from . import _core

__all__ = ["adam_step_", "dequantize", "quantize", "sign_step_"]

try:
    torch.ops.load_library(  # type: ignore[no-untyped-call]
        Path(_core.__file__).with_name("_ops.so")
    )
except OSError as error:  # pragma: no cover - needs a broken installation
    raise ImportError(
        f"cosmic's operators are missing or do not load: {error}. Install a wheel "
        "(pip install cosmic-optim), or build from source with "
        "pip install --no-build-isolation . (see CONTRIBUTING.md)"
    ) from error


def adam_step_(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    exp_avgs: Sequence[Tensor],
    exp_avg_sqs: Sequence[Tensor],
    steps: Sequence[Tensor],
    *,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    maximize: bool = False,
    seed: int = 0,
) -> None:
    """Step every parameter of a list as AdamW (arXiv 1711.05101), in one parallel region.

    With ``g`` the gradient (negated by ``maximize``), ``wd`` the weight decay and ``t`` the counter
    after this step,

        m <- beta1 m + (1 - beta1) g
        v <- beta2 v + (1 - beta2) g^2
        p <- (1 - lr wd) p - lr m / (1 - beta1^t) / (sqrt(v) / sqrt(1 - beta2^t) + eps)

    The operator's schema is

        cosmic::adam_step_(Tensor(a!)[] params, Tensor[] grads,
            Tensor(b!)[] exp_avgs, Tensor(c!)[] exp_avg_sqs, Tensor(d!)[] steps,
            *, float lr, float beta1, float beta2, float eps, float weight_decay,
            bool maximize=False, int seed=0) -> ()

    Args:
        params: float32, bfloat16, float16, float64 or complex; written.
        grads: one a parameter, of its shape. float64 goes with float64 only.
        exp_avgs: first moments ``m``, of the parameters' shapes (complex: with a last dimension
            of 2) and layout in memory, as ``torch.zeros_like`` makes them; contiguous where a
            parameter has gaps. Their dtype is their codec: float32, or bfloat16 rounded
            stochastically; float64 for float64. Written.
        exp_avg_sqs: second moments ``v``, likewise. Written.
        steps: int64 counters of one element; advanced by one.
        lr: learning rate.
        beta1: decay of the first moment, in [0, 1).
        beta2: decay of the second moment, in [0, 1).
        eps: added to the denominator.
        weight_decay: decoupled weight decay.
        maximize: maximize the objective.
        seed: of the random bits of stochastic rounding, which depend on it, the counter and the
            position in the list, and on nothing else. Negative: ``seed + 2**64``.
    """
    torch.ops.cosmic.adam_step_(
        params, grads, exp_avgs, exp_avg_sqs, steps, lr=lr, beta1=beta1, beta2=beta2, eps=eps,
        weight_decay=weight_decay, maximize=maximize, seed=seed,
    )  # fmt: skip


def sign_step_(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    *,
    lr: float,
    beta1: float,
    weight_decay: float,
    maximize: bool = False,
) -> None:
    """Step every parameter of a list by the sign of its gradient: tier 0, without state.

    With ``g`` the gradient (negated by ``maximize``) and ``wd`` the weight decay,

        p <- (1 - lr wd) p - lr s sign(g)        s = sqrt((1 - beta1) / (1 + beta1))

    where ``s`` is the root mean square of Adam's update with this ``beta1`` on gradients
    that are uncorrelated in time, so that one learning rate fits both.

    The operator's schema is

        cosmic::sign_step_(Tensor(a!)[] params, Tensor[] grads, *, float lr,
            float beta1, float weight_decay, bool maximize=False) -> ()

    Args:
        params: as in ``adam_step_``; written.
        grads: as in ``adam_step_``.
        lr: learning rate.
        beta1: of the Adam whose updates have this size.
        weight_decay: decoupled weight decay.
        maximize: maximize the objective.
    """
    torch.ops.cosmic.sign_step_(
        params, grads, lr=lr, beta1=beta1, weight_decay=weight_decay, maximize=maximize
    )


def quantize(
    x: Tensor,
    bits: int | None = None,
    block_size: int = 128,
    *,
    codec: str = "absmax",
    seed: int = 0,
) -> tuple[Tensor, Tensor]:
    """Quantize a tensor block-wise; ``cosmic.QuantizedTensor`` has the mathematics.

    The operator's schema is

        cosmic::quantize(Tensor x, int? bits=None, int block_size=128, *,
            str codec="absmax", int seed=0) -> (Tensor codes, Tensor scales)

    Args:
        x: float32, bfloat16 or float16, of any shape. Every element must be finite.
        bits: as in ``cosmic.quantize``.
        block_size: as in ``cosmic.quantize``.
        codec: as in ``cosmic.quantize``.
        seed: as in ``cosmic.quantize``.

    Returns:
        With ``n`` blocks: uint8 codes of shape ``(n * block_size * bits / 8,)`` and scales of shape
        ``(n,)``, float32 for ``"absmax"``, else bfloat16, or for ``"v4"`` int16 and ``"v8"`` int32.
    """
    codes, scales = torch.ops.cosmic.quantize(x, bits, block_size, codec=codec, seed=seed)
    return codes, scales


def dequantize(
    codes: Tensor,
    scales: Tensor,
    size: Sequence[int],
    bits: int,
    block_size: int,
    dtype: torch.dtype,
    *,
    codec: str = "absmax",
) -> Tensor:
    """The inverse of ``quantize``.

    The operator's schema is

        cosmic::dequantize(Tensor codes, Tensor scales, SymInt[] size, int bits,
            int block_size, ScalarType dtype, *, str codec="absmax") -> Tensor

    Args:
        codes: as ``quantize`` returns them, contiguous.
        scales: as ``quantize`` returns them, contiguous.
        size: shape of the result, of as many blocks as were quantized.
        bits: as given to ``quantize``; of a codec other than ``"absmax"``, the codec's own.
        block_size: as given to ``quantize``; of a codec other than ``"absmax"``, 128.
        dtype: of the result: float32, bfloat16 or float16.
        codec: as given to ``quantize``.

    Returns:
        A contiguous tensor.
    """
    result: Tensor = torch.ops.cosmic.dequantize(
        codes, scales, size, bits, block_size, dtype, codec=codec
    )
    return result


# ---- shapes without values: meta and fake tensors ------------------------------------------------

_library = torch.library.Library("cosmic", "IMPL")  # type: ignore[no-untyped-call]


def _fake_step_(*lists: Sequence[Tensor], **options: Any) -> None:
    lengths = [len(tensors) for tensors in lists]
    if len(set(lengths)) > 1:
        raise RuntimeError(f"the lists have {lengths} tensors; expected one for each parameter")
    devices = {t.device for tensors in lists for t in tensors}
    if len(devices) > 1:
        raise RuntimeError(f"the tensors are on {sorted(map(str, devices))}; expected one device")


def _fake_quantize(
    x: Tensor, bits: int | None = None, block_size: int = 128, *, codec: str = "absmax",
    seed: int = 0,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    scale_dtype = torch.float32
    if codec != "absmax":
        bits, name, _ = _core.plain_codec(codec)
        scale_dtype = getattr(torch, name)
    if block_size < 1:
        raise RuntimeError(f"block_size is {block_size}; expected a positive number")
    blocks = (x.numel() + block_size - 1) // block_size
    codes = x.new_empty((blocks * block_size * (bits or 4) // 8,), dtype=torch.uint8)
    return codes, x.new_empty((blocks,), dtype=scale_dtype)


def _fake_dequantize(
    codes: Tensor, scales: Tensor, size: Sequence[int], bits: int, block_size: int,
    dtype: torch.dtype, *, codec: str = "absmax",
) -> Tensor:  # fmt: skip
    return codes.new_empty(size, dtype=dtype)


torch.library.register_fake("cosmic::adam_step_", _fake_step_, lib=_library)
torch.library.register_fake("cosmic::sign_step_", _fake_step_, lib=_library)
torch.library.register_fake("cosmic::quantize", _fake_quantize, lib=_library)
torch.library.register_fake("cosmic::dequantize", _fake_dequantize, lib=_library)


# ---- autograd ------------------------------------------------------------------------------------


def _register_writes(name: str) -> None:
    """Make autograd notice that an operator writes the lists that its schema marks."""
    operator = getattr(torch.ops.cosmic, name).default
    arguments = operator._schema.arguments
    written = [k for k, a in enumerate(arguments) if a.alias_info and a.alias_info.is_write]
    below = torch._C._after_ADInplaceOrView_keyset

    def bump_versions(keyset: Any, *lists: Sequence[Tensor], **options: Any) -> None:
        operator.redispatch(keyset & below, *lists, **options)
        for k in written:  # inference tensors have no version
            increment_version([t for t in lists[k] if not t.is_inference()])

    def refuse_gradients(keyset: Any, *lists: Sequence[Tensor], **options: Any) -> None:
        if torch.is_grad_enabled() and any(t.requires_grad for ts in lists for t in ts):
            raise RuntimeError(
                f"cosmic::{name} is not differentiable and writes in place, and one of its tensors "
                "requires grad: call it under torch.no_grad()"
            )
        bump_versions(keyset, *lists, **options)

    def register(kernel: Callable[..., None], key: str) -> None:
        _library.impl(name, kernel, key, with_keyset=True)  # type: ignore[no-untyped-call]

    register(bump_versions, "ADInplaceOrView")
    register(refuse_gradients, "Autograd")


def _register_no_gradient(name: str) -> None:
    """Make backward raise where it comes to an operator that has no derivative."""

    def backward(ctx: Any, *gradients: Tensor) -> None:
        raise RuntimeError(f"cosmic::{name} is not differentiable: detach() what it is given")

    torch.library.register_autograd(f"cosmic::{name}", backward, lib=_library)


_register_writes("adam_step_")
_register_writes("sign_step_")
_register_no_gradient("quantize")
_register_no_gradient("dequantize")


def _watch(tensors: Sequence[Tensor], addresses: Sequence[int]) -> int:
    """For the plan: where these tensors lie. Modes and subclasses, which may put others in their
    place, are passed by."""
    with torch._C.DisableTorchFunction(), torch._C._DisableTorchDispatch():
        found: int = torch.ops.cosmic._watch(tensors, addresses)
    return found
