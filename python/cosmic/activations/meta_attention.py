"""Attention on the meta device, which saves there what it saves on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend
from torch.overrides import TorchFunctionMode

__all__ = ["AttentionOfCpu"]

_FUSED = int(SDPBackend.FLASH_ATTENTION.value)


class AttentionOfCpu(TorchFunctionMode):
    """Let attention on the meta device save what the CPU's saves: where that is fused, query, key,
    value, output and a number a row. Otherwise torch takes it apart there, with all weights of
    attention."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is functional.scaled_dot_product_attention:
            return _attention(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None,
    dropout_p: float = 0.0, is_causal: bool = False, scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:  # fmt: skip
    if query.is_meta:
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype)  # as the CPU makes of it
        chosen = torch._fused_sdp_choice(
            _stand_in(query),
            _stand_in(key),
            _stand_in(value),
            None if attn_mask is None else _stand_in(attn_mask),
            dropout_p,
            is_causal,
            scale=scale,
            enable_gqa=enable_gqa,
        )
        if chosen == _FUSED:
            return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
                query, key, value, dropout_p, is_causal, attn_mask=attn_mask, scale=scale
            )[0]
    return functional.scaled_dot_product_attention(
        query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
    )


def _stand_in(tensor: Tensor) -> Tensor:
    """A CPU tensor of that shape, whose rows are all one in memory, for torch to choose by."""
    if not tensor.dim():
        return torch.empty((), dtype=tensor.dtype)
    size, stride = tensor.shape[-1], tensor.stride(-1)
    row = torch.empty(1 + max(size - 1, 0) * stride, dtype=tensor.dtype)
    steps = (0,) * (tensor.dim() - 1) + (stride,)
    return row.as_strided(tensor.shape, steps).requires_grad_(tensor.requires_grad)
