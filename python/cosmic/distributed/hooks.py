"""The communication hook that compresses gradients."""

# No annotations as text: torch compares those of a hook with its own types.

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._C._distributed_c10d import GradBucket

from .state import CompressionState

__all__ = ["compress_gradients", "compress_hook"]


def compress_hook(
    state: CompressionState, bucket: GradBucket
) -> torch.futures.Future[torch.Tensor]:
    """Replace the gradients of a bucket by the mean of what all ranks sent of theirs.

    For ``ddp.register_comm_hook(state, compress_hook)``. One ``all_gather`` a bucket, which runs
    while backward goes on.

    Args:
        state: of this model and rank.
        bucket: of DistributedDataParallel.

    Returns:
        The bucket's buffer, once every rank's message is there.

    Raises:
        DisagreementError: at the first step, on every rank, if they differ in codec, residual,
            ``decay``, ``min_numel``, ``seed``, step, model or version of this package.
        UsageError: if a gradient is sparse or of another model.
    """
    state.agree()
    group = state.process_group
    message = state.message_of(bucket)
    mine = message.write(state.seed, state.step, state.rank())
    messages = torch.empty(state.world_size(), message.nbytes, dtype=torch.uint8)
    work = dist.all_gather(list(messages), mine, group=group, async_op=True)
    if bucket.is_last():
        state.step += 1
    buffer: Tensor = bucket.buffer()

    def read(gathered: torch.futures.Future[object]) -> Tensor:
        gathered.value()  # raises what went wrong
        message.read_mean(messages)
        return buffer

    future: torch.futures.Future[Tensor] = work.get_future().then(read)
    return future


def compress_gradients(
    ddp: nn.parallel.DistributedDataParallel,
    codec: str = "u4",
    *,
    residual: str | None = "bf16",
    decay: float | None = None,
    min_numel: int = 4096,
    seed: int = 0,
) -> CompressionState:
    """Compress the gradients that DistributedDataParallel exchanges.

    Between machines on a slow network; within one, memory is faster than any codec.

    Args:
        ddp: a model whose parameters are on the CPU; call it before the first backward.
        codec: ``"q8"``, ``"u4"`` or ``"top8"``.
        residual: as CompressionState has it, and what follows.
        decay: the share of what is not sent that is kept.
        min_numel: gradients of fewer elements travel as they are.
        seed: of the random bits, the same on all ranks.

    Returns:
        The state, which belongs into every rank's checkpoint.

    Raises:
        TypeError: if ``ddp`` is no DistributedDataParallel, or an argument is of the wrong type.
        ValueError: if an argument is out of range.
        UsageError: if a parameter is not on the CPU.
        RuntimeError: if it has a communication hook already.
    """
    if not isinstance(ddp, nn.parallel.DistributedDataParallel):
        raise TypeError(
            f"ddp is a {type(ddp).__name__}; expected a torch DistributedDataParallel, which "
            "exchanges the gradients that are to be compressed; call this before torch.compile"
        )
    state = CompressionState(
        ddp,
        codec,
        residual=residual,
        decay=decay,
        process_group=ddp.process_group,
        min_numel=min_numel,
        seed=seed,
    )
    ddp.register_comm_hook(state, compress_hook)
    return state
