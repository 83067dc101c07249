"""What a converted model's own code calls by name is computed exactly while its forward runs.

A forward that says ``torch.tanh(x)`` or ``F.cross_entropy(logits, labels)`` has no module to
exchange. While such a forward runs, calls of torch's functions go to their exact counterparts
(``counterparts.py``), and what addition or multiplication would broadcast is broadcast before, so
that its gradient is summed in order.
"""

from __future__ import annotations

import sys
import threading
from types import FrameType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, _get_current_function_mode

from .._core import UnsupportedTensorError
from .counterparts import BROADCAST, INSTEAD, MATMUL, spread

__all__ = ["ACCUMULATE", "exact_functions", "watch"]

#: The attribute of a module whose forward runs so: how its products are summed.
ACCUMULATE = "cosmic_accumulate"


class exact_functions(TorchFunctionMode):
    """Within, torch's functions that have an exact counterpart are computed by it.

    Args:
        accumulate: of products, as in ``exact.linear``.
        caller: that it is for: where it has ended, nothing is changed. An interrupted forward
            does not leave.
    """

    def __init__(self, accumulate: str, caller: FrameType) -> None:
        super().__init__()
        self.accumulate = accumulate
        self.caller = caller

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if not _runs(self.caller):
            return func(*args, **kwargs)
        instead = INSTEAD.get(func)
        try:
            if instead is not None and _any_float(args, kwargs):
                return instead(self.accumulate, *args, **kwargs)
            if func in BROADCAST and torch.is_grad_enabled():
                args, kwargs = spread(args, kwargs)
        except TypeError as error:
            raise _refusal(func, error) from error
        return func(*args, **kwargs)


def _runs(frame: FrameType) -> bool:
    """Whether a call has not ended."""
    inner: FrameType | None = sys._getframe()
    while inner is not None and inner is not frame:
        inner = inner.f_back
    return inner is not None


def _refusal(func: Any, error: TypeError) -> Exception:
    """What to raise for arguments that are not computed. Python takes a TypeError of an operator,
    such as ``+``, for "not mine" and drops what it says."""
    if func in BROADCAST or func in MATMUL:
        return RuntimeError(str(error))
    if isinstance(error, UnsupportedTensorError):
        return error
    name = func.__name__
    return TypeError(f"exact.convert(): {name}() is not computed with these arguments: {error}")


def _any_float(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    values = (*args, *kwargs.values())
    return any(isinstance(value, Tensor) and value.is_floating_point() for value in values)


_running = threading.local()


def watch(module: nn.Module, accumulate: str) -> None:
    """Let a module's forward run within ``exact_functions``, from now on, in copies and pickles."""
    new = not hasattr(module, ACCUMULATE)
    setattr(module, ACCUMULATE, accumulate)
    if new:
        module.register_forward_pre_hook(_enter)
        module.register_forward_hook(_leave, always_call=True)


class _Running(NamedTuple):
    """A module whose forward runs, and what it has entered for that."""

    module: nn.Module
    mode: exact_functions | None
    caller: FrameType


def _stack() -> list[_Running]:
    if not hasattr(_running, "stack"):
        _running.stack = []
    stack: list[_Running] = _running.stack
    return stack


def _enter(module: nn.Module, _args: Any) -> None:
    stack, accumulate = _stack(), getattr(module, ACCUMULATE)
    while stack and not _runs(stack[-1].caller):  # interrupted, as by Ctrl-C
        _exit(stack.pop().mode)
    within = next((one.mode for one in reversed(stack) if one.mode is not None), None)
    mode, caller = None, sys._getframe(1)
    if within is None or within.accumulate != accumulate:
        mode = exact_functions(accumulate, caller)
        mode.__enter__()  # type: ignore[no-untyped-call]
    stack.append(_Running(module, mode, caller))


def _leave(module: nn.Module, _args: Any, _output: Any) -> None:
    stack = _stack()
    if stack and stack[-1].module is module:  # else another hook has failed before ours
        _exit(stack.pop().mode)


def _exit(mode: exact_functions | None) -> None:
    top = _get_current_function_mode()  # type: ignore[no-untyped-call]
    if mode is not None and top is mode:
        mode.__exit__(None, None, None)  # type: ignore[no-untyped-call]
