"""Modules that stand in for an embedding and a head, with their weight in blocks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .blocks import Blocks
from .lookup import Lookup, looked_up
from .stand_in import HiddenLogits

__all__ = ["Blocked", "BlockedEmbedding", "BlockedLinear"]

#: Hooks that go with a module: the dicts themselves, so that their handles stay good.
_HOOKS = (
    "_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called",
    "_forward_pre_hooks", "_forward_pre_hooks_with_kwargs",
)  # fmt: skip


class Blocked(nn.Module):
    """A module whose weight is parameters ``weight_0``, ``weight_1`` and so on.

    ``state_dict`` and ``load_state_dict`` know the whole weight by its own name.

    Args:
        stands_for: the module to stand in for, which lends its hooks and its mode.
        blocks: of its weight.
        in_use: says whether a loss without logits is being made.
    """

    def __init__(self, stands_for: nn.Module, blocks: Blocks, in_use: Callable[[], bool]) -> None:
        super().__init__()
        self.blocks = blocks
        self.stands_for = [stands_for]  # in a list: no child
        self.in_use = in_use
        for index, param in enumerate(blocks.params):
            self.register_parameter(f"weight_{index}", param)
        for name in _HOOKS:
            setattr(self, name, getattr(stands_for, name))
        self.train(stands_for.training)

    @property
    def weight(self) -> Tensor:
        """The whole weight, without a copy, for whoever reads it; gradients reach the blocks."""
        return self.blocks.assembled()

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        whole = self.blocks.whole
        destination[prefix + "weight"] = whole if keep_vars else whole.detach()
        for name, param in self._parameters.items():
            if not name.startswith("weight_") and param is not None:
                destination[prefix + name] = param if keep_vars else param.detach()

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        own: dict[str, Tensor] = {"weight": self.blocks.whole}
        own |= {n: p for n, p in self._parameters.items() if p is not None and n[:7] != "weight_"}
        for name, tensor in own.items():
            given = state_dict.get(prefix + name)
            if given is None:
                missing_keys.append(prefix + name)
            elif given.shape != tensor.shape:
                error_msgs.append(
                    f"size mismatch for {prefix}{name}: copying a param with shape "
                    f"{tuple(given.shape)} from checkpoint, the shape in current model is "
                    f"{tuple(tensor.shape)}."
                )
            else:
                with torch.no_grad():
                    tensor.copy_(given)
        names = {prefix + name for name in own}
        unexpected_keys += [k for k in state_dict if k.startswith(prefix) and k not in names]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """Nothing may move: the blocks are views of a weight that is the model's."""
        param = self.blocks.params[0]
        with torch.no_grad():
            moved = fn(param)
        place = (param.dtype, param.device, param.data_ptr())
        if (moved.dtype, moved.device, moved.data_ptr()) != place:
            raise RuntimeError(
                f"chunk_vocabulary() holds this model's {type(self.stands_for[0]).__name__} in "
                "blocks, which cannot be cast or moved; do that before, or leave it first"
            )
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]

    def __deepcopy__(self, memo: object) -> Any:
        raise RuntimeError(
            "a model cannot be copied within chunk_vocabulary(), as its blocks share the weight's "
            "memory; leave it first, or load its state_dict() into another model"
        )


class BlockedEmbedding(Blocked):
    """An ``nn.Embedding`` with its rows in blocks.

    Args:
        stands_for: the embedding.
        blocks: of its weight.
        in_use: says whether a loss without logits is being made.
        tied: whether the model's head has the same weight.
        factor: of what is looked up; None: 1.
    """

    def __init__(
        self,
        stands_for: nn.Embedding,
        blocks: Blocks,
        in_use: Callable[[], bool],
        *,
        tied: bool,
        factor: float | Tensor | None,
    ) -> None:
        super().__init__(stands_for, blocks, in_use)
        self.num_embeddings, self.embedding_dim = blocks.whole.shape
        self.padding_idx = stands_for.padding_idx
        self.tied = tied
        self.factor = factor
        self._lookup = Lookup(stands_for.padding_idx, stands_for.scale_grad_by_freq)

    def forward(self, ids: Tensor) -> Tensor:
        linked = self.tied and self.in_use()
        rows = looked_up(ids, self.blocks, self._lookup, tied=linked)
        return rows if self.factor is None else rows * self.factor


class BlockedLinear(Blocked):
    """A linear output head with its rows in blocks.

    Args:
        stands_for: the head.
        blocks: of its weight.
        in_use: says whether a loss without logits is being made.
    """

    def __init__(self, stands_for: nn.Linear, blocks: Blocks, in_use: Callable[[], bool]) -> None:
        super().__init__(stands_for, blocks, in_use)
        self.out_features, self.in_features = blocks.whole.shape
        self.bias: nn.Parameter | None
        self.register_parameter("bias", stands_for.bias)

    def forward(self, hidden: Tensor) -> Any:
        """Logits; within a loss without logits, what stands in for them."""
        if self.in_use():
            return HiddenLogits(hidden, self.out_features)
        blocks = self.blocks
        if not blocks.trains:
            return F.linear(hidden, blocks.whole.detach(), self.bias)
        parts = zip(blocks.params, blocks.split(self.bias), strict=True)
        return torch.cat([F.linear(hidden, param, piece) for param, piece in parts], -1)
