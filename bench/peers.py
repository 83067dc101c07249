"""Other optimizers that step tensors on the CPU. Who lacks a package goes without it.

    python bench/peers.py        # which are here, and what a step of each does

One line of `PEERS` adds another. ``pip install 'cosmic-optim[peers]'`` installs all of them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import is_traceable_wrapper_subclass


def prepare_deepspeed() -> None:
    """Its step is compiled when first made, by the `ninja` that stands beside this Python."""
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    scripts = str(Path(sys.executable).parent)
    if scripts not in os.environ["PATH"].split(os.pathsep):
        os.environ["PATH"] = scripts + os.pathsep + os.environ["PATH"]


@dataclass(frozen=True)
class Peer:
    """One optimizer of another package, or of torch.

    Attributes:
        package: name to install.
        target: "module:Class", imported when first made.
        options: beside learning rate and weight decay.
        lr_scale: its usual learning rate over AdamW's.
        decay_scale: the weight decay that it is given over AdamW's.
        prepare: called before the import.
    """

    package: str
    target: str
    options: Mapping[str, Any] = field(default_factory=dict)
    lr_scale: float = 1.0
    decay_scale: float = 1.0
    prepare: Callable[[], None] | None = None

    def make(self, params: Iterable[Any], *, lr: float, weight_decay: float) -> Any:
        """The optimizer of parameters or parameter groups (unnamed: not all packages take names).

        May raise anything: see `trouble`.
        """
        if self.prepare:
            self.prepare()
        module, _, name = self.target.partition(":")
        make = getattr(import_module(module), name)
        decay = weight_decay * self.decay_scale
        return make(params, lr=lr, weight_decay=decay, **self.options)

    @property
    def module(self) -> str:
        """The package's module."""
        return self.target.partition(":")[0].partition(".")[0]

    @property
    def version(self) -> str:
        return f"{self.package} {version(self.package)}"


#: AdaFactor as a drop-in: with the learning rate that it is given, not one of its own.
_OWN_LR_OFF = {"scale_parameter": False, "relative_step": False}

PEERS: dict[str, Peer] = {
    "bitsandbytes AdamW8bit": Peer("bitsandbytes", "bitsandbytes.optim:AdamW8bit"),
    "torchao AdamW8bit": Peer("torchao", "torchao.optim:AdamW8bit"),
    "torchao AdamW4bit": Peer("torchao", "torchao.optim:AdamW4bit"),
    "deepspeed CPUAdam": Peer(
        "deepspeed",
        "deepspeed.ops.adam:DeepSpeedCPUAdam",
        {"adamw_mode": True},
        prepare=prepare_deepspeed,
    ),
    "TurboAdam": Peer("turboadam", "turboadam:TurboAdam"),
    "CASMO": Peer("casmo-optimizer", "casmo:CASMO"),
    "Lion": Peer("pytorch_optimizer", "pytorch_optimizer:Lion", lr_scale=0.1),
    "CAME": Peer("pytorch_optimizer", "pytorch_optimizer:CAME", lr_scale=0.1),
    "AdaFactor": Peer("pytorch_optimizer", "pytorch_optimizer:AdaFactor", _OWN_LR_OFF),
    "AdaFactor, no momentum": Peer(
        "pytorch_optimizer",
        "pytorch_optimizer:AdaFactor",
        {**_OWN_LR_OFF, "betas": (None, 0.999)},
    ),
    "AdEMAMix": Peer("pytorch_optimizer", "pytorch_optimizer:AdEMAMix", {"weight_decouple": True}),
    # Its learning rate and its momentum multiply the decay, which is to be AdamW's all the same.
    "SGD momentum": Peer(
        "torch", "torch.optim:SGD", {"momentum": 0.9}, lr_scale=50.0, decay_scale=0.1 / 50.0
    ),
}


def installed() -> list[str]:
    """Names of the peers whose package is there, in the order of the table."""
    return [name for name, peer in PEERS.items() if find_spec(peer.module) is not None]


def absent() -> list[str]:
    """Names of the peers whose package is not there."""
    return [name for name in PEERS if name not in installed()]


def trouble(name: str) -> str | None:
    """Why an installed peer does not work here, found by a step on a small matrix; else None."""
    param = torch.nn.Parameter(torch.ones(64, 128))
    param.grad = torch.ones_like(param)
    try:
        PEERS[name].make([param], lr=1e-3, weight_decay=0.0).step()
    except Exception as error:  # another package's: anything at all
        lines = str(error).strip().splitlines() or [""]
        return f"{type(error).__name__}: {lines[0]}"
    if not (param.isfinite().all() and (param < 1).all()):
        return "its step leaves the parameter wrong"
    return None


def state_bytes(optimizer: Any) -> int:
    """Exact bytes that an optimizer's state tensors hold.

    The optimizer's own ``state_bytes()`` where it has one. Otherwise memory behind every tensor in
    its `state`, in nested containers too, the parts of tensor subclasses for the whole (which
    claims the size of what it stands for), and what several share (lookup tables) once.
    """
    if callable(own := getattr(optimizer, "state_bytes", None)):
        return int(own())
    storages: dict[int, int] = {}
    for tensor in _plain_tensors(list(optimizer.state.values())):
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def _plain_tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        if is_traceable_wrapper_subclass(value):
            parts, _ = value.__tensor_flatten__()
            yield from _plain_tensors([getattr(value, part) for part in parts])
        else:
            yield value
    elif isinstance(value, Mapping):
        yield from _plain_tensors(list(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _plain_tensors(item)


def main() -> None:
    for name in PEERS:
        if name in absent():
            print(f"{name}: not installed")
        elif reason := trouble(name):
            print(f"{name}: fails here: {reason}")
        else:
            print(f"{name}: works, {PEERS[name].version}")


if __name__ == "__main__":
    main()
