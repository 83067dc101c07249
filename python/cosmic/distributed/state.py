"""What a communication hook keeps of a model between steps."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._C._distributed_c10d import GradBucket

from .. import _core
from ..errors import UsageError
from .agreement import check_agreement, model_digest
from .arguments import check_options, named_of
from .bucket import gradients_of
from .message import Gradient, Message
from .saving import check_saved, kept_by_name
from .wire import real

__all__ = ["RESIDUALS", "CompressionState"]

#: How what was not sent is kept, by name.
RESIDUALS = {"bf16": torch.bfloat16, "fp32": torch.float32, None: None}
#: The share of what is not sent that is kept, by codec: measured, docs/distributed.md.
DECAYS = {"q8": 1.0, "u4": 1.0, "top8": 0.5}
SETTINGS = ("codec", "residual", "decay", "min_numel", "seed")


class CompressionState:
    """Codec, counters and residuals of the gradients of one model on one rank.

    With ``g`` a gradient, ``e`` its residual, zero at first, and ``q`` what a codec makes of it on
    the wire, a rank sends ``q(g + e)`` and keeps ``e <- d (g + e - q(g + e))``. With a decay ``d``
    of 1 that is error feedback (arXiv 1901.09847): what was sent so far and what is kept is the sum
    of the gradients, to rounding. Every rank then has the mean of what all have sent, added up in
    the order of ranks: the same bits. Rounding is to nearest where a residual is kept, else
    stochastic and unbiased; ``"top8"`` is biased without one.

    Each parameter is encoded by itself, in blocks of 128: the bits depend neither on
    ``bucket_cap_mb`` nor on how torch puts parameters into buckets, on threads or instruction set.
    ``docs/distributed.md`` has the formats, and what they cost.

    Args:
        model: the model or its DistributedDataParallel, or pairs of name and parameter. Names tell
            residuals apart in a checkpoint.
        codec: ``"q8"`` (3.94x less than fp32), ``"u4"`` (7.76x) or ``"top8"`` (39.4x).
        residual: ``"bf16"``, 2 bytes an element, rounded stochastically; ``"fp32"``, 4 bytes; None:
            nothing is kept.
        decay: from 0 to 1; None: 1 with ``"q8"`` and ``"u4"``, 0.5 with ``"top8"``, whose residuals
            would else grow old under an optimizer such as Adam.
        process_group: None: that of DistributedDataParallel where it is given as ``model``, else
            the default one. Give it beside a bare model whose DistributedDataParallel has another.
            Of CPU tensors, such as gloo's.
        min_numel: gradients of fewer elements travel as they are and are averaged in float32.
        seed: of the random bits, the same on all ranks.

    Raises:
        ValueError: if an argument is out of range.
        TypeError: if an argument is of the wrong type.
        UsageError: if a parameter is not on the CPU, or there is none.
    """

    def __init__(
        self,
        model: nn.Module | Iterable[tuple[str, nn.Parameter]],
        codec: str = "u4",
        *,
        residual: str | None = "bf16",
        decay: float | None = None,
        process_group: dist.ProcessGroup | None = None,
        min_numel: int = 4096,
        seed: int = 0,
    ) -> None:
        check_options(codec, residual, RESIDUALS, decay, min_numel, seed)
        if process_group is None and isinstance(model, nn.parallel.DistributedDataParallel):
            process_group = model.process_group
        self.codec, self.residual = codec, residual
        self.decay = DECAYS[codec] if decay is None else float(decay)
        self.min_numel, self.seed = min_numel, seed
        self.process_group = process_group
        self.step = 0
        self._named = named_of(model)
        self._index = _places(self._named)
        self._residuals: dict[int, Tensor] = {}
        self._sent = self._plain = 0
        self._agreed = False

    def __getstate__(self) -> dict[str, Any]:
        """Without the process group, which belongs to this process: a copy has the default one."""
        return {**self.__dict__, "process_group": None, "_agreed": False}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._index = _places(self._named)  # of new identity

    def message_of(self, bucket: GradBucket) -> Message:
        """The layout of what a bucket sends. Residuals are made where they are first needed.

        Raises:
            UsageError: if the bucket holds a gradient of another model, or a sparse one.
        """
        plain, encoded = [], []
        for param, values in gradients_of(bucket):
            index = self._index_of(param)
            if values.numel() < self.min_numel:
                plain.append(values)
            else:
                residual = self._residual_of(index, values.numel())
                encoded.append(Gradient(index, values, residual, self.decay))
        message = Message(plain, encoded, self.codec)
        self._sent += message.nbytes
        self._plain += bucket.buffer().nbytes
        return message

    def agree(self) -> None:
        """See, at the first step, that all ranks compress in the same way.

        Raises:
            DisagreementError: on every rank, if they do not.
        """
        if self._agreed:
            return
        settings = {name: getattr(self, name) for name in (*SETTINGS, "step")}
        settings["version"] = _core.__version__  # of the package; formats are its own
        settings["model"] = model_digest(self._named.items())
        check_agreement(settings, self.process_group)
        self._agreed = True

    def rank(self) -> int:
        """This process's rank in its group; 0 where there is none."""
        return int(dist.get_rank(self.process_group)) if _is_running() else 0

    def world_size(self) -> int:
        """Ranks of the group; 1 where there is none."""
        return int(dist.get_world_size(self.process_group)) if _is_running() else 1

    def state_bytes(self) -> int:
        """Bytes of residuals that are held."""
        return sum(residual.nbytes for residual in self._residuals.values())

    def bytes_sent(self) -> int:
        """Bytes of this rank's messages so far. Each goes to every other rank."""
        return self._sent

    def bytes_uncompressed(self) -> int:
        """Bytes of the gradients that these messages stood for."""
        return self._plain

    def kept(self, name: str) -> Tensor | None:
        """What was not sent yet of a parameter's gradients, in float32 and the parameter's shape (a
        complex one's real view's); None if nothing is kept of it.

        Raises:
            KeyError: if the model has no such parameter.
        """
        if name not in self._named:
            raise KeyError(f"no parameter {name!r}; there are {', '.join(self._named)}")
        param = self._named[name]
        residual = self._residuals.get(self._index[param])
        return None if residual is None else residual.float().view(real(param.detach()).shape)

    def reset(self) -> None:
        """Forget what was not sent."""
        self._residuals.clear()

    def state_dict(self) -> dict[str, Any]:
        """This rank's counters and residuals, tensors and plain values; every rank saves its own.

        After ``load_state_dict`` a run goes on with the bits of one that was not interrupted.
        """
        names = list(self._named)
        return {
            **{name: getattr(self, name) for name in (*SETTINGS, "step")},
            "rank": self.rank(),
            "world_size": self.world_size(),
            "bytes": [self._sent, self._plain],
            "residuals": {names[k]: r.clone() for k, r in sorted(self._residuals.items())},
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where ``state_dict`` was made, on the same rank of as many.

        Raises:
            UsageError: if it is of another rank or number of ranks, of other settings or another
                model; nothing has changed then.
        """
        here = {name: getattr(self, name) for name in SETTINGS}
        check_saved(state_dict, {**here, "rank": self.rank(), "world_size": self.world_size()})
        sizes = {name: real(p.detach()).numel() for name, p in self._named.items()}
        kept = kept_by_name(state_dict, sizes, RESIDUALS[self.residual])
        places = {name: k for k, name in enumerate(self._named)}
        self._residuals = {places[name]: residual.clone() for name, residual in kept.items()}
        self.step = int(state_dict["step"])
        self._sent, self._plain = map(int, state_dict["bytes"])
        self._agreed = False

    def _index_of(self, param: Tensor) -> int:
        index = self._index.get(param)
        if index is None:
            raise UsageError(
                f"a gradient of shape {tuple(param.shape)} belongs to no parameter of this state: "
                "every DistributedDataParallel needs a CompressionState of its own, built from "
                "its model after the last parameter was exchanged"
            )
        return index

    def _residual_of(self, index: int, numel: int) -> Tensor | None:
        dtype = RESIDUALS[self.residual]
        if dtype is None:
            return None
        if index not in self._residuals:
            self._residuals[index] = torch.zeros(numel, dtype=dtype)
        return self._residuals[index]


def _is_running() -> bool:
    return bool(dist.is_initialized())


def _places(named: dict[str, nn.Parameter]) -> dict[Tensor, int]:
    return {param: place for place, param in enumerate(named.values())}
