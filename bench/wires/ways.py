"""Ways to exchange the gradients of a DistributedDataParallel, and the bytes that they send."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch.distributed.algorithms.ddp_comm_hooks import default_hooks, powerSGD_hook
from torch.nn.parallel import DistributedDataParallel

from cosmic.distributed import CompressionState, compress_gradients

#: When PowerSGD begins, with torch's other defaults: 1,000 there, more steps than are taken here.
POWER_SGD_START = 10


@dataclass(frozen=True)
class Traffic:
    """What a rank sends.

    Attributes:
        message: bytes that it gives to a step's collectives.
        gathers: whether every rank gets every message; else their sum is made on the way.
        state: bytes that are held between steps.
    """

    message: float
    gathers: bool
    state: int

    def sent(self, ranks: int) -> float:
        """Bytes that leave a rank in a step, in a ring."""
        return self.message * (ranks - 1) * (1 if self.gathers else 2 / ranks)


#: Registers a way and gives back what asks for its traffic after so many steps.
Register = Callable[[DistributedDataParallel, int], Callable[[int], Traffic]]


def _gradient_bytes(ddp: DistributedDataParallel) -> int:
    return sum(p.nbytes for p in ddp.parameters())


def _nothing(ddp: DistributedDataParallel, seed: int) -> Callable[[int], Traffic]:
    return lambda steps: Traffic(_gradient_bytes(ddp), False, 0)


def _halves(ddp: DistributedDataParallel, seed: int) -> Callable[[int], Traffic]:
    ddp.register_comm_hook(None, default_hooks.fp16_compress_hook)
    return lambda steps: Traffic(_gradient_bytes(ddp) / 2, False, 0)


def _power_sgd(rank: int) -> Register:
    def register(ddp: DistributedDataParallel, seed: int) -> Callable[[int], Traffic]:
        state = powerSGD_hook.PowerSGDState(
            process_group=None,
            matrix_approximation_rank=rank,
            start_powerSGD_iter=POWER_SGD_START,
            random_seed=seed,
        )
        ddp.register_comm_hook(state, powerSGD_hook.powerSGD_hook)

        def traffic(steps: int) -> Traffic:
            rate, *_ = state.compression_stats()  # type: ignore[no-untyped-call]
            kept = (state.error_dict, state.p_memory_dict, state.q_memory_dict)
            held = sum(tensor.nbytes for tensors in kept for tensor in tensors.values())
            return Traffic(_gradient_bytes(ddp) / rate, False, held)

        return traffic

    return register


def _cosmic(codec: str, residual: str | None, decay: float | None = None) -> Register:
    def register(ddp: DistributedDataParallel, seed: int) -> Callable[[int], Traffic]:
        state: CompressionState = compress_gradients(
            ddp, codec, residual=residual, decay=decay, seed=seed
        )
        return lambda steps: Traffic(state.bytes_sent() / steps, True, state.state_bytes())

    return register


WAYS: dict[str, Register] = {
    "none": _nothing,
    "fp16": _halves,
    "PowerSGD, rank 1": _power_sgd(1),
    "PowerSGD, rank 2": _power_sgd(2),
    "q8": _cosmic("q8", "bf16"),
    "u4": _cosmic("u4", "bf16"),
    "top8": _cosmic("top8", "bf16"),
    "q8, no residual": _cosmic("q8", None),
    "u4, no residual": _cosmic("u4", None),
    "top8, no residual": _cosmic("top8", None),
    "top8, decay 1": _cosmic("top8", "bf16", 1.0),
    "u4, fp32 residual": _cosmic("u4", "fp32"),
}
