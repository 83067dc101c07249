"""``check``: what a model computes by operators whose bits depend on the machine."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks
from torch.utils._python_dispatch import TorchDispatchMode

from .operators import is_exact

__all__ = ["MachineDependent", "check"]

_KEY = "cosmic_module"  # of a node's metadata


class MachineDependent(NamedTuple):
    """An operator whose bits may depend on the instruction set, the threads or torch's build.

    Attributes:
        operator: such as ``"aten.mm"``.
        module: the name of the innermost module that called it, ``""`` for the model itself.
        backward: whether it was in backward.
        calls: how many.
    """

    operator: str
    module: str
    backward: bool
    calls: int


def check(model: nn.Module, *args: Any, **kwargs: Any) -> list[MachineDependent]:
    """Run a model forward and backward and tell which operators of torch's are not exact.

    Exact are copies, views, choices and comparisons, what rounds once as IEEE 754 says (``+``,
    ``-``, ``*``, ``/``, square roots), whatever has integers alone, and all of ``cosmic.exact``.
    Everything else is reported, also what happens to be the same on most machines.

    Backward starts from the output's ``loss``, if there is one, else from every floating tensor of
    the output, with gradients of 1. Nothing is trained: gradients and torch's generator are
    afterwards as they were, and hooks that wait for a parameter's gradient, as
    ``step_in_backward`` has them, do not run.

    Args:
        model: any module; converted or not.
        *args: for its forward.
        **kwargs: for its forward.

    Returns:
        The operators, with their modules, in the order of their first calls. Empty: all of it is
        exact, on this input.
    """
    watching = _Watching(model)
    with _untouched(model, args, kwargs), torch.enable_grad(), watching.modules(), watching:
        outputs = [out for out in _roots(model(*args, **kwargs)) if out.requires_grad]
        watching.backward = True
        if outputs:
            torch.autograd.backward(outputs, [torch.ones_like(out) for out in outputs])
    return [MachineDependent(*place, calls) for place, calls in watching.found.items()]


@contextmanager
def _untouched(model: nn.Module, *given: Any) -> Iterator[None]:
    """Within, parameters and inputs have no gradients and no hooks that wait for one. Afterwards
    they have what they had, and torch's generator its state."""
    tensors = [*model.parameters(), *_tensors(given)]
    leaves = [tensor for tensor in tensors if tensor.is_leaf and tensor.requires_grad]
    before = {leaf: leaf.grad for leaf in leaves}
    waiting = {leaf: leaf._post_accumulate_grad_hooks for leaf in leaves}
    state = torch.get_rng_state()
    for leaf in before:
        leaf.grad = None
        _set_hooks(leaf, waiting[leaf] and OrderedDict())
    try:
        yield
    finally:
        torch.set_rng_state(state)
        for leaf, gradient in before.items():
            leaf.grad = gradient
            _set_hooks(leaf, waiting[leaf])


def _set_hooks(leaf: Tensor, those: Any) -> None:
    if those is not None:  # which torch takes without forgetting what it has
        leaf._post_accumulate_grad_hooks = those


def _roots(output: Any) -> Iterator[Tensor]:
    """What backward starts from."""
    loss = getattr(output, "loss", None)
    if isinstance(loss, Tensor):
        yield loss
    else:
        yield from _tensors(output)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _tensors(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _tensors(inner)


class _Watching(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operator, and knows in which module it runs."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names = {module: name for name, module in model.named_modules()}
        self.within: list[str] = []
        self.backward = False
        self.found: dict[tuple[str, str, bool], int] = {}

    def __torch_dispatch__(
        self, op: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        out = op(*args, **kwargs)
        if not is_exact(op, args, kwargs, list(_tensors([args, kwargs, out]))):
            place = (str(op.overloadpacket), self._module(), self.backward)
            self.found[place] = self.found.get(place, 0) + 1
        return out

    def _module(self) -> str:
        if self.within:  # in backward: recomputed by a checkpoint
            return self.within[-1]
        node = torch._C._current_autograd_node() if self.backward else None
        return "" if node is None else str(_metadata(node).get(_KEY, ""))

    @contextmanager
    def modules(self) -> Iterator[None]:
        """Within, forward calls of modules are followed."""
        handles = [
            hooks.register_module_forward_pre_hook(self._enter),
            hooks.register_module_forward_hook(self._leave, always_call=True),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, module: nn.Module, _args: Any) -> None:
        if module in self.names:
            self.within.append(self.names[module])

    def _leave(self, module: nn.Module, _args: Any, output: Any) -> None:
        if module in self.names:
            self.within.pop()
            _mark([tensor.grad_fn for tensor in _tensors(output)], self.names[module])


def _mark(nodes: list[Any], name: str) -> None:
    """Write a module's name on the nodes that it has made: those without one yet."""
    while nodes:
        node = nodes.pop()
        if node is not None and _KEY not in _metadata(node):
            _metadata(node)[_KEY] = name
            nodes += [inner for inner, _ in node.next_functions]


def _metadata(node: Any) -> dict[str, Any]:
    """A dict of a node's own, which lives as long as the node."""
    metadata: dict[str, Any] = node.metadata
    return metadata
