"""Ways to train a model, from the most usual to the most thrifty, each with what it takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from ..grouping.groups import param_groups
from ..models.trainable import LORA_RANK
from .activations import CHECKPOINTING, batch_bytes
from .activations import Way as BatchWay
from .recommendation import Need, Setting
from .vacant import vacant_copy

__all__ = ["Settings"]

_BUDGET = "1%"
_RUNG = "tier1:factored"


class Settings:
    """The settings of one model.

    Args:
        name: as of ``load_model``, or None for a model that is there already.
        module: without memory.
        batch: sequences and tokens, or None.
        asked: options of ``estimate_memory`` that every setting keeps, ``budget`` and ``groups``
            among them.
        estimate: ``estimate_memory``.
    """

    def __init__(
        self,
        name: str | None,
        module: nn.Module,
        batch: tuple[int, int] | None,
        asked: dict[str, Any],
        estimate: Callable[..., Any],
    ) -> None:
        self._name, self._module, self._batch = name, module, batch
        self._asked, self._estimate = asked, estimate
        params = list(module.parameters())
        self._quantized = any(is_traceable_wrapper_subclass(param) for param in params)
        self._whole = all(param.requires_grad for param in params)

    def __iter__(self) -> Iterator[Setting]:
        fp32, bf16 = torch.float32, torch.bfloat16
        if not self._quantized:
            load = self._load("fp32")
            adamw = f"{load}optimizer = torch.optim.AdamW(model.parameters())"
            yield Setting("AdamW in fp32", adamw, lambda: self._need(fp32, adamw=True))
            yield Setting("Cosmic in fp32", load + self._cosmic(), lambda: self._need(fp32))
        load = self._load("bf16")
        yield Setting("Cosmic in bf16", load + self._cosmic(), lambda: self._need(bf16))
        words, calls, options = "Cosmic in bf16", [load + self._cosmic()], dict[str, Any]()
        for word, call, more in self._savings():
            words, options = f"{words}, {word}", {**options, **more}
            if word.startswith("state"):
                calls[0] = load + call
            else:
                calls.append(call)
            told = "; ".join(calls)
            yield Setting(words, told, lambda given=dict(options): self._need(bf16, **given))  # type: ignore[misc]
        if self._whole and not self._quantized and self._has_head() and self._linear():
            call = f"model = cosmic.load_model({self._name or 'name'!r}, 'int8')"
            yield Setting("LoRA beside an int8 base", call, self._int8)

    def _savings(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        release = "optimizer.step_in_backward(model)"
        yield "gradients released", release, {"release_gradients": True}
        if self._asked.get("budget") is None and not {"rung", "tier"} & set(self._asked):
            call = f"optimizer = Cosmic(cosmic.param_groups(model), budget={_BUDGET!r})"
            yield f"state of {_BUDGET}", call, {"budget": _BUDGET, "groups": param_groups}
            call = f"optimizer = Cosmic(cosmic.param_groups(model), rung={_RUNG!r})"
            yield "state by rows and columns", call, {"budget": None, "rung": _RUNG}
        if self._has_head():
            call = "cosmic.chunk_vocabulary(model), before the optimizer is made"
            yield "vocabulary in blocks", call, {"chunk_vocabulary": True}
        if self._batch is not None:
            call = "cosmic.compress_activations('q8') around forward"
            yield "activations in 8 bits", call, {"activations": "q8"}
            if self._recomputes():
                call = "model.gradient_checkpointing_enable() instead"
                yield "recomputed instead", call, {"activations": CHECKPOINTING}

    def _load(self, dtype: str) -> str:
        if self._name is not None:
            return f"model = cosmic.load_model({self._name!r}, {dtype!r}); "
        return "" if dtype == "fp32" or self._quantized else "model.to(torch.bfloat16); "

    def _cosmic(self) -> str:
        given = self._asked.get("budget")
        return f"optimizer = Cosmic(model.parameters(){f', budget={given!r}' if given else ''})"

    def _need(self, dtype: torch.dtype, *, adamw: bool = False, **changes: Any) -> Need:
        asked = {**self._asked, **changes}
        if dtype != torch.bfloat16:
            asked.pop("master_bits", None)  # there is nothing that it could add to
        found = self._estimate(
            self._module, dtype=None if self._quantized else dtype, batch=self._batch, **asked
        )
        state = found.adamw_bytes if adamw else found.state_bytes + found.scratch_bytes
        batch = found.activation_bytes + found.loss_bytes
        return Need(found.weight_bytes + found.master_bytes, found.gradient_bytes, state, batch)

    def _has_head(self) -> bool:
        """Whether it is a language model: one with a layer that tells the next token."""
        head = getattr(self._module, "get_output_embeddings", lambda: None)()
        return getattr(head, "weight", None) is not None

    def _recomputes(self) -> bool:
        from transformers.modeling_layers import GradientCheckpointingLayer

        return any(
            isinstance(module, GradientCheckpointingLayer) for module in self._module.modules()
        )

    def _linear(self) -> list[tuple[int, int]]:
        """Outputs and inputs of each hidden linear layer, GPT-2's transposed ones too."""
        head = getattr(self._module, "get_output_embeddings", lambda: None)()
        found = []
        for module in self._module.modules():
            if module is head or not isinstance(getattr(module, "weight", None), nn.Parameter):
                continue
            kind = type(module).__name__
            if isinstance(module, nn.Linear) or kind == "Conv1D":
                weight: Any = module.weight
                outputs, inputs = weight.shape[:: -1 if kind == "Conv1D" else 1]
                found.append((outputs, inputs))
        return found

    def _int8(self) -> Need:
        """A byte an element of hidden layers, a scale and a zero point a row, bf16 for the rest; an
        adapter in fp32 with AdamW. Activations are recomputed where that is possible."""
        linear = self._linear()
        hidden = sum(rows * columns for rows, columns in linear)
        whole = sum(param.numel() for param in self._module.parameters())
        adapter = LORA_RANK * sum(rows + columns for rows, columns in linear)
        weights = hidden + 5 * sum(rows for rows, _ in linear) + 2 * (whole - hidden)
        batch = 0
        if self._batch is not None:
            way = BatchWay(CHECKPOINTING) if self._recomputes() else BatchWay("q8")
            batch = sum(batch_bytes(vacant_copy(self._module, torch.bfloat16), self._batch, way))
        return Need(weights + 4 * adapter, 4 * adapter, 8 * adapter, batch)
