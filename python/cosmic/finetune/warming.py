"""One pass before training, so that what it leaves behind is no growth of memory in training."""

from typing import Any

import torch

from cosmic.train.forward import Forward

__all__ = ["warm_up"]


def warm_up(model: Any, ids: torch.Tensor, *, release: bool, codec: str | None = None) -> None:
    """One forward and backward, so that memory counts neither its buffers nor, where they are kept
    from step to step, the gradients."""
    hooks = [
        parameter.register_post_accumulate_grad_hook(_free)
        for parameter in model.parameters()
        if release and parameter.requires_grad
    ]
    loss = Forward(model, codec, 0)({"input_ids": ids, "labels": ids}, 0)
    loss.backward()  # type: ignore[no-untyped-call]
    for hook in hooks:
        hook.remove()


def _free(parameter: torch.Tensor) -> None:
    parameter.grad = None
