"""What every operation asks of its tensors, before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .._core import UnsupportedTensorError

__all__ = [
    "DTYPES",
    "check_dtype",
    "check_shape",
    "check_tensor",
    "check_tensors",
    "check_word",
    "common_shape",
]

DTYPES = (torch.float32, torch.float64)


def check_tensors(op: str, **tensors: Tensor | None) -> None:
    """See that an operation's float tensors can be computed with.

    Args:
        op: the operation, as the message names it.
        tensors: by the names of the operation's arguments; None: not given.

    Raises:
        UnsupportedTensorError: for another device, layout or dtype, and for dtypes that differ.
        RuntimeError: within ``torch.autocast``.
    """
    if torch.is_autocast_enabled("cpu"):
        raise RuntimeError(
            f"exact.{op}() does not compute within torch.autocast, which would cast what it is "
            "given; leave autocast, and train in float32"
        )
    dtype: torch.dtype | None = None
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        check_tensor(op, name, tensor)
        if tensor.device.type != "cpu" or tensor.layout != torch.strided:
            raise UnsupportedTensorError(
                f"exact.{op}(): {name} is a tensor of {tensor.device}, {tensor.layout}; expected a "
                "dense one on the CPU: move it with .cpu(), or call .to_dense()"
            )
        if tensor.dtype not in DTYPES:
            raise UnsupportedTensorError(
                f"exact.{op}(): {name} is {tensor.dtype}; expected torch.float32 or "
                "torch.float64: cast the model and its inputs with .float()"
            )
        if dtype is not None and tensor.dtype != dtype:
            raise UnsupportedTensorError(
                f"exact.{op}(): {name} is {tensor.dtype}, another one is {dtype}; expected one "
                "dtype: cast with .to()"
            )
        dtype = tensor.dtype


#: torch.compile fuses multiplications and additions and reorders sums: it must not trace through.
check_tensors._dynamo_forbidden = True  # type: ignore[attr-defined]


def check_tensor(op: str, name: str, value: object) -> None:
    """See that an argument is a tensor.

    Raises:
        TypeError: it is not.
    """
    if not isinstance(value, Tensor):
        raise TypeError(f"exact.{op}(): {name} is {type(value).__name__}; expected a tensor")


def check_dtype(op: str, name: str, tensor: Tensor, *dtypes: torch.dtype) -> None:
    """See that an argument is a tensor on the CPU of one of some dtypes.

    Raises:
        TypeError: it is no tensor.
        UnsupportedTensorError: it is another one.
    """
    check_tensor(op, name, tensor)
    if tensor.dtype not in dtypes or tensor.device.type != "cpu":
        raise UnsupportedTensorError(
            f"exact.{op}(): {name} is {tensor.dtype} of {tensor.device}; expected "
            f"{' or '.join(map(str, dtypes))} on the CPU"
        )


def check_shape(op: str, name: str, tensor: Tensor | None, expected: Sequence[int]) -> None:
    """See that a tensor that is given has a shape.

    Raises:
        ValueError: it has another one.
    """
    if tensor is not None and tuple(tensor.shape) != tuple(expected):
        raise ValueError(
            f"exact.{op}(): {name} has shape {tuple(tensor.shape)}; expected {tuple(expected)}"
        )


def check_word(op: str, name: str, value: object, words: Sequence[str]) -> None:
    """See that an option is one of some words.

    Raises:
        ValueError: it is not.
    """
    if value not in words:
        known = ", ".join(map(repr, words[:-1])) + f" or {words[-1]!r}"
        raise ValueError(f"exact.{op}(): {name} is {value!r}; expected {known}")


def common_shape(*shapes: Sequence[int]) -> torch.Size:
    """The shape that all of them broadcast to.

    Raises:
        RuntimeError: there is none.
    """
    shape: torch.Size = torch.broadcast_shapes(*shapes)  # type: ignore[no-untyped-call]
    return shape
