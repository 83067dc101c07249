"""What a head gives in place of logits while a loss is made without them."""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import Tensor

from .tiles import Steps

__all__ = ["HiddenLogits"]


class HiddenLogits:
    """Logits that nobody has computed: hidden states, and what the model does to the logits.

    A model may multiply and divide them by numbers and take ``tanh`` of them; whatever else it does
    raises TypeError.

    Attributes:
        hidden: ``(..., width)``, the head's input.
        steps: factors, and None for tanh, in order.
        shape: of the logits, ``(..., vocabulary)``.
        dtype: of the hidden states.
        device: of the hidden states.
    """

    def __init__(self, hidden: Tensor, vocabulary: int, steps: Steps = ()) -> None:
        self.hidden = hidden
        self.steps = steps
        self.shape = torch.Size((*hidden.shape[:-1], vocabulary))
        self.dtype = hidden.dtype
        self.device = hidden.device

    def tanh(self) -> HiddenLogits:
        return self._then(None)

    def __mul__(self, factor: object) -> HiddenLogits:
        return self._then(_number(factor, "*"))

    __rmul__ = __mul__

    def __truediv__(self, divisor: object) -> HiddenLogits:
        return self._then(1.0 / _number(divisor, "/"))

    def _then(self, step: float | None) -> HiddenLogits:
        return HiddenLogits(self.hidden, self.shape[-1], (*self.steps, step))

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> HiddenLogits:
        if function is torch.tanh and not kwargs and isinstance(args[0], HiddenLogits):
            return args[0].tanh()
        _refuse(getattr(function, "__name__", repr(function)))

    def __getattr__(self, name: str) -> Any:
        if name in ("contiguous", "float"):  # the loss is in float32
            return lambda: self
        if name.startswith("__"):  # what Python asks of any object
            raise AttributeError(name)
        _refuse(name)

    def __getitem__(self, key: object) -> NoReturn:
        _refuse("indexing")

    def __add__(self, other: object) -> NoReturn:
        _refuse("+")

    __radd__ = __add__
    __sub__ = __add__


def _number(value: object, sign: str) -> float:
    if isinstance(value, Tensor) and value.numel() == 1 and not value.requires_grad:
        return float(value)
    if isinstance(value, int | float):
        return float(value)
    _refuse(f"{sign} by a {type(value).__name__} that is no constant")


def _refuse(what: str) -> NoReturn:
    raise TypeError(
        f"the model does something to its logits, {what}, for which chunk_vocabulary() would have "
        "to make all of them; it knows factors, tanh and the model's own loss_function. Call the "
        "model without labels, which gives real logits, or train without chunk_vocabulary()"
    )
