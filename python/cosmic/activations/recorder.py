"""Sees every tensor that autograd saves, the operation that saves it and what the model owns."""

from __future__ import annotations

import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode

from .owned import Owned

__all__ = ["Call", "Recorder"]

_APPLY = torch.autograd.Function.apply.__func__.__code__  # type: ignore[attr-defined]
_CHECKPOINT = "torch.utils.checkpoint"


class Call:
    """An operation while it runs: its name and its arguments."""

    __slots__ = ("arguments", "name", "named")

    def __init__(
        self, name: str, arguments: tuple[Any, ...], named: dict[str, Any] | None = None
    ) -> None:
        self.name = name
        self.arguments = arguments
        self.named = named or {}

    def tensors(self) -> Iterator[Tensor]:
        """The tensors among its arguments."""
        return (a for a in (*self.arguments, *self.named.values()) if isinstance(a, Tensor))

    def argument(self, index: int, name: str) -> Any:
        """An argument by its place or its name; None if it was not given."""
        return self.arguments[index] if index < len(self.arguments) else self.named.get(name)


NO_CALL = Call("", ())


class _Calls(TorchFunctionMode):
    """Keeps the function of torch that is running. Those that it calls in turn are not seen: what
    ``cross_entropy`` saves belongs to ``cross_entropy``."""

    def __init__(self, owned: Owned) -> None:
        super().__init__()
        self._owned = owned
        self.call = NO_CALL

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        name = getattr(func, "__name__", "")
        if name == "__get__" or torch.compiler.is_compiling():  # an attribute, or only traced
            return func(*args, **(kwargs or {}))
        self._owned.add_parameters(args)
        if kwargs:
            self._owned.add_parameters(kwargs.values())
        outer, self.call = self.call, Call(name, args, kwargs)
        try:
            return func(*args, **(kwargs or {}))
        finally:
            self.call = outer


class Recorder(ABC):
    """A context in which ``pack`` is shown each tensor that autograd saves; what it returns is kept
    in the tensor's place until backward asks ``unpack`` for it."""

    def __init__(self) -> None:
        self.owned = Owned()
        self._entered: list[Any] = []
        self._thread = 0
        self._calls = _Calls(self.owned)

    @abstractmethod
    def pack(self, tensor: Tensor, call: Call) -> object:
        """What to keep. ``call.name`` is empty where the operation is not known, and
        ``"checkpoint"`` for the inputs of a checkpointed segment."""

    @staticmethod
    @abstractmethod
    def unpack(kept: Any) -> Tensor:
        """The tensor back. Static, so that a graph does not keep the recorder."""

    def __enter__(self) -> object:
        if self._entered:
            raise RuntimeError(
                f"this {type(self).__name__} is entered already; make another one to nest them, or "
                "for another thread"
            )
        hooks = saved_tensors_hooks(self._pack, self.unpack)
        hooks.__enter__()  # first, as transforms of torch.func refuse it
        self._thread = threading.get_ident()
        self._calls.call = NO_CALL
        self._calls.__enter__()  # type: ignore[no-untyped-call]
        self._entered = [
            hooks,
            self._calls,
            register_module_forward_pre_hook(self._see_module),
        ]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        hooks, calls, modules = self._entered
        self._entered = []
        modules.remove()
        calls.__exit__(kind, error, trace)
        hooks.__exit__(kind, error, trace)
        self.owned.forget()

    def _see_module(self, module: nn.Module, arguments: object) -> None:
        if torch.compiler.is_compiling():
            return
        if threading.get_ident() == self._thread:
            self.owned.add_module(module)

    def _pack(self, tensor: Tensor) -> object:
        call = self._saver(sys._getframe(1))
        with torch._C.DisableTorchFunction(), torch.no_grad():
            return self.pack(tensor, call)

    def _saver(self, frame: Any) -> Call:
        """The operation that saves, as the Python that called it tells: a function of torch, or a
        torch.autograd.Function, whose name stays unknown."""
        if frame.f_code is _APPLY:
            local = frame.f_locals
            if local["cls"].__module__ == _CHECKPOINT:
                return Call("checkpoint", ())
            return Call("", tuple(local["args"]))
        if frame.f_globals.get("__name__") == _CHECKPOINT:
            return Call("checkpoint", ())
        return self._calls.call
