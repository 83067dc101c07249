"""What a model owns: parameters, buffers, their views and their casts. They live on without
autograd, so that packing them would add memory."""

from __future__ import annotations

import weakref
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

__all__ = ["Owned", "Pins", "pin", "storage_of"]

#: Storages between two looks for those that are gone.
_SWEEP = 4096

#: Nodes between a parameter and what is still the parameter: views of it, or a cast.
_VIEWS_AND_CASTS = frozenset(
    f"{name}Backward{number}"
    for name in (
        "AsStrided", "Expand", "Permute", "ReshapeAlias", "Select", "Slice", "Split", "Squeeze",
        "T", "ToCopy", "Transpose", "Unbind", "UnsafeView", "Unsqueeze", "View",
    )
    for number in (0, 1, 2)
)  # fmt: skip


def storage_of(tensor: Tensor) -> int:
    """Identifies a tensor's storage while that, or a weak reference to it, lives."""
    return int(tensor.untyped_storage()._cdata)


def pin(tensor: Tensor) -> StorageWeakRef:
    """Keeps ``storage_of(tensor)`` from being given to another storage; does not keep memory."""
    return StorageWeakRef(tensor.untyped_storage())  # type: ignore[no-untyped-call]


class Pins:
    """Storages whose addresses are not given to others while they are here. Those that are gone are
    dropped from time to time, so that a long block's do not add up."""

    def __init__(self) -> None:
        self._refs: dict[int, StorageWeakRef] = {}
        self._most = _SWEEP

    def __contains__(self, storage: int) -> bool:
        return storage in self._refs

    def add(self, tensor: Tensor) -> list[int]:
        """Pin a tensor's storage; the storages that have been dropped."""
        storage, dead = storage_of(tensor), list[int]()
        if storage not in self._refs:
            if len(self._refs) >= self._most:
                dead = [at for at, ref in self._refs.items() if ref.expired()]  # type: ignore[no-untyped-call]
                for at in dead:
                    del self._refs[at]
                self._most = len(self._refs) + _SWEEP
            self._refs[storage] = pin(tensor)
        return dead

    def clear(self) -> None:
        """Drop all."""
        self._refs.clear()


class Owned:
    """Storages of parameters and buffers that have been seen."""

    def __init__(self) -> None:
        self._storages = Pins()
        self._modules: weakref.WeakSet[nn.Module] = weakref.WeakSet()

    def forget(self) -> None:
        """Start anew."""
        self._storages.clear()
        self._modules.clear()

    def add(self, tensors: Iterable[Tensor]) -> None:
        """Take tensors' storages for the model's."""
        for tensor in tensors:
            if type(tensor) in (Tensor, nn.Parameter, nn.Buffer) and tensor.layout == torch.strided:
                self._storages.add(tensor)

    def add_module(self, module: nn.Module) -> None:
        """Take what a module holds, its submodules included, when it is first seen."""
        if module in self._modules:
            return
        for each in module.modules():
            self._modules.add(each)
            self.add(p for p in each._parameters.values() if p is not None)
            self.add(b for b in each._buffers.values() if b is not None)

    def add_parameters(self, values: Iterable[object]) -> None:
        """Take those of an operation's arguments that are parameters or leaves."""
        for value in values:
            if isinstance(value, Tensor):
                if _is_leaf(value):
                    self.add((value,))
            elif isinstance(value, list | tuple):
                self.add(v for v in value if isinstance(v, Tensor) and _is_leaf(v))

    def holds(self, tensor: Tensor) -> bool:
        """Whether a strided tensor is a parameter or a buffer, a view of one, or a cast that
        autograd knows of."""
        base = tensor if tensor._base is None else tensor._base
        return _is_leaf(base) or storage_of(tensor) in self._storages or _from_leaf(tensor)


def _is_leaf(tensor: Tensor) -> bool:
    return isinstance(tensor, nn.Parameter) or (tensor.requires_grad and tensor.is_leaf)


def _from_leaf(tensor: Tensor) -> bool:
    node = tensor.grad_fn
    while node is not None and node.name() in _VIEWS_AND_CASTS:
        node = node.next_functions[0][0]
        if node is not None and node.name() == "torch::autograd::AccumulateGrad":
            return True
    return False
